import { Badge, Tooltip } from '@mantine/core';
import type { BackendState, Node } from '../api/types';

const FILLED = { variant: 'outline', size: 'sm' } as const;

/** How a node is, in one word; the rest in the tip. */
export function NodeBadge({ node }: { node: Node }) {
  const [word, color] = nodeWord(node);
  const tip = node.rejection?.message ?? node.problems[0]?.message ?? `${node.state}, ${node.phase}`;
  return (
    <Tooltip label={tip} multiline maw={480}>
      <Badge {...FILLED} color={color}>
        {word}
      </Badge>
    </Tooltip>
  );
}

export function nodeWord(node: Node): [string, string] {
  if (node.state !== 'connected') return [node.state, node.state === 'banned' ? 'gray' : 'red'];
  if (node.rejection) return ['rejected', 'red'];
  if (node.diverged) return ['diverged', 'red'];
  if (node.phase === 'degraded' || node.missingListeners.length > 0) return ['degraded', 'orange'];
  if (node.draining) return ['draining', 'yellow'];
  return node.inSync ? ['in sync', 'green'] : ['updating', 'blue'];
}

/** How a backend is over all nodes. */
export function HealthBadge({ backend }: { backend: BackendState }) {
  const { up, down, unknown } = backend.health;
  const down_ = backend.nodes.filter((node) => node.health === 'down' || node.ejected);
  const tip = down_.map((node) => `${node.node}: ${node.ejected ? 'ejected' : node.reason || 'down'}`).join('; ');
  const color = down > 0 ? (up > 0 ? 'orange' : 'red') : up > 0 ? 'green' : 'gray';
  const word = down > 0 ? `down on ${down} of ${up + down + unknown}` : up > 0 ? 'up' : 'unknown';
  return (
    <Tooltip label={tip || `${up} up, ${down} down, ${unknown} unknown`} multiline maw={480}>
      <Badge {...FILLED} color={color}>
        {word}
      </Badge>
    </Tooltip>
  );
}

/** An admin state other than ready. */
export function AdminBadge({ backend }: { backend: BackendState }) {
  if (backend.admin === 'ready') return null;
  return (
    <Tooltip label={[backend.adminReason, backend.adminUntil && `until ${backend.adminUntil}`].filter(Boolean).join(', ') || backend.admin}>
      <Badge {...FILLED} color="yellow">
        {backend.admin}
      </Badge>
    </Tooltip>
  );
}
