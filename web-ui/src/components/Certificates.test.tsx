import { MantineProvider } from '@mantine/core';
import { QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { fireEvent, render, screen, waitFor } from '@testing-library/react';
import { afterEach, expect, test, vi } from 'vitest';
import type { CertificateStatus } from '../api/types';
import { SessionContext } from '../api/session';
import { AcmeAccounts, accountOf } from '../pages/AcmeAccounts';
import { AcmeForm, BLANK, certificateOf, draftOf } from './AcmeForm';
import { DaysLeft, Failure, left, nextOf } from './CertificateState';
import { ImportForm, wishOf } from './ImportForm';

afterEach(() => vi.unstubAllGlobals());

const NOW = Date.parse('2026-03-01T00:00:00Z');
const ONE: CertificateStatus = {
  name: 'web',
  origin: 'acme',
  state: 'valid',
  notBefore: '2026-01-01T00:00:00Z',
  notAfter: '2026-04-01T00:00:00Z',
  daysLeft: 31,
  names: ['a.test'],
  chains: [],
  usedBy: ['https'],
  nodes: { serving: 3, connected: 3 },
  acme: {
    account: 'le',
    domains: ['a.test'],
    challenges: ['http-01'],
    keyTypes: ['p256'],
    state: 'idle',
    next: { at: '2026-03-02T12:00:00Z', what: 'renew', why: 'a third of its life is left then' },
    failures: 0,
  },
};
const with_ = (acme: Partial<NonNullable<CertificateStatus['acme']>>) => ({ ...ONE, acme: { ...ONE.acme!, ...acme } });

function show(element: React.ReactElement) {
  render(
    <QueryClientProvider client={new QueryClient()}>
      <MantineProvider>{element}</MantineProvider>
    </QueryClientProvider>,
  );
}

test('what happens next is said in one line', () => {
  expect(nextOf(ONE, NOW)).toBe('renews in 36 h');
  expect(nextOf(with_({ next: { at: '2026-03-15T00:00:00Z', what: 'renew', why: '' } }), NOW)).toBe('renews in 14 days');
  expect(nextOf(with_({ state: 'ordering', step: 'the nodes confirm the challenge' }), NOW)).toBe('ordering: the nodes confirm the challenge');
  const lastError = { at: '', type: 'urn:x', detail: 'no such name', hint: '' };
  const next = { at: '2026-03-01T00:03:00Z', what: 'retry' as const, why: '' };
  expect(nextOf(with_({ state: 'failing', lastError, next }), NOW)).toBe('failed: no such name; is tried again in 3 min');
  expect(nextOf({ ...ONE, acme: undefined }, NOW)).toBe('replace it before it ends');
  expect(nextOf({ ...ONE, acme: undefined, directory: { path: '/x', error: 'no key' } }, NOW)).toBe('failed: no key');
});

test('days left, also after the end', () => {
  expect(left(ONE, NOW)).toBeCloseTo(31 / 90);
  expect(left(ONE, Date.parse('2027-01-01T00:00:00Z'))).toBe(0);
  show(<DaysLeft certificate={{ ...ONE, state: 'expired', daysLeft: -3 }} />);
  screen.getByText('over for 3 days');
});

test('a failure is told in the words of the authority, with what to do', () => {
  const error = { at: '2026-03-01T00:00:00Z', type: 'urn:ietf:params:acme:error:dns', detail: 'NXDOMAIN', hint: 'look at DNS', domain: 'a.test', challenge: 'http-01', nodes: ['n2'] };
  show(<Failure error={error} />);
  screen.getByText('a.test by http-01: NXDOMAIN');
  screen.getByText('look at DNS');
  screen.getByText(/n2/);
});

test('what is typed becomes an object without empty fields', () => {
  const draft = { ...BLANK, name: 'web', account: 'le', domains: 'a.test, b.test' };
  expect(certificateOf(draft)).toEqual({
    name: 'web',
    acme: { account: 'le', domains: ['a.test', 'b.test'], challenge: ['tls-alpn-01'] },
  });
  const dns = { ...BLANK.dns, type: 'rfc2136', server: '192.0.2.53', key: 'k', secret: 's' };
  expect(certificateOf({ ...draft, challenge: ['dns-01'], keyType: ['p256', 'rsa2048'], dns }).acme).toMatchObject({
    keyType: ['p256', 'rsa2048'],
    dns: { type: 'rfc2136', server: '192.0.2.53', key: 'k', algorithm: 'hmac-sha256', secret: 's' },
  });
  const exec = { ...BLANK.dns, type: 'exec', command: '/bin/hook --x', secret: 'left over' };
  expect(certificateOf({ ...draft, challenge: ['dns-01'], dns: exec }).acme?.dns).toEqual({ type: 'exec', command: ['/bin/hook', '--x'] });
  const account = { name: 'le', preset: '', directory: 'https://ca.test/', contact: '', agreed: true, keyId: '', secret: '', ca: '' };
  // What was typed for another authority does not go along.
  expect(accountOf({ ...account, preset: 'https://known.test/', ca: 'PEM' })).toEqual({ name: 'le', directory: 'https://known.test/', termsAgreed: true });
  expect(accountOf(account)).toEqual({ name: 'le', directory: 'https://ca.test/', termsAgreed: true });
  expect(accountOf({ ...account, keyId: 'k', contact: 'a@b.test' })).toMatchObject({
    contact: ['a@b.test'],
    externalAccountBinding: { keyId: 'k' },
  });
});

test('what is there comes back as it was, without its secret', () => {
  const acme = {
    account: 'le',
    domains: ['a.test', '*.a.test'],
    challenge: 'dns-01',
    keyType: ['p256', 'p384'],
    renewBefore: '30d',
    dns: { type: 'rfc2136', server: '192.0.2.53', key: 'k', algorithm: 'hmac-sha512' },
  };
  expect(certificateOf(draftOf({ name: 'web', acme }))).toEqual({ name: 'web', acme: { ...acme, challenge: ['dns-01'] } });
});

test('a change says which version it is of, and keeps what no field shows', async () => {
  const asked: { body: Record<string, unknown>; headers: Record<string, string> }[] = [];
  vi.stubGlobal('fetch', async (_: string, init: { body: string; headers: Record<string, string> }) => {
    asked.push({ body: JSON.parse(init.body) as Record<string, unknown>, headers: init.headers });
    return new Response('{}');
  });
  const dns = { type: 'exec', command: ['/bin/hook'], servers: ['192.0.2.53'], timeout: '10m' };
  const known = { name: 'web', acme: { account: 'le', domains: ['a.test'], challenge: ['dns-01'], dns } };
  show(<AcmeForm accounts={['le']} known={known} etag='"7"' onDone={() => {}} />);
  fireEvent.change(screen.getByLabelText(/^Domains/), { target: { value: 'b.test' } });
  fireEvent.click(screen.getByRole('button', { name: 'Save' }));
  await waitFor(() => expect(asked).toHaveLength(1));
  expect(asked[0]!.headers['if-match']).toBe('"7"');
  expect(asked[0]!.body).toEqual({ name: 'web', acme: { account: 'le', domains: ['b.test'], challenge: ['dns-01'], dns } });
});

test('files become PEM or PKCS#12', async () => {
  const pem = new File(['-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n'], 'a.pem');
  const key = new File(['-----BEGIN PRIVATE KEY-----\ny\n-----END PRIVATE KEY-----\n'], 'a.key');
  const wish = await wishOf('web', [pem, key], '');
  expect(wish.pem).toMatch(/CERTIFICATE[^]*PRIVATE KEY/);
  expect(wish).not.toHaveProperty('password');
  expect(await wishOf('web', [new File([new Uint8Array([0x30, 0x82, 0xff])], 'a.p12')], 'geheim')).toEqual({
    name: 'web',
    pkcs12: 'MIL/',
    password: 'geheim',
  });
});

test('what is wrong is told at its field', async () => {
  const problem = { status: 422, code: 'invalid', detail: 'invalid', errors: [{ pointer: '/acme/domains/0', code: 'bad-value', detail: 'no domain' }] };
  vi.stubGlobal('fetch', async () => new Response(JSON.stringify(problem), { status: 422 }));
  show(<AcmeForm accounts={['le']} onDone={() => {}} />);
  fireEvent.change(screen.getByLabelText(/^Name/), { target: { value: 'web' } });
  fireEvent.change(screen.getByLabelText(/^Domains/), { target: { value: '???' } });
  fireEvent.click(screen.getByRole('button', { name: 'Order' }));
  await waitFor(() => screen.getByText('no domain'));
  expect(screen.queryByRole('alert')).toBeNull();
});

test('what is wrong with a field that is not shown is told above', async () => {
  const problem = { status: 422, code: 'invalid', detail: 'invalid', errors: [{ pointer: '/acme/dns', code: 'conflict', detail: 'only dns-01 uses it' }] };
  vi.stubGlobal('fetch', async () => new Response(JSON.stringify(problem), { status: 422 }));
  show(<AcmeForm accounts={['le']} onDone={() => {}} />);
  fireEvent.change(screen.getByLabelText(/^Name/), { target: { value: 'web' } });
  fireEvent.change(screen.getByLabelText(/^Domains/), { target: { value: 'a.test' } });
  fireEvent.click(screen.getByRole('button', { name: 'Order' }));
  await screen.findByRole('alert');
});

test('two archives are one too many', async () => {
  const archive = (name: string) => new File([new Uint8Array([0x30])], name);
  await expect(wishOf('web', [archive('a.p12'), archive('b.p12')], '')).rejects.toThrow(/a.p12 and b.p12/);
});

test('an account goes to the authority that is shown, also the second one', async () => {
  const asked: Record<string, unknown>[] = [];
  vi.stubGlobal('fetch', async (path: string, init: { method?: string; body?: string }) => {
    if (init.method === 'PUT') asked.push(JSON.parse(init.body!) as Record<string, unknown>);
    return new Response(JSON.stringify(path.includes('acme-accounts?') ? { items: [], total: 0 } : {}));
  });
  render(
    <QueryClientProvider client={new QueryClient()}>
      <SessionContext value={{ user: 'x', role: 'operator', via: 'cookie' }}>
        <MantineProvider>
          <AcmeAccounts />
        </MantineProvider>
      </SessionContext>
    </QueryClientProvider>,
  );
  const make = async (name: string, directory?: string) => {
    fireEvent.change(await screen.findByLabelText(/^Name/), { target: { value: name } });
    if (directory) fireEvent.change(screen.getByLabelText('Authority'), { target: { value: directory } });
    fireEvent.click(screen.getByRole('checkbox'));
    const before = asked.length;
    const shown = (screen.getByLabelText('Authority') as HTMLSelectElement).value;
    fireEvent.click(screen.getByRole('button', { name: 'Make the account' }));
    await waitFor(() => expect(asked).toHaveLength(before + 1));
    expect(asked[before]).toMatchObject({ name, directory: shown });
    await waitFor(() => expect((screen.getByLabelText(/^Name/) as HTMLInputElement).value).toBe(''));
  };
  await make('zero', 'https://acme.zerossl.com/v2/DV90');
  await make('le');
});

test('a viewer sees no buttons', async () => {
  vi.stubGlobal('fetch', async () => new Response(JSON.stringify({ items: [], total: 0 })));
  render(
    <QueryClientProvider client={new QueryClient()}>
      <MantineProvider>
        <AcmeAccounts />
      </MantineProvider>
    </QueryClientProvider>,
  );
  await screen.findByText('There are no accounts yet.');
  expect(screen.queryAllByRole('button')).toEqual([]);
});

test('an import is checked before it is stored', async () => {
  const asked: Record<string, unknown>[] = [];
  vi.stubGlobal('fetch', async (_: string, { body }: { body: string }) => {
    asked.push(JSON.parse(body) as Record<string, unknown>);
    const warnings = [{ code: 'names-not-covered', detail: 'b.test is lost' }];
    return new Response(JSON.stringify({ name: 'web', names: ['a.test'], notAfter: ONE.notAfter, keyType: 'rsa-2048', warnings, usedBy: [] }));
  });
  const done = vi.fn();
  show(<ImportForm name="web" onDone={done} />);
  const file = new File(['-----BEGIN CERTIFICATE-----\n'], 'a.pem');
  fireEvent.change(document.querySelector('input[type=file]')!, { target: { files: [file] } });
  fireEvent.click(await screen.findByRole('button', { name: 'Check' }));
  await screen.findByText(/b.test is lost/);
  expect(asked[0]).toMatchObject({ dryRun: true });
  // Another password may lead to something else: it is checked again.
  fireEvent.change(screen.getByLabelText(/^Password/), { target: { value: 'x' } });
  expect(screen.queryByRole('button', { name: 'Store' })).toBeNull();
  fireEvent.click(screen.getByRole('button', { name: 'Check' }));
  fireEvent.click(await screen.findByRole('button', { name: 'Store' }));
  await waitFor(() => expect(done).toHaveBeenCalledWith('web'));
  expect(asked[2]).not.toHaveProperty('dryRun');
});
