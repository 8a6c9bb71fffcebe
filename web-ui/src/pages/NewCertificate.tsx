import { Anchor, Button, Group, NativeSelect, NumberInput, Stack, Tabs, Text, TextInput } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { Link, useNavigate } from '@tanstack/react-router';
import { useState } from 'react';
import { fieldErrors } from '../api/client';
import { queries, useWrite, writes } from '../api/queries';
import { useWhyNot } from '../api/session';
import { AcmeForm } from '../components/AcmeForm';
import { ImportForm } from '../components/ImportForm';
import { paths } from '../paths';
import { ErrorBox, Page } from '../ui/Page';

/** A certificate by an authority, from files, or for development. */
export function NewCertificate() {
  const navigate = useNavigate();
  const accounts = useQuery(queries.accounts);
  const whyNot = useWhyNot('operator');
  const show = (name: string) => void navigate({ to: paths.certificate(name) });
  if (whyNot) return <Page title="New certificate">This page {whyNot}.</Page>;
  const names = accounts.data?.map((account) => account.name) ?? [];
  return (
    <Page title="New certificate">
      <ErrorBox error={accounts.error} />
      <Tabs defaultValue="acme" keepMounted={false}>
        <Tabs.List mb="md">
          <Tabs.Tab value="acme">By ACME</Tabs.Tab>
          <Tabs.Tab value="import">From files</Tabs.Tab>
          <Tabs.Tab value="issue">For development</Tabs.Tab>
        </Tabs.List>
        <Tabs.Panel value="acme">
          {accounts.data && names.length === 0 ? (
            <Text>
              An authority knows its customers by an account:{' '}
              <Anchor component={Link} to={paths.accounts} inherit>
                make one
              </Anchor>{' '}
              first.
            </Text>
          ) : (
            accounts.data && <AcmeForm accounts={names} onDone={show} />
          )}
        </Tabs.Panel>
        <Tabs.Panel value="import">
          <ImportForm onDone={show} />
        </Tabs.Panel>
        <Tabs.Panel value="issue">
          <IssueForm onDone={show} />
        </Tabs.Panel>
      </Tabs>
    </Page>
  );
}

/** Signed by the control plane's own authority, or by itself. */
function IssueForm({ onDone }: { onDone: (name: string) => void }) {
  const [name, setName] = useState('');
  const [ca, setCa] = useState('internal');
  const [domains, setDomains] = useState('');
  const [days, setDays] = useState(90);
  const [keyType, setKeyType] = useState('p256');
  const [deliver, setDeliver] = useState<'store' | 'return'>('store');
  const issue = useWrite(writes.issue, ['config', 'certificates']);
  const errors = fieldErrors(issue.error);
  const given = deliver === 'return' ? issue.data : undefined;
  return (
    <form
      aria-label="For development"
      onSubmit={(event) => {
        event.preventDefault();
        const wish = { name, ca, domains: domains.split(/[\s,]+/).filter(Boolean), days, keyType, deliver };
        issue.mutate(wish, { onSuccess: () => deliver === 'store' && onDone(name) });
      }}
    >
      <Stack gap="sm" maw={560}>
        {!errors['/domains'] && <ErrorBox error={issue.error} />}
        <TextInput label="Name" required value={name} onChange={(event) => setName(event.currentTarget.value)} />
        <NativeSelect
          label="Signed by"
          data={[
            { value: 'internal', label: 'the authority of this control plane' },
            { value: 'self-signed', label: 'itself' },
          ]}
          value={ca}
          onChange={(event) => setCa(event.currentTarget.value)}
        />
        <TextInput
          label="Names"
          description="Domains and addresses, with spaces between them"
          required
          value={domains}
          error={errors['/domains']}
          onChange={(event) => setDomains(event.currentTarget.value)}
        />
        <Group grow>
          <NumberInput label="Days" min={1} max={825} value={days} onChange={(value) => setDays(Number(value))} />
          <NativeSelect
            label="Key"
            data={[
              { value: 'p256', label: 'ECDSA P-256' },
              { value: 'p384', label: 'ECDSA P-384' },
              { value: 'rsa2048', label: 'RSA 2048' },
            ]}
            value={keyType}
            onChange={(event) => setKeyType(event.currentTarget.value)}
          />
        </Group>
        <NativeSelect
          label="For"
          data={[
            { value: 'store', label: 'listeners: it is stored here' },
            { value: 'return', label: 'a backend: download it, nothing is kept here' },
          ]}
          value={deliver}
          onChange={(event) => {
            issue.reset();
            setDeliver(event.currentTarget.value === 'return' ? 'return' : 'store');
          }}
        />
        {ca === 'internal' && (
          <Text size="sm">
            Clients that are to trust it need{' '}
            <Anchor href="/api/v1/certificate-authority" download="awe4lb-ca.pem" inherit>
              the authority's certificate
            </Anchor>
            .
          </Text>
        )}
        <Group>
          <Button type="submit" loading={issue.isPending}>
            Issue
          </Button>
          {given && (
            <>
              <Download text={given.chain} file={`${name}.pem`} />
              <Download text={given.key} file={`${name}.key`} />
            </>
          )}
        </Group>
      </Stack>
    </form>
  );
}

/** Text as a file. It is only in this page. */
function Download({ text, file }: { text: string; file: string }) {
  const save = () => {
    const url = URL.createObjectURL(new Blob([text], { type: 'application/x-pem-file' }));
    const link = document.createElement('a');
    link.href = url;
    link.download = file;
    link.click();
    URL.revokeObjectURL(url);
  };
  return (
    <Button variant="default" onClick={save}>
      Download {file}
    </Button>
  );
}
