import { Button, Code, CopyButton, Group, Modal, Stack, Text, Tooltip } from '@mantine/core';
import { useDisclosure } from '@mantine/hooks';
import { useQuery } from '@tanstack/react-query';
import { queries, useWrite, writes } from '../api/queries';
import { useWhyNot } from '../api/session';
import type { Assignment, Node } from '../api/types';
import { NodeBadge } from '../components/Badges';
import { Confirm } from '../ui/Confirm';
import { DataTable } from '../ui/DataTable';
import { ago, bytes } from '../ui/format';
import { ErrorBox, Page } from '../ui/Page';

/** The fleet: what each node is to run and runs, and why not. */
export function Nodes() {
  const nodes = useQuery(queries.nodes);
  return (
    <Page title="Nodes" actions={<JoinToken />}>
      <ErrorBox error={nodes.error} />
      <DataTable
        label="nodes"
        rows={nodes.data ?? []}
        keyOf={(node) => node.name}
        textOf={(node) => JSON.stringify(node)}
        empty="No node has joined yet: make a join token."
        columns={[
          { title: 'Name', by: (node) => node.name, cell: (node) => node.name },
          { title: 'State', by: (node) => `${node.state}${node.phase}`, cell: (node) => <NodeBadge node={node} /> },
          { title: 'Wanted', cell: (node) => assignment(node.wanted) },
          { title: 'Running', cell: (node) => <span data-testid={`running-${node.name}`}>{assignment(node.running)}</span> },
          { title: 'Why', cell: (node) => <Why node={node} /> },
          {
            title: 'Connected',
            by: (node) => node.connectedSince ?? '',
            cell: (node) => ago(node.connectedSince ?? node.lastSeen),
          },
          {
            title: 'Memory',
            right: true,
            by: (node) => node.gauges?.residentBytes ?? 0,
            cell: (node) => node.gauges && bytes(node.gauges.residentBytes),
          },
          { title: 'Version', by: (node) => node.version, cell: (node) => node.version },
          { title: '', cell: (node) => <Actions node={node} /> },
        ]}
      />
    </Page>
  );
}

function assignment(of: Assignment | null): string {
  if (!of) return '';
  return `${of.revision === null ? '' : `revision ${of.revision}, `}no. ${of.sequence}`;
}

function Why({ node }: { node: Node }) {
  const lines = [
    node.rejection?.message,
    ...(node.rejection?.resources ?? node.problems).map((fault) => `${fault.kind} ${fault.name}: ${fault.message}`),
    node.missingListeners.length > 0 ? `missing: ${node.missingListeners.join(', ')}` : undefined,
    node.diverged ? 'built something else than it was sent' : undefined,
  ].filter(Boolean);
  return (
    <Text inherit maw={420} data-testid={`why-${node.name}`}>
      {lines.join('; ')}
    </Text>
  );
}

function Actions({ node }: { node: Node }) {
  const write = useWrite(writes.node, ['nodes']);
  const whyNot = useWhyNot('admin');
  const act = (verb: 'drain' | 'undrain' | 'ban' | 'forget') => write.mutateAsync({ name: node.name, verb });
  const shared = { pending: write.isPending, error: write.error, whyNot };
  return (
    <Group gap={4} wrap="nowrap" justify="flex-end">
      {node.draining ? (
        <Button size="compact-xs" variant="default" disabled={!!whyNot} title={whyNot} onClick={() => void act('undrain')}>
          undrain
        </Button>
      ) : (
        <Confirm
          {...shared}
          label="drain"
          color="blue"
          question={`${node.name} tells its surroundings to send it nothing new; open connections stay.`}
          act={() => act('drain')}
        />
      )}
      {node.state !== 'banned' && (
        <Confirm
          {...shared}
          label="ban"
          question={`${node.name} is cut off from this control plane, for good. It goes on forwarding what it runs.`}
          act={() => act('ban')}
        />
      )}
      <Confirm
        {...shared}
        label="forget"
        question={`The record of ${node.name} is removed. It may join again with a token.`}
        act={() => act('forget')}
      />
    </Group>
  );
}

function JoinToken() {
  const [opened, { open, close }] = useDisclosure(false);
  const make = useWrite(writes.joinToken, []);
  const whyNot = useWhyNot('admin');
  const token = make.data;
  const command = token && `awe4lb-data-plane --control-plane ${token.controlPlane} --join-token-file join-token`;
  return (
    <>
      <Tooltip label={whyNot} disabled={!whyNot}>
        <Button
          size="xs"
          disabled={!!whyNot}
          title={whyNot}
          onClick={() => {
            make.mutate(undefined);
            open();
          }}
        >
          Add a node
        </Button>
      </Tooltip>
      <Modal opened={opened} onClose={close} title="Add a node" size="lg" centered>
        <Stack>
          <ErrorBox error={make.error} />
          {token && (
            <>
              <Text size="sm">
                This token is shown once. It is good for one node until {new Date(token.expiresAt).toLocaleTimeString()}. Put it into
                a file <code>join-token</code> on the node and start:
              </Text>
              <Code block tabIndex={0}>{token.token}</Code>
              <Code block tabIndex={0}>{command}</Code>
              <CopyButton value={token.token}>
                {({ copied, copy }) => <Button onClick={copy}>{copied ? 'Copied' : 'Copy the token'}</Button>}
              </CopyButton>
            </>
          )}
        </Stack>
      </Modal>
    </>
  );
}
