import { Alert, Button, Center, Paper, PasswordInput, Stack, Text, TextInput, Title } from '@mantine/core';
import { useState } from 'react';
import { useWrite, writes } from '../api/queries';
import { ErrorBox } from '../ui/Page';

/** Signing in, or making the first admin. */
export function SignIn({ isFirst }: { isFirst: boolean }) {
  const [user, setUser] = useState(isFirst ? 'admin' : '');
  const [password, setPassword] = useState('');
  const [code, setCode] = useState('');
  const signIn = useWrite(
    () => (isFirst ? writes.bootstrap({ code, user, password }) : writes.signIn({ user, password })),
    ['session'],
  );
  return (
    <Center component="main" mih="90vh">
      <Paper withBorder p="xl" w={380}>
        <form
          onSubmit={(event) => {
            event.preventDefault();
            signIn.mutate(undefined);
          }}
        >
          <Stack>
            <Title order={1} fz={24}>
              awe4lb
            </Title>
            {isFirst && (
              <Alert color="blue" variant="outline" title="The first admin">
                <Text size="sm">
                  The code is in the file <code>bootstrap-code</code> in the data directory of the control plane.
                </Text>
              </Alert>
            )}
            <ErrorBox error={signIn.error} />
            {isFirst && (
              <TextInput label="Code" required value={code} onChange={(event) => setCode(event.currentTarget.value)} autoComplete="off" />
            )}
            <TextInput
              label="User"
              required
              value={user}
              onChange={(event) => setUser(event.currentTarget.value)}
              autoComplete="username"
            />
            <PasswordInput
              label="Password"
              required
              description={isFirst ? 'At least ten characters' : undefined}
              value={password}
              onChange={(event) => setPassword(event.currentTarget.value)}
              autoComplete={isFirst ? 'new-password' : 'current-password'}
            />
            <Button type="submit" loading={signIn.isPending}>
              {isFirst ? 'Make the admin' : 'Sign in'}
            </Button>
          </Stack>
        </form>
      </Paper>
    </Center>
  );
}
