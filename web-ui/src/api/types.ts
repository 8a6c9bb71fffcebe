/** What the REST API answers: docs/rest-api.md. */

export type Role = 'viewer' | 'operator' | 'admin';

export interface Session {
  user: string;
  role: Role;
  via: 'cookie' | 'token';
}

export interface Meta {
  number: number;
  etag: string;
  revision: number;
  updatedAt: string;
}

export interface Rule {
  name?: string;
  match?: Record<string, unknown>;
  tls?: 'terminate' | 'passthrough';
  pool?: string;
  split?: { pool: string; weight?: number }[];
  reject?: object;
}

export interface Listener {
  meta: Meta;
  name: string;
  protocol?: 'tcp' | 'udp';
  bind: string[];
  tls?: { certificates?: string[] };
  rules?: Rule[];
}

export interface Backend {
  name?: string;
  address: string;
  weight?: number;
  priority?: number;
  maxConnections?: number;
}

export interface Pool {
  meta: Meta;
  name: string;
  balance?: string;
  hashOn?: string;
  healthCheck?: { type?: string; interval?: string; timeout?: string; rise?: number; fall?: number };
  backends?: Backend[];
  discovery?: { id?: string; type: string }[];
}

/** A source of backends, and how it does. */
export interface Source {
  pool: string;
  id: string;
  type: string;
  runOn: 'controlPlane' | 'node';
  state: 'ok' | 'failing' | 'pending';
  backends: number;
  lastSuccess: string | null;
  ageSeconds: number | null;
  error: string;
  rejected: number;
  rejectedItems: string[];
  nextTry: string | null;
  nodes: { node: string; error: string; backends: number }[];
}

/** An address list or a map, as lists of them have it: with the number of entries in `meta`. */
export interface Entries {
  meta: Meta & { entries: number };
  name: string;
}

export interface Assignment {
  epoch: number;
  sequence: number;
  manifestHash: string;
  revision: number | null;
}

export interface Fault {
  kind: string;
  name: string;
  code: string;
  fieldPath: string;
  message: string;
}

export interface Node {
  name: string;
  state: 'connected' | 'disconnected' | 'never' | 'banned' | 'forgotten';
  version: string;
  labels: Record<string, string>;
  connectedSince: string | null;
  lastSeen: string | null;
  startedAt: string | null;
  threads: number;
  adminAddress: string;
  certificateNotAfter: string | null;
  draining: boolean;
  wanted: Assignment | null;
  running: Assignment | null;
  phase: string;
  inSync: boolean;
  diverged: boolean;
  rejection: { message: string; at: string; revision: number; resources: Fault[] } | null;
  problems: Fault[];
  missingListeners: string[];
  gauges: { cpuSecondsTotal: number; residentBytes: number; openFiles: number; openFilesLimit: number } | null;
}

export interface BackendOnNode {
  node: string;
  health: 'up' | 'down' | 'unknown';
  reason: string;
  since: string | null;
  ejected: boolean;
  resolved: string;
}

export interface BackendState {
  pool: string;
  name: string;
  number: number;
  address: string;
  admin: 'ready' | 'drain' | 'maintenance';
  adminUntil: string | null;
  adminReason: string;
  presence: 'configured' | 'discovered';
  zone: string | null;
  health: { up: number; down: number; unknown: number };
  nodes: BackendOnNode[];
}

export interface StatLine {
  name: string;
  number: number | null;
  listener?: string;
  pool?: string;
  bytesIn: number;
  bytesOut: number;
  bytesInPerSecond: number;
  bytesOutPerSecond: number;
  connectionsActive: number;
  connectionsTotal: number;
  connectionsPerSecond: number;
  datagramsIn: number;
  datagramsOut: number;
  failed: Record<string, number>;
  ended: Record<string, number>;
  dialMillisMean: number | null;
  handshakeMillisMean: number | null;
}

export interface Stats {
  at: string;
  totals: StatLine;
  listeners: StatLine[];
  pools: StatLine[];
  nodes: StatLine[];
  rules?: StatLine[];
  backends?: StatLine[];
}

