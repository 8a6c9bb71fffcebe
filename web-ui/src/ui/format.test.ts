import { describe, expect, test } from 'vitest';
import { ago, bytes, count, reasons, summary, until } from './format';

describe('format', () => {
  test('bytes have units of 1,024', () => {
    expect(bytes(0)).toBe('0 B');
    expect(bytes(1023)).toBe('1023 B');
    expect(bytes(1536)).toBe('1.5 KiB');
    expect(bytes(5 * 2 ** 40)).toBe('5.0 TiB');
  });
  test('counts are readable', () => expect(count(1234567.4)).toBe('1,234,567'));
  test('times are relative', () => {
    const now = Date.parse('2026-01-01T00:10:00Z');
    expect(ago('2026-01-01T00:09:58Z', now)).toBe('2 s ago');
    expect(ago('2026-01-01T00:00:00Z', now)).toBe('10 min ago');
    expect(ago(null, now)).toBe('');
    expect(until('2026-01-01T00:10:09Z', now)).toBe('in 9 s');
    expect(until('2026-01-01T00:12:30Z', now)).toBe('in 3 min');
    expect(until('2026-01-01T00:09:00Z', now)).toBe('now');
    expect(until(null, now)).toBe('');
  });
  test('summaries and reasons', () => {
    expect(summary({ create: 1, update: 2, delete: 3 })).toBe('+1 ~2 −3');
    expect(reasons({ a: 1, b: 5, c: 0 })).toBe('b 5, a 1');
  });
});
