import type { Rule } from '../api/types';

/** What a rule looks at, in words. */
export function condition(rule: Rule): string {
  const parts = Object.entries(rule.match ?? {}).map(([field, value]) => `${field} ${[value].flat().join(', ')}`);
  return parts.length === 0 ? 'everything' : parts.join(' and ');
}

/** What it does. */
export function action(rule: Rule): string {
  const tls = rule.tls ? `${rule.tls} TLS, ` : '';
  if (rule.reject) return 'reject';
  if (rule.split) return `${tls}split: ${rule.split.map((part) => `${part.pool} ${part.weight ?? 1}`).join(', ')}`;
  return `${tls}pool ${rule.pool ?? '?'}`;
}
