import { Anchor, Badge, Group, Paper, Title } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { Link, useParams } from '@tanstack/react-router';
import { useCallback } from 'react';
import { queries } from '../api/queries';
import type { Listener, StatLine, Stats } from '../api/types';
import { action, condition } from '../components/rules';
import { Traffic } from '../components/Traffic';
import { paths } from '../paths';
import { type Column, DataTable } from '../ui/DataTable';
import { bytes, count, rate, reasons } from '../ui/format';
import { ErrorBox, Page } from '../ui/Page';

const protocol = (listener: Listener) => (listener.tls ? 'tls' : (listener.protocol ?? 'tcp'));

/** All listeners. */
export function Listeners() {
  const listeners = useQuery(queries.listeners);
  const stats = useQuery(queries.stats);
  const of = (name: string) => stats.data?.listeners.find((line) => line.name === name);
  const columns: Column<Listener>[] = [
    {
      title: 'Name',
      by: (one) => one.name,
      cell: (one) => (
        <Anchor component={Link} to={paths.listener(one.name)} inherit>
          {one.name}
        </Anchor>
      ),
    },
    { title: 'Address', by: (one) => one.bind.join(), cell: (one) => one.bind.join(', ') },
    {
      title: 'Protocol',
      by: protocol,
      cell: (one) => (
        <Badge variant="outline" size="sm" color="gray">
          {protocol(one)}
        </Badge>
      ),
    },
    { title: 'Rules', by: (one) => one.rules?.length ?? 0, cell: (one) => (one.rules ?? []).map(action).join('; ') },
    ...traffic((one: Listener) => of(one.name)),
  ];
  return (
    <Page title="Listeners">
      <ErrorBox error={listeners.error} />
      <DataTable
        label="listeners"
        rows={listeners.data ?? []}
        columns={columns}
        keyOf={(one) => one.name}
        textOf={(one) => JSON.stringify({ ...one, meta: undefined })}
        empty="There are no listeners yet: add one in the configuration."
      />
    </Page>
  );
}

/** What has been forwarded, as columns. */
export function traffic<T>(of: (row: T) => StatLine | undefined): Column<T>[] {
  const number = (title: string, pick: (line: StatLine) => number, write: (value: number) => string): Column<T> => ({
    title,
    right: true,
    by: (row) => pick(of(row) ?? ({} as StatLine)) ?? 0,
    cell: (row) => {
      const line = of(row);
      return line ? write(pick(line)) : '';
    },
  });
  return [
    number('In', (line) => line.bytesInPerSecond, rate),
    number('Out', (line) => line.bytesOutPerSecond, rate),
    number('Open', (line) => line.connectionsActive, count),
    number('Total', (line) => line.connectionsTotal, count),
    { title: 'Failed', cell: (row) => reasons(of(row)?.failed ?? {}) },
  ];
}

/** One listener: its rules and what went through each. */
export function ListenerPage() {
  const { name } = useParams({ strict: false }) as { name: string };
  const listeners = useQuery(queries.listeners);
  const stats = useQuery({ ...queries.stats, refetchInterval: 2_000 });
  const listener = listeners.data?.find((one) => one.name === name);
  const pick = useCallback((all: Stats) => all.listeners.find((line) => line.name === name), [name]);
  const line = stats.data && pick(stats.data);
  const rules = (listener?.rules ?? []).map((rule, index) => ({ rule, index }));
  const of = ({ rule }: { rule: { name?: string } }) =>
    stats.data?.rules?.find((one) => one.listener === name && one.name === rule.name);
  if (listeners.data && !listener) return <Page title={name}>There is no such listener (any more).</Page>;
  return (
    <Page title={`Listener ${name}`}>
      <ErrorBox error={listeners.error ?? stats.error} />
      {listener && (
        <Group gap="xl">
          <span>{listener.bind.join(', ')}</span>
          <span>{protocol(listener)}</span>
          {listener.tls?.certificates && <span>certificates {listener.tls.certificates.join(', ')}</span>}
          {line && (
            <span>
              {bytes(line.bytesIn)} in, {bytes(line.bytesOut)} out, {count(line.connectionsTotal)} connections
            </span>
          )}
        </Group>
      )}
      <Paper withBorder p="sm">
        <Traffic query={`kind=listener&name=${encodeURIComponent(name)}`} pick={pick} />
      </Paper>
      <Title order={2} fz={16}>
        Rules, in order
      </Title>
      <DataTable
        label="rules"
        rows={rules}
        keyOf={({ index }) => String(index)}
        textOf={({ rule }) => JSON.stringify(rule)}
        empty="No rules: every connection is refused."
        columns={[
          { title: 'Name', cell: ({ rule }) => rule.name },
          { title: 'When', cell: ({ rule }) => condition(rule) },
          { title: 'Does', cell: ({ rule }) => action(rule) },
          ...traffic(of),
        ]}
      />
    </Page>
  );
}
