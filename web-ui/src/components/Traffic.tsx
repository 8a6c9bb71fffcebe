import { Group, Loader, Text } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { lazy, Suspense, useMemo, useRef } from 'react';
import { queries } from '../api/queries';
import type { HistoryPoint, StatLine, Stats } from '../api/types';
import { rate } from '../ui/format';

const Chart = lazy(() => import('../ui/Chart'));
const LINES = [
  { label: 'In', color: '#1c7ed6' },
  { label: 'Out', color: '#2f9e44' },
];
const SECONDS = 600;

interface Props {
  /** Of the history: `kind=total`. */
  query: string;
  /** Which line of the statistics goes on with it. */
  pick: (stats: Stats) => StatLine | undefined;
}

/** Throughput: what the control plane remembers, continued by what it says each second. */
export function Traffic({ query, pick }: Props) {
  const past = useQuery(queries.throughput(query));
  const stats = useQuery(queries.stats);
  const live = useRef<{ query: string; points: HistoryPoint[] }>({ query, points: [] });

  const data = useMemo(() => {
    if (live.current.query !== query) live.current = { query, points: [] };
    const { points } = live.current;
    const line = stats.data && pick(stats.data);
    const at = stats.data ? Math.floor(Date.parse(stats.data.at) / 1000) : 0;
    const last = points.at(-1)?.t ?? past.data?.points.at(-1)?.t ?? 0;
    if (line && past.data && at > last) {
      const { bytesInPerSecond, bytesOutPerSecond, connectionsPerSecond, connectionsActive } = line;
      points.push({ t: at, bytesInPerSecond, bytesOutPerSecond, connectionsPerSecond, connectionsActive });
      if (points.length > SECONDS) points.shift();
    }
    const all = [...(past.data?.points ?? []), ...points].slice(-SECONDS);
    return [
      all.map((point) => point.t),
      all.map((point) => point.bytesInPerSecond),
      all.map((point) => point.bytesOutPerSecond),
    ] as [number[], number[], number[]];
  }, [past.data, stats.data, query, pick]);

  if (!past.data) return <Loader size="sm" />;
  if (data[0].length < 2) {
    return (
      <Group h={180} justify="center">
        <Text c="dimmed">No traffic in the last ten minutes.</Text>
      </Group>
    );
  }
  return (
    <Suspense fallback={<Loader size="sm" />}>
      <Chart data={data} lines={LINES} write={rate} />
    </Suspense>
  );
}
