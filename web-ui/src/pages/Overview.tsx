import { Alert, Anchor, List, Paper, SimpleGrid, Text, Title } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import type { ReactNode } from 'react';
import { queries } from '../api/queries';
import type { BackendState, Node, Stats } from '../api/types';
import { nodeWord } from '../components/Badges';
import { Traffic } from '../components/Traffic';
import { paths } from '../paths';
import { bytes, count, rate } from '../ui/format';
import { ErrorBox, Page } from '../ui/Page';

const total = (stats: Stats) => stats.totals;

/** The fleet at one glance: what is wrong first. */
export function Overview() {
  const nodes = useQuery(queries.nodes);
  const backends = useQuery(queries.backends);
  const stats = useQuery(queries.stats);
  const totals = stats.data?.totals;
  const connected = nodes.data?.filter((node) => node.state === 'connected') ?? [];
  const inSync = connected.filter((node) => node.inSync);
  return (
    <Page title="Overview">
      <ErrorBox error={nodes.error ?? backends.error ?? stats.error} />
      <Unhealthy nodes={nodes.data ?? []} backends={backends.data ?? []} />
      <SimpleGrid cols={{ base: 2, md: 4 }}>
        <Fact title="Nodes in sync" value={nodes.data ? `${inSync.length} of ${nodes.data.length}` : '…'} id="nodes-in-sync">
          {connected.length} connected
        </Fact>
        <Fact title="Open connections" value={totals ? count(totals.connectionsActive) : '…'} id="connections-active">
          {totals && `${count(totals.connectionsPerSecond)}/s new, ${count(totals.connectionsTotal)} in all`}
        </Fact>
        <Fact title="From clients" value={totals ? rate(totals.bytesInPerSecond) : '…'} id="rate-in">
          {totals && `${bytes(totals.bytesIn)} in all`}
        </Fact>
        <Fact title="To clients" value={totals ? rate(totals.bytesOutPerSecond) : '…'} id="rate-out">
          {totals && <span data-testid="bytes-out">{bytes(totals.bytesOut)} in all</span>}
        </Fact>
      </SimpleGrid>
      <Paper withBorder p="sm">
        <Title order={2} fz={16} mb="xs">
          Throughput
        </Title>
        <Traffic query="kind=total" pick={total} />
      </Paper>
    </Page>
  );
}

function Fact({ title, value, id, children }: { title: string; value: string; id: string; children: ReactNode }) {
  return (
    <Paper withBorder p="sm">
      <Text size="sm" c="dimmed">
        {title}
      </Text>
      <Text fz={22} fw={600} data-testid={id}>
        {value}
      </Text>
      <Text size="xs" c="dimmed">
        {children}
      </Text>
    </Paper>
  );
}

/** Everything that is not as it should be, each with its cause and the page that says more. */
function Unhealthy({ nodes, backends }: { nodes: Node[]; backends: BackendState[] }) {
  const badNodes = nodes.filter((node) => ['rejected', 'diverged', 'degraded', 'disconnected'].includes(nodeWord(node)[0]));
  const badBackends = backends.filter((one) => one.health.down > 0 || one.nodes.some((node) => node.ejected));
  if (badNodes.length + badBackends.length === 0) return null;
  return (
    <Alert color="red" variant="outline" title="Not as it should be" data-testid="unhealthy">
      <List size="sm">
        {badNodes.map((node) => (
          <List.Item key={node.name}>
            <Anchor component={Link} to={paths.nodes} inherit>
              Node {node.name}
            </Anchor>{' '}
            {nodeWord(node)[0]}: {whatIsWrong(node)}
          </List.Item>
        ))}
        {badBackends.map((one) => (
          <List.Item key={`${one.pool}/${one.name}`}>
            <Anchor component={Link} to={paths.pool(one.pool)} inherit>
              Backend {one.pool}/{one.name}
            </Anchor>{' '}
            down on {one.health.down} of {one.nodes.length} nodes: {causes(one)}
          </List.Item>
        ))}
      </List>
    </Alert>
  );
}

function whatIsWrong(node: Node): string {
  if (node.rejection) return node.rejection.message;
  if (node.missingListeners.length > 0) return `listeners missing: ${node.missingListeners.join(', ')}`;
  if (node.problems.length > 0) return node.problems.map((fault) => fault.message).join('; ');
  return node.state === 'disconnected' ? `last seen ${node.lastSeen ?? 'never'}` : node.phase;
}

function causes(backend: BackendState): string {
  const down = backend.nodes.filter((node) => node.health === 'down' || node.ejected);
  return [...new Set(down.map((node) => node.reason || (node.ejected ? 'ejected' : 'down')))].join(', ');
}
