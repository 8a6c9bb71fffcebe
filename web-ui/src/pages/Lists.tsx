import { Anchor, Button, Group, Text, TextInput, Title } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { Link, useParams } from '@tanstack/react-router';
import { useState } from 'react';
import { queries, useWrite, writes } from '../api/queries';
import { useWhyNot } from '../api/session';
import type { Entries } from '../api/types';
import { paths } from '../paths';
import { type Column, DataTable } from '../ui/DataTable';
import { ago, count } from '../ui/format';
import { ErrorBox, Page } from '../ui/Page';

/** More rows than this are no longer a page: the filter of the API finds the others. */
const SHOWN = 1_000;

/** All address lists and maps. */
export function Lists() {
  const lists = useQuery(queries.lists);
  const maps = useQuery(queries.maps);
  const columns = (to: (name: string) => string): Column<Entries>[] => [
    {
      title: 'Name',
      by: (one) => one.name,
      cell: (one) => (
        <Anchor component={Link} to={to(one.name)} inherit>
          {one.name}
        </Anchor>
      ),
    },
    { title: 'Entries', right: true, by: (one) => one.meta.entries, cell: (one) => count(one.meta.entries) },
    { title: 'Changed', by: (one) => one.meta.updatedAt, cell: (one) => ago(one.meta.updatedAt) },
  ];
  return (
    <Page title="Lists and maps">
      <ErrorBox error={lists.error ?? maps.error} />
      <Title order={2} fz={16}>
        Address lists
      </Title>
      <DataTable
        label="address lists"
        rows={lists.data ?? []}
        columns={columns(paths.list)}
        keyOf={(one) => one.name}
        textOf={(one) => one.name}
        empty="There are no address lists yet: add one in the configuration."
      />
      <Title order={2} fz={16}>
        Maps
      </Title>
      <DataTable
        label="maps"
        rows={maps.data ?? []}
        columns={columns(paths.map)}
        keyOf={(one) => one.name}
        textOf={(one) => one.name}
        empty="There are no maps yet: add one in the configuration."
      />
    </Page>
  );
}

/** One address list: entries come and go without a revision. */
export function ListPage() {
  const { name } = useParams({ strict: false }) as { name: string };
  const entries = useQuery(queries.entries(name));
  const change = useWrite(writes.entries, ['config']);
  const whyNot = useWhyNot('operator');
  const [text, setText] = useState('');
  const wanted = text.split(/[\s,]+/).filter((part) => part !== '');
  const items = entries.data?.items ?? [];
  return (
    <Page title={`Address list ${name}`}>
      <ErrorBox error={entries.error ?? change.error} />
      <form
        onSubmit={(event) => {
          event.preventDefault();
          change.mutate({ list: name, add: wanted }, { onSuccess: () => setText('') });
        }}
      >
        <Group align="end">
          <TextInput
            label="Addresses or prefixes"
            description="Several with spaces between them. They are on every node at once, without a revision."
            value={text}
            onChange={(event) => setText(event.currentTarget.value)}
          />
          <Button type="submit" disabled={!!whyNot || wanted.length === 0} loading={change.isPending} title={whyNot}>
            Add
          </Button>
        </Group>
      </form>
      {items.length > SHOWN && (
        <Text size="sm">
          The first {count(SHOWN)} of {count(items.length)}.
        </Text>
      )}
      <DataTable
        label="entries"
        rows={items.slice(0, SHOWN)}
        keyOf={(entry) => entry}
        textOf={(entry) => entry}
        empty="The list is empty: it names nobody."
        columns={[
          { title: 'Entry', cell: (entry) => entry },
          {
            title: '',
            cell: (entry) => (
              <Button
                size="compact-xs"
                variant="subtle"
                disabled={!!whyNot || change.isPending}
                title={whyNot}
                aria-label={`remove ${entry}`}
                onClick={() => change.mutate({ list: name, remove: [entry] })}
              >
                remove
              </Button>
            ),
          },
        ]}
      />
    </Page>
  );
}

/** One map: which pool each server name goes to. */
export function MapPage() {
  const { name } = useParams({ strict: false }) as { name: string };
  const entries = useQuery(queries.mapEntries(name));
  const change = useWrite(writes.mapEntry, ['config']);
  const whyNot = useWhyNot('operator');
  const [serverName, setServerName] = useState('');
  const [pool, setPool] = useState('');
  const rows = Object.entries(entries.data?.entries ?? {});
  return (
    <Page title={`Map ${name}`}>
      <ErrorBox error={entries.error ?? change.error} />
      <form
        onSubmit={(event) => {
          event.preventDefault();
          change.mutate({ map: name, name: serverName, pool }, { onSuccess: () => setServerName('') });
        }}
      >
        <Group align="end">
          <TextInput
            label="Server name"
            placeholder="*.example.com"
            required
            value={serverName}
            onChange={(event) => setServerName(event.currentTarget.value)}
          />
          <TextInput label="Pool" required value={pool} onChange={(event) => setPool(event.currentTarget.value)} />
          <Button type="submit" disabled={!!whyNot} loading={change.isPending} title={whyNot}>
            Set
          </Button>
        </Group>
      </form>
      {rows.length > SHOWN && (
        <Text size="sm">
          The first {count(SHOWN)} of {count(rows.length)}.
        </Text>
      )}
      <DataTable
        label="entries"
        rows={rows.slice(0, SHOWN)}
        keyOf={([key]) => key}
        textOf={([key, to]) => `${key} ${to}`}
        empty="The map is empty."
        columns={[
          { title: 'Server name', by: ([key]) => key, cell: ([key]) => key },
          {
            title: 'Pool',
            by: ([, to]) => to,
            cell: ([, to]) => (
              <Anchor component={Link} to={paths.pool(to)} inherit>
                {to}
              </Anchor>
            ),
          },
          {
            title: '',
            cell: ([key]) => (
              <Button
                size="compact-xs"
                variant="subtle"
                disabled={!!whyNot || change.isPending}
                title={whyNot}
                aria-label={`remove ${key}`}
                onClick={() => change.mutate({ map: name, name: key, pool: null })}
              >
                remove
              </Button>
            ),
          },
        ]}
      />
    </Page>
  );
}
