import { Anchor, Button, Group, Loader, Paper, Text, Title } from '@mantine/core';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { Link, useParams } from '@tanstack/react-router';
import { useCallback, useState } from 'react';
import { queries, useWrite, writes } from '../api/queries';
import { useWhyNot } from '../api/session';
import type { BackendState, Pool, Stats } from '../api/types';
import { AdminBadge, HealthBadge } from '../components/Badges';
import { PoolForm } from '../components/PoolForm';
import { Sources } from '../components/Sources';
import { Traffic } from '../components/Traffic';
import { paths } from '../paths';
import { DataTable } from '../ui/DataTable';
import { ago } from '../ui/format';
import { ErrorBox, Page } from '../ui/Page';
import { traffic } from './Listeners';

/** All pools. */
export function Pools() {
  const pools = useQuery(queries.pools);
  const backends = useQuery(queries.backends);
  const stats = useQuery(queries.stats);
  const sources = useQuery(queries.sources);
  const failing = (pool: Pool) => (sources.data ?? []).filter((one) => one.pool === pool.name && one.state === 'failing').length;
  const of = (pool: Pool) => (backends.data ?? []).filter((one) => one.pool === pool.name);
  const down = (pool: Pool) => of(pool).filter((one) => one.health.down > 0).length;
  return (
    <Page title="Pools">
      <ErrorBox error={pools.error ?? backends.error} />
      <DataTable
        label="pools"
        rows={pools.data ?? []}
        keyOf={(pool) => pool.name}
        textOf={(pool) => JSON.stringify({ ...pool, meta: undefined })}
        empty="There are no pools yet: add one in the configuration."
        columns={[
          {
            title: 'Name',
            by: (pool) => pool.name,
            cell: (pool) => (
              <Anchor component={Link} to={paths.pool(pool.name)} inherit>
                {pool.name}
              </Anchor>
            ),
          },
          { title: 'Balance', by: (pool) => pool.balance ?? 'random', cell: (pool) => pool.balance ?? 'random' },
          {
            title: 'Backends',
            by: down,
            cell: (pool) => (
              <Text inherit c={down(pool) > 0 ? 'red' : undefined}>
                {of(pool).length}
                {down(pool) > 0 && `, ${down(pool)} down`}
              </Text>
            ),
          },
          {
            title: 'Sources',
            by: failing,
            cell: (pool) => (
              <Text inherit c={failing(pool) > 0 ? 'red' : undefined}>
                {pool.discovery?.length || ''}
                {failing(pool) > 0 && `, ${failing(pool)} failing`}
              </Text>
            ),
          },
          ...traffic((pool: Pool) => stats.data?.pools.find((line) => line.name === pool.name)),
        ]}
      />
    </Page>
  );
}

/** One pool: its backends as the nodes see them, and the form to change it. */
export function PoolPage() {
  const { name } = useParams({ strict: false }) as { name: string };
  const client = useQueryClient();
  const pool = useQuery(queries.pool(name));
  const backends = useQuery(queries.backends);
  const sources = useQuery(queries.sources);
  const stats = useQuery({ ...queries.stats, refetchInterval: 2_000 });
  const pick = useCallback((all: Stats) => all.pools.find((line) => line.name === name), [name]);
  const [generation, setGeneration] = useState(0);
  const reload = async () => {
    await client.invalidateQueries({ queryKey: ['config'] });
    setGeneration((before) => before + 1);
  };
  const ofPool = (backends.data ?? []).filter((one) => one.pool === name);
  const sourcesOfPool = (sources.data ?? []).filter((one) => one.pool === name);
  return (
    <Page title={`Pool ${name}`}>
      <ErrorBox error={pool.error ?? backends.error ?? sources.error} />
      <Paper withBorder p="sm">
        <Traffic query={`kind=pool&name=${encodeURIComponent(name)}`} pick={pick} />
      </Paper>
      <Title order={2} fz={16}>
        Backends
      </Title>
      <DataTable
        label="backends"
        rows={ofPool}
        keyOf={(one) => one.name}
        textOf={(one) => JSON.stringify(one)}
        empty="No backends: every connection is refused."
        columns={[
          {
            title: 'Name',
            by: (one) => one.name,
            cell: (one) => (
              <>
                {one.name}
                {one.presence === 'discovered' && (
                  <Text span size="xs" c="dimmed" ml={6}>
                    discovered
                  </Text>
                )}
              </>
            ),
          },
          { title: 'Address', by: (one) => one.address, cell: (one) => one.address },
          ...(ofPool.some((one) => one.zone)
            ? [{ title: 'Zone', by: (one: BackendState) => one.zone ?? '', cell: (one: BackendState) => one.zone }]
            : []),
          {
            title: 'Health',
            by: (one) => -one.health.down,
            cell: (one) => (
              <Group gap={6}>
                <HealthBadge backend={one} />
                <AdminBadge backend={one} />
              </Group>
            ),
          },
          { title: 'Why', cell: why },
          ...traffic((one: BackendState) =>
            stats.data?.backends?.find((line) => line.pool === name && line.name === one.name),
          ),
          { title: '', cell: (one) => <AdminActions backend={one} /> },
        ]}
      />
      {sourcesOfPool.length > 0 && (
        <>
          <Title order={2} fz={16}>
            Sources
          </Title>
          <Sources sources={sourcesOfPool} />
        </>
      )}
      <Title order={2} fz={16}>
        Change it
      </Title>
      {pool.data ? (
        // A form that is being filled in is not replaced by what others do: saving it says that it is stale.
        <PoolForm key={`${generation} ${pool.data.meta.etag}`} pool={pool.data} onStale={() => void reload()} />
      ) : (
        pool.isPending && <Loader size="sm" />
      )}
    </Page>
  );
}

function why(backend: BackendState): string {
  const down = backend.nodes.filter((node) => node.health === 'down' || node.ejected);
  return down.map((node) => `${node.node}: ${node.reason || 'ejected'} (${ago(node.since)})`).join('; ');
}

function AdminActions({ backend }: { backend: BackendState }) {
  const admin = useWrite(writes.admin, ['backends']);
  const whyNot = useWhyNot('operator');
  const verbs = (['ready', 'drain', 'maintain'] as const).filter(
    (verb) => verb !== { ready: 'ready', drain: 'drain', maintenance: 'maintain' }[backend.admin],
  );
  return (
    <Group gap={4} wrap="nowrap" justify="flex-end">
      {verbs.map((verb) => (
        <Button
          key={verb}
          size="compact-xs"
          variant="default"
          loading={admin.isPending}
          disabled={!!whyNot}
          title={whyNot}
          onClick={() => admin.mutate({ pool: backend.pool, backend: backend.name, verb })}
        >
          {verb}
        </Button>
      ))}
    </Group>
  );
}
