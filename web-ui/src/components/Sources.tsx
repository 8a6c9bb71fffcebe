import { Badge, List, Table, Text } from '@mantine/core';
import { useEffect, useState } from 'react';
import type { Source } from '../api/types';
import { ago, until } from '../ui/format';

/** The sources of a pool: how each does, since when, and when it is asked again. */
export function Sources({ sources }: { sources: Source[] }) {
  const now = useNow();
  return (
    <Table.ScrollContainer minWidth={600} scrollAreaProps={{ viewportProps: { tabIndex: 0 } }}>
      <Table verticalSpacing={6} aria-label="sources">
        <Table.Thead>
          <Table.Tr>
            {['Source', 'Type', 'State', 'Backends', 'Last answer', 'Next try', 'Why'].map((title) => (
              <Table.Th key={title}>{title}</Table.Th>
            ))}
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {sources.map((source) => (
            <Table.Tr key={source.id}>
              <Table.Td>{source.id}</Table.Td>
              <Table.Td>
                {source.type}
                {source.runOn === 'node' && ', by each node'}
              </Table.Td>
              <Table.Td>
                <Badge variant="outline" size="sm" color={COLORS[source.state]}>
                  {source.state}
                </Badge>
              </Table.Td>
              <Table.Td>{source.backends}</Table.Td>
              <Table.Td>{source.lastSuccess ? ago(source.lastSuccess, now) : 'never'}</Table.Td>
              <Table.Td>{until(source.nextTry, now)}</Table.Td>
              <Table.Td>
                <Why source={source} />
              </Table.Td>
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </Table.ScrollContainer>
  );
}

const COLORS = { ok: 'green', failing: 'red', pending: 'gray' } as const;

/** What went wrong: the last try, and items that are no backends. */
function Why({ source }: { source: Source }) {
  const more = source.rejected - source.rejectedItems.length;
  return (
    <>
      {source.error && (
        <Text inherit c="red">
          {source.error}
        </Text>
      )}
      {source.rejected > 0 && (
        <>
          <Text inherit>{source.rejected} items are no backends</Text>
          <List size="xs">
            {source.rejectedItems.map((item) => (
              <List.Item key={item}>{item}</List.Item>
            ))}
            {source.rejectedItems.length > 0 && more > 0 && <List.Item>and {more} more</List.Item>}
          </List>
        </>
      )}
    </>
  );
}

/** The time, a second at a time: ages grow while nothing else changes. */
function useNow(): number {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    const tick = setInterval(() => setNow(Date.now()), 1_000);
    return () => clearInterval(tick);
  }, []);
  return now;
}
