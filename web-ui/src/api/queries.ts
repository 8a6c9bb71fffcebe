import { queryOptions, useMutation, useQueryClient } from '@tanstack/react-query';
import { call, json, list } from './client';
import type {
  AcmeAccount,
  AcmeAccountStatus,
  ApiToken,
  BackendState,
  Certificate,
  CertificateStatus,
  Change,
  Entries,
  HistoryPoint,
  Imported,
  ImportWish,
  IssueWish,
  JoinToken,
  Listener,
  Meta,
  Node,
  Pool,
  Revision,
  Session,
  Source,
  Stats,
  Validation,
  Written,
} from './types';

/** Reads. The first part of each key is what server-sent events refresh. */
export const queries = {
  session: queryOptions({
    queryKey: ['session'],
    queryFn: ({ signal }) => json<Session | { bootstrapNeeded: true }>('/api/v1/session', { signal }),
    retry: false,
    staleTime: Infinity,
  }),
  nodes: queryOptions({
    queryKey: ['nodes'],
    queryFn: ({ signal }) => list<Node>('/api/v1/nodes', signal),
  }),
  listeners: queryOptions({
    queryKey: ['config', 'listeners'],
    queryFn: ({ signal }) => list<Listener>('/api/v1/listeners', signal),
  }),
  pools: queryOptions({
    queryKey: ['config', 'pools'],
    queryFn: ({ signal }) => list<Pool>('/api/v1/pools', signal),
  }),
  pool: (name: string) =>
    queryOptions({
      queryKey: ['config', 'pools', name],
      queryFn: ({ signal }) => json<Pool>(`/api/v1/pools/${encodeURIComponent(name)}`, { signal }),
    }),
  lists: queryOptions({
    queryKey: ['config', 'address-lists'],
    queryFn: ({ signal }) => list<Entries>('/api/v1/address-lists', signal),
  }),
  entries: (name: string) =>
    queryOptions({
      queryKey: ['config', 'address-lists', name],
      queryFn: ({ signal }) =>
        json<{ items: string[]; total: number }>(`/api/v1/address-lists/${encodeURIComponent(name)}/entries`, { signal }),
    }),
  maps: queryOptions({
    queryKey: ['config', 'maps'],
    queryFn: ({ signal }) => list<Entries>('/api/v1/maps', signal),
  }),
  mapEntries: (name: string) =>
    queryOptions({
      queryKey: ['config', 'maps', name],
      queryFn: ({ signal }) =>
        json<{ entries: Record<string, string>; total: number }>(`/api/v1/maps/${encodeURIComponent(name)}/entries`, {
          signal,
        }),
    }),
  certificates: queryOptions({
    queryKey: ['certificates'],
    queryFn: ({ signal }) => list<CertificateStatus>('/api/v1/certificate-status', signal),
  }),
  certificate: (name: string) =>
    queryOptions({
      queryKey: ['config', 'certificates', name],
      queryFn: ({ signal }) =>
        json<Certificate & { meta: Meta }>(`/api/v1/certificates/${encodeURIComponent(name)}`, { signal }),
    }),
  accounts: queryOptions({
    queryKey: ['config', 'acme-accounts'],
    queryFn: ({ signal }) => list<AcmeAccount>('/api/v1/acme-accounts', signal),
  }),
  accountStatus: (name: string) =>
    queryOptions({
      queryKey: ['certificates', 'account', name],
      queryFn: ({ signal }) =>
        json<AcmeAccountStatus>(`/api/v1/acme-accounts/${encodeURIComponent(name)}/status`, { signal }),
    }),
  document: queryOptions({
    queryKey: ['config', 'document'],
    queryFn: async ({ signal }) => {
      const answer = await call('/api/v1/config', { accept: 'application/yaml', signal });
      return { yaml: await answer.text(), etag: answer.headers.get('etag') ?? '' };
    },
  }),
  backends: queryOptions({
    queryKey: ['backends'],
    queryFn: ({ signal }) => list<BackendState>('/api/v1/backends', signal),
  }),
  sources: queryOptions({
    queryKey: ['sources'],
    queryFn: ({ signal }) => list<Source>('/api/v1/discovery', signal),
  }),
  stats: queryOptions({
    queryKey: ['stats'],
    queryFn: ({ signal }) => json<Stats>('/api/v1/stats', { signal }),
  }),
  throughput: (query: string) =>
    queryOptions({
      queryKey: ['throughput', query],
      queryFn: ({ signal }) =>
        json<{ step: number; points: HistoryPoint[] }>(`/api/v1/stats/history?${query}`, { signal }),
      staleTime: Infinity,
    }),
  revisions: queryOptions({
    queryKey: ['config', 'revisions'],
    queryFn: ({ signal }) => json<{ items: Revision[] }>('/api/v1/revisions?limit=200', { signal }),
  }),
  revision: (number: number) =>
    queryOptions({
      queryKey: ['revision', number],
      queryFn: async ({ signal }) => {
        const path = `/api/v1/revisions/${number}`;
        const [revision, diff] = await Promise.all([
          json<Revision & { changes: Change[] }>(path, { signal }),
          json<{ unified: string }>(`${path}/diff`, { signal }),
        ]);
        return { revision, unified: diff.unified };
      },
    }),
  tokens: queryOptions({
    queryKey: ['tokens'],
    queryFn: ({ signal }) => list<ApiToken>('/api/v1/tokens', signal),
  }),
};

