import { Alert, Group, Stack, Title } from '@mantine/core';
import type { ReactNode } from 'react';
import { Problem } from '../api/client';

/** A page: its name, what can be done, and what it shows. */
export function Page({ title, actions, children }: { title: ReactNode; actions?: ReactNode; children: ReactNode }) {
  return (
    <Stack gap="md">
      <Group justify="space-between" wrap="wrap">
        <Title order={1} fz={22}>
          {title}
        </Title>
        {actions && <Group gap="xs">{actions}</Group>}
      </Group>
      {children}
    </Stack>
  );
}

/** What went wrong, with the trace id for whoever looks into the log. */
export function ErrorBox({ error }: { error: unknown }) {
  if (!error) return null;
  const problem = error instanceof Problem ? error : undefined;
  return (
    <Alert color="red" variant="outline" title={problem?.status ? `${problem.status} ${problem.code}` : 'Error'} role="alert">
      {error instanceof Error ? error.message : String(error)}
      {problem?.errors.length ? (
        <ul>
          {problem.errors.map((one, index) => (
            <li key={index}>
              {one.pointer} {one.detail}
              {one.hint && ` (${one.hint})`}
            </li>
          ))}
        </ul>
      ) : null}
      {problem?.traceId && problem.status >= 500 ? ` Trace id ${problem.traceId}.` : ''}
    </Alert>
  );
}
