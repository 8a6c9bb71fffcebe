import { MantineProvider } from '@mantine/core';
import { QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { fireEvent, render, screen, waitFor } from '@testing-library/react';
import { afterEach, expect, test, vi } from 'vitest';
import { SessionContext } from '../api/session';
import type { Pool, Role } from '../api/types';
import { PoolForm } from './PoolForm';

afterEach(() => vi.unstubAllGlobals());

const POOL: Pool = {
  meta: { number: 4, etag: '"7"', revision: 7, updatedAt: '2026-01-01T00:00:00Z' },
  name: 'app',
  balance: 'random',
  healthCheck: { type: 'tcp' },
  backends: [{ name: 'a', address: '10.0.0.1:80' }],
};

function show(role: Role, onStale = () => {}) {
  render(
    <MantineProvider>
      <QueryClientProvider client={new QueryClient()}>
        <SessionContext value={{ user: 'ann', role, via: 'cookie' }}>
          <PoolForm pool={POOL} onStale={onStale} />
        </SessionContext>
      </QueryClientProvider>
    </MantineProvider>,
  );
}

function answers(status: number, body: unknown) {
  const fetched = vi.fn(async (_path: string, _init: RequestInit) => new Response(JSON.stringify(body), { status }));
  vi.stubGlobal('fetch', fetched);
  return fetched;
}

function add(address: string) {
  fireEvent.click(screen.getByText('Add a backend'));
  fireEvent.change(screen.getByLabelText('address of new 2'), { target: { value: address } });
  fireEvent.click(screen.getByText('Save'));
}

test('a new backend is saved, based on what was shown, and the rest stays', async () => {
  const fetched = answers(200, POOL);
  show('operator');
  add('10.0.0.2:80');
  await waitFor(() => expect(fetched).toHaveBeenCalled());
  const [path, init] = fetched.mock.calls[0]!;
  expect(path).toBe('/api/v1/pools/app');
  expect(init.headers).toMatchObject({ 'if-match': '"7"' });
  const sent = JSON.parse(String(init.body));
  expect(sent.backends).toEqual([{ name: 'a', address: '10.0.0.1:80' }, { address: '10.0.0.2:80' }]);
  expect(sent.healthCheck).toEqual({ type: 'tcp' });
  expect(sent.meta).toBeUndefined();
});

test('an error stands at its field', async () => {
  answers(422, { code: 'invalid', detail: 'x', errors: [{ pointer: '/backends/1/address', code: 'c', detail: 'no port' }] });
  show('operator');
  add('10.0.0.2');
  expect(await screen.findByText('no port')).toBeTruthy();
});

test('a stale form says so and offers to load anew', async () => {
  answers(412, { code: 'stale', detail: 'stale' });
  const onStale = vi.fn();
  show('operator', onStale);
  add('10.0.0.2:80');
  fireEvent.click(await screen.findByText('Load it anew'));
  expect(onStale).toHaveBeenCalledOnce();
});

test('a viewer sees why nothing can be saved', () => {
  show('viewer');
  const save = screen.getByText('Save').closest('button')!;
  expect(save.disabled).toBe(true);
  expect(save.title).toContain('operator');
});
