import type { Rule } from '../api/types';

/** What a rule looks at, in words. */
export function condition(rule: Rule): string {
  const parts = Object.entries(rule.match ?? {}).map(([field, value]) => `${field} ${[value].flat().map(item).join(', ')}`);
  return parts.length === 0 ? 'everything' : parts.join(' and ');
}

/** `{ list: offices }` as `list offices`. */
function item(value: unknown): string {
  if (typeof value !== 'object' || value === null) return String(value);
  return Object.entries(value)
    .map(([word, of]) => `${word} ${typeof of === 'string' ? of : JSON.stringify(of)}`)
    .join(' and ');
}

/** The map that names the pool, if the rule has one. */
function mapOf(rule: Rule): string | undefined {
  const names = [rule.match?.sni].flat();
  return names.map((name) => (name as { map?: string } | undefined)?.map).find((map) => map !== undefined);
}

/** What it does. */
export function action(rule: Rule): string {
  const tls = rule.tls ? `${rule.tls} TLS, ` : '';
  if (rule.reject) return 'reject';
  if (rule.split) return `${tls}split: ${rule.split.map((part) => `${part.pool} ${part.weight ?? 1}`).join(', ')}`;
  const map = mapOf(rule);
  if (map !== undefined) return `${tls}pool by map ${map}`;
  return `${tls}pool ${rule.pool ?? '?'}`;
}
