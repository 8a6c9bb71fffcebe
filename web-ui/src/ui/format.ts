const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** Bytes in units of 1,024. */
export function bytes(amount: number): string {
  let unit = 0;
  while (Math.abs(amount) >= 1024 && unit < UNITS.length - 1) {
    amount /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? Math.round(amount) : amount.toFixed(1)} ${UNITS[unit]}`;
}

/** Bytes a second. */
export function rate(amount: number): string {
  return `${bytes(amount)}/s`;
}

/** A count with thousands apart. */
export function count(amount: number): string {
  return Math.round(amount).toLocaleString('en-US');
}

/** How long ago. */
export function ago(time: string | null | undefined, now = Date.now()): string {
  if (!time) return '';
  const seconds = Math.max(0, Math.round((now - Date.parse(time)) / 1000));
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3_600)} h ago`;
  return `${Math.floor(seconds / 86_400)} d ago`;
}

/** How soon. */
export function until(time: string | null | undefined, now = Date.now()): string {
  if (!time) return '';
  const seconds = Math.round((Date.parse(time) - now) / 1000);
  if (seconds <= 0) return 'now';
  if (seconds < 60) return `in ${seconds} s`;
  if (seconds < 7_200) return `in ${Math.ceil(seconds / 60)} min`;
  return seconds < 172_800 ? `in ${Math.round(seconds / 3_600)} h` : `in ${Math.round(seconds / 86_400)} days`;
}

/** `+1 ~2 -3`. */
export function summary(of: { create: number; update: number; delete: number }): string {
  return `+${of.create} ~${of.update} −${of.delete}`;
}

/** Reasons and their counts, the most frequent first. */
export function reasons(counts: Record<string, number>): string {
  const all = Object.entries(counts).filter(([, times]) => times > 0);
  return all
    .sort(([, a], [, b]) => b - a)
    .map(([reason, times]) => `${reason} ${count(times)}`)
    .join(', ');
}