export interface HistoryPoint {
  t: number;
  bytesInPerSecond: number;
  bytesOutPerSecond: number;
  connectionsPerSecond: number;
  connectionsActive: number;
}

export interface Summary {
  create: number;
  update: number;
  delete: number;
}

export interface Revision {
  number: number;
  createdAt: string;
  author: string;
  message: string;
  source: string;
  summary: Summary;
}

export interface Change {
  op: 'create' | 'update' | 'delete';
  kind: string;
  name: string;
}

export interface Violation {
  pointer: string;
  line?: number;
  column?: number;
  code: string;
  detail: string;
  hint?: string;
}

export interface Validation {
  valid: boolean;
  errors: Violation[];
  warnings: Violation[];
  changes: Change[];
  summary: Summary;
}

export interface Written {
  revision: number;
  changed: boolean;
  summary: Summary;
  changes: Change[];
  warnings: Violation[];
}

export interface ApiToken {
  id: string;
  name: string;
  role: Role | 'pusher';
  /** Of a pusher: the source that it may tell. */
  push?: { pool: string; source: string };
  createdBy: string;
  createdAt: string;
  expiresAt: string | null;
}

export interface JoinToken {
  id: string;
  token: string;
  expiresAt: string;
  uses: number;
  controlPlane: string;
}

export interface List<T> {
  items: T[];
  total: number;
  next?: string;
}

export interface Chain {
  origin: 'acme' | 'uploaded' | 'directory' | 'placeholder';
  keyType: string;
  issuer: string;
  serial: string;
  fingerprint: string;
  names: string[];
  notBefore: string;
  notAfter: string;
  issuedAt?: string;
  ocsp?: { status: string; thisUpdate?: string; nextUpdate?: string; error?: string };
}

/** Why an order failed, in the authority's words. */
export interface AcmeError {
  at: string;
  type: string;
  detail: string;
  hint: string;
  domain?: string;
  challenge?: string;
  nodes?: string[];
}

/** How a certificate does. */
export interface CertificateStatus {
  name: string;
  origin: 'acme' | 'uploaded' | 'directory';
  state: 'valid' | 'expiring' | 'expired' | 'not-yet-valid' | 'placeholder';
  notBefore: string;
  notAfter: string;
  daysLeft: number;
  names: string[];
  chains: Chain[];
  usedBy: string[];
  nodes: { serving: number; connected: number };
  acme?: {
    account: string;
    domains: string[];
    challenges: string[];
    keyTypes: string[];
    state: 'idle' | 'ordering' | 'waiting' | 'failing';
    step?: string;
    next?: { at: string; what: 'order' | 'renew' | 'retry'; why: string };
    failures: number;
    lastError?: AcmeError;
  };
  directory?: { path: string; error?: string };
}

/** A certificate as it is written. Secrets go in and never come out. */
export interface Certificate {
  name: string;
  chain?: string;
  key?: string;
  directory?: string;
  acme?: {
    account: string;
    domains: string[];
    challenge: string | string[];
    keyType?: string | string[];
    profile?: string;
    renewBefore?: string;
    dns?: Record<string, unknown> & { type: string };
  };
}

export interface AcmeAccount {
  meta: Meta;
  name: string;
  directory: string;
  termsAgreed: boolean;
  contact?: string[];
  externalAccountBinding?: { keyId: string; secret?: string };
  ca?: string;
}

export interface AcmeAccountStatus {
  name: string;
  directory: string;
  registered: boolean;
  url?: string;
  contact: string[];
  terms?: string;
  certificates: string[];
  lastError?: AcmeError;
}

export interface ImportWish {
  name?: string;
  pem?: string;
  pkcs12?: string;
  password?: string;
  dryRun?: boolean;
}

export interface IssueWish {
  name: string;
  ca: string;
  domains: string[];
  days: number;
  keyType: string;
  deliver: 'store' | 'return';
}

export interface Imported {
  name: string;
  chain: string;
  names: string[];
  notAfter: string;
  keyType: string;
  issuer?: string;
  warnings: { code: string; detail: string; hint?: string }[];
  replaces?: { notAfter: string; names: string[] };
  usedBy: string[];
}
