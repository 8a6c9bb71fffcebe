import { Button, Code, Group, NativeSelect, Paper, Stack, Text, TextInput } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { queries, useWrite, writes } from '../api/queries';
import { useWhyNot } from '../api/session';
import { Confirm } from '../ui/Confirm';
import { DataTable } from '../ui/DataTable';
import { ago } from '../ui/format';
import { ErrorBox, Page } from '../ui/Page';

/** API tokens. */
export function Tokens() {
  const whyNot = useWhyNot('admin');
  const tokens = useQuery({ ...queries.tokens, enabled: !whyNot });
  const remove = useWrite(writes.deleteToken, ['tokens']);
  if (whyNot) return <Page title="API tokens">This page {whyNot}.</Page>;
  return (
    <Page title="API tokens">
      <ErrorBox error={tokens.error} />
      <NewToken />
      <DataTable
        label="tokens"
        rows={tokens.data ?? []}
        keyOf={(token) => token.id}
        textOf={(token) => JSON.stringify(token)}
        empty="There are no tokens."
        columns={[
          { title: 'Name', by: (token) => token.name, cell: (token) => token.name },
          {
            title: 'Role',
            by: (token) => token.role,
            cell: (token) => (token.push ? `pushes to ${token.push.pool}/${token.push.source}` : token.role),
          },
          { title: 'Made', by: (token) => token.createdAt, cell: (token) => `${ago(token.createdAt)} by ${token.createdBy}` },
          {
            title: 'Good until',
            by: (token) => token.expiresAt ?? '',
            cell: (token) => (token.expiresAt ? new Date(token.expiresAt).toLocaleString() : 'it is deleted'),
          },
          {
            title: '',
            cell: (token) => (
              <Confirm
                label="delete"
                question={`Whoever uses the token ${token.name} is locked out at once.`}
                pending={remove.isPending}
                error={remove.error}
                act={() => remove.mutateAsync(token.id)}
              />
            ),
          },
        ]}
      />
    </Page>
  );
}

function NewToken() {
  const [name, setName] = useState('');
  const [role, setRole] = useState('viewer');
  const make = useWrite(writes.token, ['tokens']);
  return (
    <Paper withBorder p="sm">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          make.mutate({ name, role, expiresIn: '90d' }, { onSuccess: () => setName('') });
        }}
      >
        <Stack gap="xs">
          <ErrorBox error={make.error} />
          <Group align="end">
            <TextInput label="What it is for" required value={name} onChange={(event) => setName(event.currentTarget.value)} />
            <NativeSelect
              label="Role"
              data={['viewer', 'operator', 'admin']}
              value={role}
              onChange={(event) => setRole(event.currentTarget.value)}
            />
            <Button type="submit" loading={make.isPending}>
              Make a token for 90 days
            </Button>
          </Group>
          {make.data && (
            <>
              <Text size="sm">Shown once:</Text>
              <Code block tabIndex={0}>{make.data.token}</Code>
            </>
          )}
        </Stack>
      </form>
    </Paper>
  );
}