/** Writes, which refresh what they touch. */
export function useWrite<I, O>(write: (input: I) => Promise<O>, touches: string[]) {
  const client = useQueryClient();
  return useMutation({
    mutationFn: write,
    onSuccess: () => {
      for (const key of touches) void client.invalidateQueries({ queryKey: [key] });
    },
  });
}

export const writes = {
  pool: ({ pool, etag }: { pool: Omit<Pool, 'meta'>; etag: string }) =>
    json<Pool>(`/api/v1/pools/${encodeURIComponent(pool.name)}`, { method: 'PUT', body: pool, etag }),
  entries: ({ list, ...change }: { list: string; add?: string[]; remove?: string[] }) =>
    json<Entries>(`/api/v1/address-lists/${encodeURIComponent(list)}/entries`, { method: 'PATCH', body: change }),
  mapEntry: ({ map, name, pool }: { map: string; name: string; pool: string | null }) => {
    const path = `/api/v1/maps/${encodeURIComponent(map)}/entries/${encodeURIComponent(name)}`;
    return call(path, pool === null ? { method: 'DELETE' } : { method: 'PUT', body: { pool } });
  },
  certificate: ({ certificate, etag }: { certificate: Certificate; etag?: string }) =>
    json<Certificate>(`/api/v1/certificates/${encodeURIComponent(certificate.name)}`, {
      method: 'PUT',
      body: certificate,
      etag,
      isNew: !etag,
    }),
  deleteCertificate: (name: string) => call(`/api/v1/certificates/${encodeURIComponent(name)}`, { method: 'DELETE' }),
  renew: (name: string) => call(`/api/v1/certificates/${encodeURIComponent(name)}:renew`, { method: 'POST', body: {} }),
  importCertificate: (wish: ImportWish) =>
    json<Imported>('/api/v1/certificates:import', { method: 'POST', body: wish }),
  issue: ({ name, ...wish }: IssueWish) =>
    json<Imported & { key: string; ca?: string }>(`/api/v1/certificates/${encodeURIComponent(name)}:issue`, {
      method: 'POST',
      body: wish,
    }),
  account: ({ name, ...body }: Omit<AcmeAccount, 'meta'>) =>
    json<AcmeAccount>(`/api/v1/acme-accounts/${encodeURIComponent(name)}`, {
      method: 'PUT',
      body: { name, ...body },
      isNew: true,
    }),
  deleteAccount: (name: string) => call(`/api/v1/acme-accounts/${encodeURIComponent(name)}`, { method: 'DELETE' }),
  rollOver: (name: string) =>
    json<AcmeAccountStatus>(`/api/v1/acme-accounts/${encodeURIComponent(name)}:rollover`, { method: 'POST', body: {} }),
  admin: (wish: { pool: string; backend: string; verb: 'drain' | 'maintain' | 'ready' }) =>
    json<BackendState>(
      `/api/v1/pools/${encodeURIComponent(wish.pool)}/backends/${encodeURIComponent(wish.backend)}:${wish.verb}`,
      { method: 'POST', body: {} },
    ),
  node: ({ name, verb }: { name: string; verb: 'drain' | 'undrain' | 'ban' | 'forget' }) =>
    json<Node | null>(`/api/v1/nodes/${encodeURIComponent(name)}:${verb}`, { method: 'POST' }),
  joinToken: () => json<JoinToken>('/api/v1/join-tokens', { method: 'POST', body: {} }),
  validate: (yaml: string, signal?: AbortSignal) =>
    json<Validation>('/api/v1/config:validate', { method: 'POST', body: yaml, type: 'application/yaml', signal }),
  document: ({ yaml, etag, message }: { yaml: string; etag: string; message: string }) =>
    json<Written>(`/api/v1/config?message=${encodeURIComponent(message)}`, {
      method: 'PUT',
      body: yaml,
      type: 'application/yaml',
      etag,
    }),
  restore: (number: number) => json<Written>(`/api/v1/revisions/${number}:restore`, { method: 'POST' }),
  token: (wish: { name: string; role: string; expiresIn?: string }) =>
    json<ApiToken & { token: string }>('/api/v1/tokens', { method: 'POST', body: wish }),
  deleteToken: (id: string) => call(`/api/v1/tokens/${encodeURIComponent(id)}`, { method: 'DELETE' }),
  signIn: (wish: { user: string; password: string }) =>
    json<Session>('/api/v1/session', { method: 'POST', body: wish }),
  bootstrap: (wish: { code: string; user: string; password: string }) =>
    json<Session>('/api/v1/session:bootstrap', { method: 'POST', body: wish }),
  signOut: () => call('/api/v1/session', { method: 'DELETE' }),
};
