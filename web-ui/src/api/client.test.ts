import { afterEach, expect, test, vi } from 'vitest';
import { call, fieldErrors, json, list, Problem, whenSignedOut } from './client';

afterEach(() => vi.unstubAllGlobals());

function answer(status: number, body: unknown, headers: Record<string, string> = {}) {
  const fetched = vi.fn(async () => new Response(JSON.stringify(body), { status, headers }));
  vi.stubGlobal('fetch', fetched);
  return fetched as unknown as ReturnType<typeof vi.fn<typeof fetch>>;
}

test('a write sends what it is based on', async () => {
  const fetched = answer(200, {});
  await call('/api/v1/pools/app', { method: 'PUT', body: { name: 'app' }, etag: '"12"' });
  const init = fetched.mock.calls[0]?.[1];
  expect(init?.headers).toMatchObject({ 'if-match': '"12"', 'content-type': 'application/json' });
  expect(init?.body).toBe('{"name":"app"}');
});

test('a problem is thrown with its errors by field', async () => {
  const errors = [{ pointer: '/backends/1/address', code: 'bad', detail: 'no port', hint: 'write host:port' }];
  answer(422, { code: 'invalid', detail: 'no port', errors });
  const problem = await json('/x').catch((error: unknown) => error);
  expect(problem).toBeInstanceOf(Problem);
  expect((problem as Problem).status).toBe(422);
  expect(fieldErrors(problem, '/backends')).toEqual({ '/1/address': 'no port; write host:port' });
});

test('the end of a session is told', async () => {
  const told = vi.fn();
  whenSignedOut(told);
  answer(401, { code: 'unauthorized', detail: 'sign in' });
  await expect(call('/api/v1/nodes')).rejects.toThrow('sign in');
  expect(told).toHaveBeenCalledOnce();
});

test('a silent control plane is a problem, too', async () => {
  vi.stubGlobal('fetch', () => Promise.reject(new TypeError('network')));
  await expect(call('/x')).rejects.toMatchObject({ status: 0, code: 'unreachable' });
});

test('lists are read to their end', async () => {
  const pages = [{ items: [1, 2], next: 'b c' }, { items: [3] }];
  const fetched = vi.fn(async (_: string) => new Response(JSON.stringify(pages.shift())));
  vi.stubGlobal('fetch', fetched);
  expect(await list<number>('/api/v1/pools')).toEqual([1, 2, 3]);
  expect(fetched.mock.calls[1]?.[0]).toBe('/api/v1/pools?limit=1000&cursor=b%20c');
});
