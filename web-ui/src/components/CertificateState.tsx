import { Badge, Group, Progress, Stack, Text, Tooltip } from '@mantine/core';
import type { AcmeError, CertificateStatus } from '../api/types';
import { until } from '../ui/format';

const COLORS = {
  valid: 'green',
  expiring: 'orange',
  expired: 'red',
  'not-yet-valid': 'red',
  placeholder: 'gray',
} as const;

/** How a certificate is, in one word. */
export function StateBadge({ certificate }: { certificate: CertificateStatus }) {
  const isFailing = certificate.acme?.state === 'failing' || !!certificate.directory?.error;
  return (
    <Group gap={6}>
      <Badge variant="outline" size="sm" color={COLORS[certificate.state]}>
        {certificate.state}
      </Badge>
      {isFailing && (
        <Badge variant="outline" size="sm" color="red">
          failing
        </Badge>
      )}
    </Group>
  );
}

/** What is left of its life, from 0 to 1. */
export function left(certificate: CertificateStatus, now = Date.now()): number {
  const [from, to] = [Date.parse(certificate.notBefore), Date.parse(certificate.notAfter)];
  return to > from ? Math.min(1, Math.max(0, (to - now) / (to - from))) : 0;
}

/** Days left, and as a bar. A placeholder has none. */
export function DaysLeft({ certificate }: { certificate: CertificateStatus }) {
  if (certificate.state === 'placeholder') return null;
  const days = certificate.daysLeft;
  const text = days < 0 ? `over for ${-days} days` : days === 0 ? 'less than a day' : `${days} days`;
  return (
    <Tooltip label={`until ${new Date(certificate.notAfter).toLocaleString()}`}>
      <Stack gap={2} maw={120}>
        <Text inherit>{text}</Text>
        <Progress
          size={4}
          value={left(certificate) * 100}
          color={COLORS[certificate.state]}
          aria-label={`life left of ${certificate.name}`}
        />
      </Stack>
    </Tooltip>
  );
}

/** What happens next, in one line. */
export function nextOf({ acme, directory }: CertificateStatus, now = Date.now()): string {
  if (directory) return directory.error ? `failed: ${directory.error}` : 'its folder is watched';
  if (!acme) return 'replace it before it ends';
  if (acme.state === 'ordering') return acme.step ? `ordering: ${acme.step}` : 'ordering';
  const when = acme.next ? until(acme.next.at, now) : '';
  const verb = { order: 'is ordered', renew: 'renews', retry: 'is tried again' };
  const next = acme.next ? `${verb[acme.next.what]} ${when}` : '';
  if (acme.state === 'failing') return [`failed: ${acme.lastError?.detail ?? ''}`, next].filter(Boolean).join('; ');
  return next;
}

/** The last failure, with what to do. */
export function Failure({ error }: { error: AcmeError }) {
  const of = [error.domain, error.challenge].filter(Boolean).join(' by ');
  return (
    <Stack gap={2}>
      <Text c="red">
        {of && `${of}: `}
        {error.detail}
      </Text>
      {error.hint && <Text size="sm">{error.hint}</Text>}
      {error.nodes && error.nodes.length > 0 && (
        <Text size="sm">These nodes had not confirmed the challenge: {error.nodes.join(', ')}.</Text>
      )}
      <Text size="xs" c="dimmed">
        {error.type}, {new Date(error.at).toLocaleString()}
      </Text>
    </Stack>
  );
}
