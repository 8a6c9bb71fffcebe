import type { List, Violation } from './types';

/** What the control plane says when it does not do what was asked. */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    readonly detail: string,
    readonly errors: Violation[] = [],
    readonly traceId = '',
  ) {
    super(detail);
    this.name = 'Problem';
  }
}

/** Called when the session is over. */
let onSignedOut = () => {};
export function whenSignedOut(then: () => void) {
  onSignedOut = then;
}

interface Options {
  method?: string;
  /** JSON, unless it is text with a type. */
  body?: unknown;
  type?: string;
  /** For `If-Match`. */
  etag?: string;
  /** Only if there is none yet: `If-None-Match: *`. */
  isNew?: boolean;
  accept?: string;
  signal?: AbortSignal;
}

/** One call. Answers that are no success are thrown as {@link Problem}. */
export async function call(path: string, options: Options = {}): Promise<Response> {
  const headers: Record<string, string> = { accept: options.accept ?? 'application/json' };
  let body: string | undefined;
  if (options.body !== undefined) {
    headers['content-type'] = options.type ?? 'application/json';
    body = options.type ? String(options.body) : JSON.stringify(options.body);
  }
  if (options.etag) headers['if-match'] = options.etag;
  if (options.isNew) headers['if-none-match'] = '*';
  let answer: Response;
  try {
    answer = await fetch(path, { method: options.method ?? 'GET', headers, body, signal: options.signal });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Problem(0, 'unreachable', 'The control plane does not answer.');
  }
  if (answer.ok) return answer;
  const problem = await problemOf(answer);
  if (answer.status === 401 && !path.startsWith('/api/v1/session')) onSignedOut();
  throw problem;
}

async function problemOf(answer: Response): Promise<Problem> {
  const text = await answer.text();
  try {
    const body = JSON.parse(text) as Partial<Problem> & { traceId?: string };
    const detail = body.detail ?? answer.statusText;
    return new Problem(answer.status, body.code ?? 'unknown', detail, body.errors ?? [], body.traceId);
  } catch {
    return new Problem(answer.status, 'unknown', `The control plane answers ${answer.status}.`);
  }
}

/** A call whose answer is JSON. */
export async function json<T>(path: string, options: Options = {}): Promise<T> {
  const answer = await call(path, options);
  const text = await answer.text();
  return (text === '' ? null : JSON.parse(text)) as T;
}

/** All pages of a list. */
export async function list<T>(path: string, signal?: AbortSignal): Promise<T[]> {
  const items: T[] = [];
  let cursor = '';
  for (;;) {
    const page: List<T> = await json(`${path}?limit=1000${cursor}`, { signal });
    items.push(...page.items);
    if (!page.next) return items;
    cursor = `&cursor=${encodeURIComponent(page.next)}`;
  }
}

/** Errors by the field that they are about: pointers relative to `base`. */
export function fieldErrors(problem: unknown, base = ''): Record<string, string> {
  const fields: Record<string, string> = {};
  if (!(problem instanceof Problem)) return fields;
  for (const error of problem.errors) {
    const pointer = error.pointer.startsWith(base) ? error.pointer.slice(base.length) : error.pointer;
    fields[pointer] ??= error.hint ? `${error.detail}; ${error.hint}` : error.detail;
  }
  return fields;
}
