import { MantineProvider } from '@mantine/core';
import { QueryClient } from '@tanstack/react-query';
import { render, screen, within } from '@testing-library/react';
import { afterEach, expect, test, vi } from 'vitest';
import { follow } from '../api/events';
import type { Source } from '../api/types';
import { Sources } from './Sources';

afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

const SOURCE: Source = {
  pool: 'app',
  id: 'registry',
  type: 'consul',
  runOn: 'controlPlane',
  state: 'ok',
  backends: 3,
  lastSuccess: '2026-01-01T00:00:00Z',
  ageSeconds: 0,
  error: '',
  rejected: 0,
  rejectedItems: [],
  nextTry: '2026-01-01T00:00:40Z',
  nodes: [],
};

function show(sources: Source[]) {
  vi.useFakeTimers({ now: Date.parse('2026-01-01T00:00:30Z') });
  render(
    <MantineProvider>
      <Sources sources={sources} />
    </MantineProvider>,
  );
  return (id: string) => within(screen.getByText(id).closest('tr')!);
}

test('each source says how it does, since when, and when it is asked again', () => {
  const row = show([SOURCE, { ...SOURCE, id: 'names', type: 'dns', runOn: 'node', state: 'pending', lastSuccess: null, nextTry: null }]);
  for (const text of ['consul', 'ok', '3', '30 s ago', 'in 10 s']) row('registry').getByText(text);
  for (const text of ['dns, by each node', 'pending', 'never']) row('names').getByText(text);
});

test('a failure and what is no backend say why', () => {
  const failing: Source = {
    ...SOURCE,
    state: 'failing',
    error: '403 Forbidden (see tokenFile)',
    rejected: 7,
    rejectedItems: ['web-1: 70000 is no port'],
  };
  const row = show([failing]);
  for (const text of ['failing', '403 Forbidden (see tokenFile)', '7 items are no backends', 'web-1: 70000 is no port', 'and 6 more'])
    row('registry').getByText(text);
});

test('an event about a source replaces what is shown of it, and nothing is asked for', () => {
  const heard: Record<string, (event: { data: string }) => void> = {};
  class Stream {
    addEventListener(kind: string, listener: (event: { data: string }) => void) {
      heard[kind] = listener;
    }
    close() {}
  }
  vi.stubGlobal('EventSource', Stream);
  const fetched = vi.fn();
  vi.stubGlobal('fetch', fetched);
  const client = new QueryClient();
  const other = { ...SOURCE, pool: 'other' };
  client.setQueryData(['sources'], [SOURCE, other]);
  const stop = follow(client, () => {});
  heard.source!({ data: JSON.stringify({ ...SOURCE, state: 'failing', error: 'refused' }) });
  const [first, second] = client.getQueryData<Source[]>(['sources'])!;
  expect([first!.error, second]).toEqual(['refused', other]);
  heard.source!({ data: JSON.stringify({ ...SOURCE, id: 'new' }) });
  expect(client.getQueryData<Source[]>(['sources'])!.map((one) => one.id)).toEqual(['registry', 'registry', 'new']);
  expect(fetched).not.toHaveBeenCalled();
  stop();
});
