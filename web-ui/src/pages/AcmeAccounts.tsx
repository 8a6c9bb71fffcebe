import { Anchor, Badge, Button, Checkbox, Group, NativeSelect, Paper, PasswordInput, Stack, Text, Textarea, TextInput, Title } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { useState } from 'react';
import { fieldErrors } from '../api/client';
import { queries, useWrite, writes } from '../api/queries';
import { useWhyNot } from '../api/session';
import type { AcmeAccount } from '../api/types';
import { Failure } from '../components/CertificateState';
import { paths } from '../paths';
import { Confirm } from '../ui/Confirm';
import { ErrorBox, Page } from '../ui/Page';

const DIRECTORIES = [
  { value: 'https://acme-v02.api.letsencrypt.org/directory', label: "Let's Encrypt" },
  { value: 'https://acme-staging-v02.api.letsencrypt.org/directory', label: "Let's Encrypt, to try things out (staging)" },
  { value: 'https://acme.zerossl.com/v2/DV90', label: 'ZeroSSL' },
  { value: '', label: 'another' },
];

/** Accounts with certificate authorities. */
export function AcmeAccounts() {
  const accounts = useQuery(queries.accounts);
  const whyNot = useWhyNot('operator');
  return (
    <Page title="ACME accounts">
      <ErrorBox error={accounts.error} />
      {accounts.data?.length === 0 && <Text c="dimmed">There are no accounts yet.</Text>}
      {accounts.data?.map((account) => (
        <Account key={account.name} account={account} />
      ))}
      {!whyNot && (
        <>
          <Title order={2} fz={16}>
            New account
          </Title>
          <AccountForm />
        </>
      )}
    </Page>
  );
}

function Account({ account }: { account: AcmeAccount }) {
  const status = useQuery(queries.accountStatus(account.name));
  const roll = useWrite(writes.rollOver, ['certificates']);
  const remove = useWrite(writes.deleteAccount, ['config', 'certificates']);
  const whyNot = useWhyNot('operator');
  const is = status.data;
  return (
    <Paper withBorder p="sm" component="section" aria-label={`account ${account.name}`}>
      <Stack gap={6}>
        <Group justify="space-between">
          <Group gap="xs">
            <Text fw={700}>{account.name}</Text>
            {is && (
              <Badge variant="outline" size="sm" color={is.lastError ? 'red' : is.registered ? 'green' : 'gray'}>
                {is.lastError ? 'failing' : is.registered ? 'registered' : 'not registered yet'}
              </Badge>
            )}
          </Group>
          {!whyNot && (
            <Group gap={6}>
              {is?.registered && (
                <Confirm
                  label="Another key"
                  question={`The account ${account.name} gets another key with its authority; the old one is worth nothing then.`}
                  pending={roll.isPending}
                  error={roll.error}
                  color="blue"
                  act={() => roll.mutateAsync(account.name)}
                />
              )}
              <Confirm
                label="Delete"
                question={`Nothing is ordered by ${account.name} any more.`}
                pending={remove.isPending}
                error={remove.error}
                act={() => remove.mutateAsync(account.name)}
              />
            </Group>
          )}
        </Group>
        <Text size="sm">{account.directory}</Text>
        {account.contact && account.contact.length > 0 && <Text size="sm">Contact: {account.contact.join(', ')}</Text>}
        {account.externalAccountBinding && <Text size="sm">Bound to {account.externalAccountBinding.keyId}</Text>}
        {is?.terms && (
          <Anchor size="sm" href={is.terms} target="_blank" rel="noreferrer">
            Terms of service
          </Anchor>
        )}
        {is && is.certificates.length > 0 && (
          <Group gap={6}>
            <Text size="sm">Orders</Text>
            {is.certificates.map((name) => (
              <Anchor key={name} size="sm" component={Link} to={paths.certificate(name)}>
                {name}
              </Anchor>
            ))}
          </Group>
        )}
        {is?.lastError && <Failure error={is.lastError} />}
        <ErrorBox error={status.error} />
      </Stack>
    </Paper>
  );
}

