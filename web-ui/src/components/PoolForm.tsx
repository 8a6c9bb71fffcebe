import { ActionIcon, Alert, Button, Group, NativeSelect, NumberInput, Stack, Table, TextInput, Tooltip } from '@mantine/core';
import { useState } from 'react';
import { fieldErrors, Problem } from '../api/client';
import { useWrite, writes } from '../api/queries';
import { useWhyNot } from '../api/session';
import type { Backend, Pool } from '../api/types';
import { ErrorBox } from '../ui/Page';

const BALANCES = ['random', 'roundRobin', 'leastConn', 'hash'];

interface Props {
  pool: Pool;
  /** Somebody else was faster: load it anew. */
  onStale: () => void;
}

/** The pool as a form. Fields that it does not show stay as they are. */
export function PoolForm({ pool, onStale }: Props) {
  const { meta, ...rest } = pool;
  const [draft, setDraft] = useState(rest);
  const save = useWrite(writes.pool, ['config', 'backends']);
  const whyNot = useWhyNot('operator');
  const errors = fieldErrors(save.error);
  const backends = draft.backends ?? [];
  const isStale = save.error instanceof Problem && save.error.status === 412;
  const isChanged = JSON.stringify(draft) !== JSON.stringify(rest);
  // What no field shows is shown above them.
  const hasOwnPlace = Object.keys(errors).length > 0 && Object.keys(errors).every((at) => /^\/(balance|backends\/\d+\/\w+)$/.test(at));

  const change = (index: number, part: Partial<Backend>) =>
    setDraft({ ...draft, backends: backends.map((one, at) => (at === index ? { ...one, ...part } : one)) });
  const remove = (index: number) => setDraft({ ...draft, backends: backends.filter((_, at) => at !== index) });
  const add = () => setDraft({ ...draft, backends: [...backends, { address: '' }] });

  return (
    <form
      aria-label={`Pool ${pool.name}`}
      onSubmit={(event) => {
        event.preventDefault();
        save.mutate({ pool: draft, etag: meta.etag });
      }}
    >
      <Stack gap="sm">
        {isStale ? (
          <Alert color="orange" variant="outline" title="Somebody else has changed this pool" role="alert">
            Nothing was saved.{' '}
            <Button size="compact-xs" variant="default" onClick={onStale}>
              Load it anew
            </Button>
          </Alert>
        ) : (
          !hasOwnPlace && <ErrorBox error={save.error} />
        )}
        <NativeSelect
          label="Balance"
          maw={240}
          value={draft.balance ?? 'random'}
          data={BALANCES}
          error={errors['/balance']}
          disabled={!!whyNot}
          onChange={(event) => setDraft({ ...draft, balance: event.currentTarget.value })}
        />
        <Table.ScrollContainer minWidth={560} scrollAreaProps={{ viewportProps: { tabIndex: 0 } }}>
          <Table verticalSpacing={4} withRowBorders={false} aria-label="Backends">
            <Table.Thead>
              <Table.Tr>
                <Table.Th>Name</Table.Th>
                <Table.Th>Address</Table.Th>
                <Table.Th w={110}>Weight</Table.Th>
                <Table.Th w={110}>Priority</Table.Th>
                <Table.Th w={40} />
              </Table.Tr>
            </Table.Thead>
            <Table.Tbody>
              {backends.map((backend, index) => {
                const label = backend.name || backend.address || `new ${index + 1}`;
                const error = (field: string) => errors[`/backends/${index}/${field}`];
                const number = (field: 'weight' | 'priority', fallback: number) => (
                  <NumberInput
                    aria-label={`${field} of ${label}`}
                    min={0}
                    max={65535}
                    value={backend[field] ?? fallback}
                    error={error(field)}
                    disabled={!!whyNot}
                    onChange={(value) => change(index, { [field]: Number(value) })}
                  />
                );
                return (
                  // Names can be empty and equal while they are typed: the place is the identity.
                  <Table.Tr key={index}>
                    <Table.Td>
                      <TextInput
                        aria-label={`name of ${label}`}
                        placeholder="by address"
                        value={backend.name ?? ''}
                        error={error('name')}
                        disabled={!!whyNot}
                        onChange={(event) => change(index, { name: event.currentTarget.value || undefined })}
                      />
                    </Table.Td>
                    <Table.Td>
                      <TextInput
                        aria-label={`address of ${label}`}
                        placeholder="10.0.0.1:5432"
                        value={backend.address}
                        error={error('address')}
                        disabled={!!whyNot}
                        onChange={(event) => change(index, { address: event.currentTarget.value })}
                      />
                    </Table.Td>
                    <Table.Td>{number('weight', 1)}</Table.Td>
                    <Table.Td>{number('priority', 0)}</Table.Td>
                    <Table.Td>
                      <ActionIcon
                        variant="subtle"
                        color="red"
                        aria-label={`remove ${label}`}
                        disabled={!!whyNot}
                        onClick={() => remove(index)}
                      >
                        ×
                      </ActionIcon>
                    </Table.Td>
                  </Table.Tr>
                );
              })}
            </Table.Tbody>
          </Table>
        </Table.ScrollContainer>
        <Group>
          <Button variant="default" onClick={add} disabled={!!whyNot}>
            Add a backend
          </Button>
          <Tooltip label={whyNot} disabled={!whyNot}>
            <Button type="submit" loading={save.isPending} disabled={!!whyNot || !isChanged} title={whyNot}>
              Save
            </Button>
          </Tooltip>
        </Group>
      </Stack>
    </form>
  );
}
