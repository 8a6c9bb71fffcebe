import { useCallback, useSyncExternalStore } from 'react';

const CHANGED = 'awe4lb:query';

function subscribe(then: () => void) {
  window.addEventListener(CHANGED, then);
  window.addEventListener('popstate', then);
  return () => {
    window.removeEventListener(CHANGED, then);
    window.removeEventListener('popstate', then);
  };
}

/** A piece of state that lives in the address, so that a page can be sent to somebody as it is. */
export function useQueryParameter(name: string): [string, (value: string) => void] {
  const value = useSyncExternalStore(subscribe, () => new URLSearchParams(window.location.search).get(name) ?? '');
  const set = useCallback(
    (next: string) => {
      const url = new URL(window.location.href);
      if (next === '') url.searchParams.delete(name);
      else url.searchParams.set(name, next);
      window.history.replaceState(window.history.state, '', url);
      window.dispatchEvent(new Event(CHANGED));
    },
    [name],
  );
  return [value, set];
}
