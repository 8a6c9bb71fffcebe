import type { QueryClient } from '@tanstack/react-query';
import type { Source, Stats } from './types';

/** Keys that an event makes stale. */
const STALE: Record<string, string[]> = {
  revision: ['config', 'backends', 'nodes', 'sources', 'certificates'],
  node: ['nodes', 'backends', 'certificates'],
  certificate: ['certificates'],
  order: ['certificates'],
  backend: ['backends'],
};
const POLL = 5_000;

/**
 * Keeps what is shown up to date: by server-sent events, and by asking now and then while there are none. Tells
 * `onState` whether the stream stands.
 */
export function follow(client: QueryClient, onState: (connected: boolean) => void): () => void {
  let source: EventSource | undefined;
  let poll: ReturnType<typeof setInterval> | undefined;
  let ended = false;
  // Several events within a moment are one refresh.
  const stale = new Set<string>();
  let flush: ReturnType<typeof setTimeout> | undefined;
  const mark = (keys: string[]) => {
    for (const key of keys) stale.add(key);
    flush ??= setTimeout(() => {
      flush = undefined;
      for (const key of stale) void client.invalidateQueries({ queryKey: [key] });
      stale.clear();
    }, 100);
  };
  const all = () => mark(['config', 'backends', 'nodes', 'sources', 'certificates', 'stats']);

  const open = () => {
    source = new EventSource('/api/v1/events');
    source.onopen = () => {
      onState(true);
      clearInterval(poll);
      poll = undefined;
    };
    source.onerror = () => {
      onState(false);
      poll ??= setInterval(all, POLL);
      // The browser tries again by itself, unless the answer was a refusal.
      if (source?.readyState === EventSource.CLOSED && !ended) setTimeout(() => !ended && open(), POLL);
    };
    for (const [kind, keys] of Object.entries(STALE)) source.addEventListener(kind, () => mark(keys));
    source.addEventListener('reset', all);
    // Told often, and whole: what is shown is replaced, nothing is asked for.
    source.addEventListener('source', (event) => {
      const news = JSON.parse((event as MessageEvent<string>).data) as Source;
      const before = client.getQueryData<Source[]>(['sources']);
      if (!before) return;
      const at = before.findIndex((one) => one.pool === news.pool && one.id === news.id);
      const after = at < 0 ? [...before, news] : before.with(at, news);
      client.setQueryData(['sources'], after);
      if (before[at]?.backends !== news.backends) mark(['backends']);
    });
    source.addEventListener('stats', (event) => {
      const news = JSON.parse((event as MessageEvent<string>).data) as Stats;
      client.setQueryData<Stats>(['stats'], (before) => ({ ...before, ...news }));
    });
  };
  open();
  return () => {
    ended = true;
    source?.close();
    clearInterval(poll);
    clearTimeout(flush);
  };
}