function AccountForm() {
  const blank = { name: '', preset: DIRECTORIES[0]!.value, directory: '', contact: '', agreed: false, keyId: '', secret: '', ca: '' };
  const [draft, setDraft] = useState(blank);
  const save = useWrite(writes.account, ['config', 'certificates']);
  const errors = fieldErrors(save.error);
  const set = (part: Partial<typeof blank>) => setDraft({ ...draft, ...part });
  const isPlaced = Object.keys(errors).length > 0 && Object.keys(errors).every((at) => /^\/(name|directory|contact|externalAccountBinding)/.test(at) || (draft.preset === '' && at === '/ca'));
  const at = (start: string) => Object.entries(errors).find(([pointer]) => pointer.startsWith(start))?.[1];
  return (
    <Paper withBorder p="sm">
      <form
        aria-label="New account"
        onSubmit={(event) => {
          event.preventDefault();
          save.mutate(accountOf(draft), { onSuccess: () => setDraft(blank) });
        }}
      >
        <Stack gap="sm" maw={560}>
          {!isPlaced && <ErrorBox error={save.error} />}
          <TextInput label="Name" required value={draft.name} error={errors['/name']} onChange={(event) => set({ name: event.currentTarget.value })} />
          <NativeSelect
            label="Authority"
            data={DIRECTORIES}
            value={draft.preset}
            error={draft.preset !== '' && errors['/directory']}
            onChange={(event) => set({ preset: event.currentTarget.value })}
          />
          {draft.preset === '' && (
            <>
              <TextInput label="Directory" placeholder="https://ca.internal/acme/directory" required value={draft.directory} error={errors['/directory']} onChange={(event) => set({ directory: event.currentTarget.value })} />
              <Textarea label="Its root" description="PEM, if this machine does not trust it" value={draft.ca} error={errors['/ca']} onChange={(event) => set({ ca: event.currentTarget.value })} />
            </>
          )}
          <TextInput label="Contact" description="Addresses for mail, with spaces between them" value={draft.contact} error={at('/contact')} onChange={(event) => set({ contact: event.currentTarget.value })} />
          <Group grow align="start">
            <TextInput label="Key id" description="Of an account that the authority knows" value={draft.keyId} error={at('/externalAccountBinding')} onChange={(event) => set({ keyId: event.currentTarget.value })} />
            <PasswordInput label="Its key" description="base64url; it never comes back out" autoComplete="off" value={draft.secret} onChange={(event) => set({ secret: event.currentTarget.value })} />
          </Group>
          <Checkbox label="I agree to the authority's terms of service" required checked={draft.agreed} onChange={(event) => set({ agreed: event.currentTarget.checked })} />
          <Group>
            <Button type="submit" loading={save.isPending} disabled={!draft.agreed}>
              Make the account
            </Button>
          </Group>
        </Stack>
      </form>
    </Paper>
  );
}

interface Draft {
  name: string;
  /** The directory of an authority that is known; empty: another one. */
  preset: string;
  directory: string;
  contact: string;
  agreed: boolean;
  keyId: string;
  secret: string;
  ca: string;
}

/** What is written: fields that are empty, or not shown, are not in it. */
export function accountOf(draft: Draft): Omit<AcmeAccount, 'meta'> {
  const contact = draft.contact.split(/[\s,]+/).filter(Boolean);
  return {
    name: draft.name,
    directory: draft.preset || draft.directory,
    termsAgreed: draft.agreed,
    ...(contact.length > 0 && { contact }),
    ...(draft.keyId && { externalAccountBinding: { keyId: draft.keyId, ...(draft.secret && { secret: draft.secret }) } }),
    ...(draft.preset === '' && draft.ca && { ca: draft.ca }),
  };
}
