import { Button, Fieldset, Group, MultiSelect, NativeSelect, PasswordInput, Stack, TextInput } from '@mantine/core';
import { useState } from 'react';
import { fieldErrors } from '../api/client';
import { useWrite, writes } from '../api/queries';
import type { Certificate } from '../api/types';
import { ErrorBox } from '../ui/Page';

const CHALLENGES = ['tls-alpn-01', 'http-01', 'dns-01'];
const KEYS = [
  { value: 'p256', label: 'ECDSA P-256' },
  { value: 'p384', label: 'ECDSA P-384' },
  { value: 'rsa2048', label: 'RSA 2048' },
];
const ALGORITHMS = ['hmac-sha256', 'hmac-sha384', 'hmac-sha512'];

export interface Draft {
  name: string;
  account: string;
  domains: string;
  challenge: string[];
  keyType: string[];
  profile: string;
  renewBefore: string;
  dns: { type: string; server: string; key: string; algorithm: string; command: string; url: string; secret: string };
}

export const BLANK: Draft = {
  name: '',
  account: '',
  domains: '',
  challenge: ['tls-alpn-01'],
  keyType: ['p256'],
  profile: '',
  renewBefore: '',
  dns: { type: 'rfc2136', server: '', key: '', algorithm: 'hmac-sha256', command: '', url: '', secret: '' },
};

const words = (text: string) => text.split(/[\s,]+/).filter(Boolean);

/** What is written: fields that are empty are not in it. */
export function certificateOf(draft: Draft): Certificate {
  const acme: Certificate['acme'] = { account: draft.account, domains: words(draft.domains), challenge: draft.challenge };
  if (draft.keyType.join() !== 'p256') acme.keyType = draft.keyType;
  if (draft.profile) acme.profile = draft.profile;
  if (draft.renewBefore) acme.renewBefore = draft.renewBefore;
  if (draft.challenge.includes('dns-01')) {
    const { type, server, key, algorithm, command, url, secret } = draft.dns;
    const own = {
      rfc2136: { server, ...(key && { key, algorithm }) },
      exec: { command: command.split(/\s+/).filter(Boolean) },
      http: { url },
    }[type];
    acme.dns = { type, ...own, ...(secret && type !== 'exec' && { secret }) };
  }
  return { name: draft.name, acme };
}

/** Fields of the hook that the form does not show stay, while it is of the same type. */
function keepingOthers(written: Certificate, known?: Certificate): Certificate {
  const [now, before] = [written.acme?.dns, known?.acme?.dns];
  if (!now || !before || now.type !== before.type) return written;
  const others = Object.fromEntries(['zone', 'servers', 'check', 'timeout', 'ca'].flatMap((field) => (field in before ? [[field, before[field]]] : [])));
  return { ...written, acme: { ...written.acme!, dns: { ...others, ...now } } };
}

/** What is there, to be changed. Secrets never come out: an empty one stays as it is. */
export function draftOf({ name, acme }: Certificate): Draft {
  const dns = acme?.dns;
  const text = (field: string) => (typeof dns?.[field] === 'string' ? (dns[field] as string) : '');
  const many = (one: string | string[] | undefined, none: string[]) => (one === undefined ? none : [one].flat());
  return {
    name,
    account: acme?.account ?? '',
    domains: acme?.domains.join(' ') ?? '',
    challenge: many(acme?.challenge, []),
    keyType: many(acme?.keyType, BLANK.keyType),
    profile: acme?.profile ?? '',
    renewBefore: acme?.renewBefore ?? '',
    dns: {
      type: text('type') || BLANK.dns.type,
      server: text('server'),
      key: text('key'),
      algorithm: text('algorithm') || BLANK.dns.algorithm,
      command: Array.isArray(dns?.command) ? dns.command.join(' ') : '',
      url: text('url'),
      secret: '',
    },
  };
}

interface Props {
  accounts: string[];
  /** What is changed; without it there is a new one. */
  known?: Certificate;
  etag?: string;
  onDone: (name: string) => void;
}

/** A certificate that an authority issues. */
export function AcmeForm({ accounts, known, etag, onDone }: Props) {
  const [draft, setDraft] = useState<Draft>(known ? draftOf(known) : { ...BLANK, account: accounts[0] ?? '' });
  const save = useWrite(writes.certificate, ['config', 'certificates']);
  const errors = fieldErrors(save.error);
  const error = (field: string) => {
    const at = Object.keys(errors).find((pointer) => pointer === `/acme/${field}` || pointer.startsWith(`/acme/${field}/`));
    return at && errors[at];
  };
  const set = (part: Partial<Draft>) => setDraft({ ...draft, ...part });
  const setDns = (part: Partial<Draft['dns']>) => set({ dns: { ...draft.dns, ...part } });
  const { dns } = draft;
  // Only fields that are shown have a place for what is wrong with them.
  const own = { rfc2136: 'server|key|secret', exec: 'command', http: 'url|secret' }[dns.type];
  const fields = `account|domains|challenge|keyType|profile|renewBefore${draft.challenge.includes('dns-01') ? `|dns\\/(${own})` : ''}`;
  const shown = new RegExp(`^\\/(name$|acme\\/(${fields})(\\/|$))`);
  const isPlaced = Object.keys(errors).length > 0 && Object.keys(errors).every((at) => shown.test(at));
  return (
    <form
      aria-label="By ACME"
      onSubmit={(event) => {
        event.preventDefault();
        save.mutate({ certificate: keepingOthers(certificateOf(draft), known), etag }, { onSuccess: () => onDone(draft.name) });
      }}
    >
      <Stack gap="sm" maw={560}>
        {!isPlaced && <ErrorBox error={save.error} />}
        <TextInput label="Name" required disabled={!!known} value={draft.name} error={errors['/name']} onChange={(event) => set({ name: event.currentTarget.value })} />
        <NativeSelect
          label="Account"
          data={accounts}
          value={draft.account}
          error={error('account')}
          onChange={(event) => set({ account: event.currentTarget.value })}
        />
        <TextInput
          label="Domains"
          description="Several with spaces between them; *.example.com needs dns-01"
          required
          value={draft.domains}
          error={error('domains')}
          onChange={(event) => set({ domains: event.currentTarget.value })}
        />
        <MultiSelect
          label="Challenges"
          description="In the order in which they are tried"
          data={CHALLENGES}
          value={draft.challenge}
          error={error('challenge')}
          onChange={(challenge) => set({ challenge })}
        />
        <MultiSelect label="Keys" description="One chain for each" data={KEYS} value={draft.keyType} error={error('keyType')} onChange={(keyType) => set({ keyType })} />
        {draft.challenge.includes('dns-01') && (
          <Fieldset legend="How records get into the zone">
            <Stack gap="xs">
              <NativeSelect
                label="By"
                data={[
                  { value: 'rfc2136', label: 'dynamic updates (RFC 2136)' },
                  { value: 'exec', label: 'a program' },
                  { value: 'http', label: 'an HTTP service' },
                ]}
                value={dns.type}
                onChange={(event) => setDns({ type: event.currentTarget.value })}
              />
              {dns.type === 'rfc2136' && (
                <>
                  <TextInput label="Primary server" placeholder="192.0.2.53" required value={dns.server} error={error('dns/server')} onChange={(event) => setDns({ server: event.currentTarget.value })} />
                  <Group grow>
                    <TextInput label="Name of the key" value={dns.key} error={error('dns/key')} onChange={(event) => setDns({ key: event.currentTarget.value })} />
                    <NativeSelect label="Algorithm" data={ALGORITHMS} value={dns.algorithm} onChange={(event) => setDns({ algorithm: event.currentTarget.value })} />
                  </Group>
                </>
              )}
              {dns.type === 'exec' && (
                <TextInput label="Command" description="The control plane must allow it: --allow-exec" placeholder="/usr/local/bin/zone-hook" required value={dns.command} error={error('dns/command')} onChange={(event) => setDns({ command: event.currentTarget.value })} />
              )}
              {dns.type === 'http' && (
                <TextInput label="URL" placeholder="https://zone.internal/acme" required value={dns.url} error={error('dns/url')} onChange={(event) => setDns({ url: event.currentTarget.value })} />
              )}
              {dns.type !== 'exec' && (
                <PasswordInput
                  label="Secret"
                  description={dns.type === 'http' ? 'Sent as bearer token. It never comes back out.' : 'Of the key, base64. It never comes back out.'}
                  autoComplete="off"
                  value={dns.secret}
                  error={error('dns/secret')}
                  onChange={(event) => setDns({ secret: event.currentTarget.value })}
                />
              )}
            </Stack>
          </Fieldset>
        )}
        <Group grow>
          <TextInput label="Profile" placeholder="the authority's usual" value={draft.profile} error={error('profile')} onChange={(event) => set({ profile: event.currentTarget.value })} />
          <TextInput label="Renew before its end" placeholder="a third of its life" value={draft.renewBefore} error={error('renewBefore')} onChange={(event) => set({ renewBefore: event.currentTarget.value })} />
        </Group>
        <Group>
          <Button type="submit" loading={save.isPending} disabled={draft.challenge.length === 0 || draft.keyType.length === 0}>
            {known ? 'Save' : 'Order'}
          </Button>
        </Group>
      </Stack>
    </form>
  );
}
