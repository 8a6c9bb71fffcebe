import { Anchor, Button, Code, Group, Loader, Paper, Stack, Table, Text, Title } from '@mantine/core';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { Link, useNavigate, useParams } from '@tanstack/react-router';
import { queries, useWrite, writes } from '../api/queries';
import { useWhyNot } from '../api/session';
import type { CertificateStatus, Chain } from '../api/types';
import { AcmeForm } from '../components/AcmeForm';
import { DaysLeft, Failure, nextOf, StateBadge } from '../components/CertificateState';
import { ImportForm } from '../components/ImportForm';
import { paths } from '../paths';
import { Confirm } from '../ui/Confirm';
import { ErrorBox, Page } from '../ui/Page';
import { UsedBy } from './Certificates';

/** One certificate: what serves, where it comes from, what happens next. */
export function CertificatePage() {
  const { name } = useParams({ strict: false }) as { name: string };
  const certificates = useQuery({ ...queries.certificates, refetchInterval: 30_000 });
  const one = certificates.data?.find((certificate) => certificate.name === name);
  if (certificates.isPending) return <Loader size="sm" />;
  return (
    <Page title={`Certificate ${name}`} actions={one && <Actions certificate={one} />}>
      <ErrorBox error={certificates.error} />
      {one ? <Facts certificate={one} /> : !certificates.error && <Text>There is no such certificate.</Text>}
    </Page>
  );
}

function Facts({ certificate }: { certificate: CertificateStatus }) {
  const { acme, directory } = certificate;
  const whyNot = useWhyNot('operator');
  const rows: [string, React.ReactNode][] = [
    ['State', <StateBadge certificate={certificate} />],
    ['For', certificate.names.join(', ')],
    ['Left', certificate.state !== 'placeholder' && <DaysLeft certificate={certificate} />],
    ['Next', <span data-testid="next">{nextOf(certificate)}</span>],
    ['Why then', acme?.state !== 'ordering' && acme?.next?.why],
    ['Used by', certificate.usedBy.length > 0 && <UsedBy listeners={certificate.usedBy} />],
    ['Nodes', certificate.usedBy.length > 0 && `${certificate.nodes.serving} of ${certificate.nodes.connected} run it`],
    [
      'Account',
      acme && (
        <Anchor component={Link} to={paths.accounts} inherit>
          {acme.account}
        </Anchor>
      ),
    ],
    ['Ordered for', acme?.domains.join(', ')],
    ['Challenges', acme?.challenges.join(', then ')],
    ['Keys', acme?.keyTypes.join(', ')],
    ['Folder', directory?.path],
  ];
  return (
    <Stack>
      <FactTable label="facts" rows={rows} />
      {acme?.lastError && (
        <Paper withBorder p="sm" role="status" aria-label="last failure">
          <Failure error={acme.lastError} />
        </Paper>
      )}
      {certificate.chains.map((chain) => (
        <ChainFacts key={chain.fingerprint} chain={chain} />
      ))}
      {acme && !whyNot && (
        <>
          <Title order={2} fz={16}>
            Change it
          </Title>
          <Change name={certificate.name} />
        </>
      )}
      {certificate.origin === 'uploaded' && !whyNot && (
        <>
          <Title order={2} fz={16}>
            Replace it
          </Title>
          <ImportForm name={certificate.name} />
        </>
      )}
    </Stack>
  );
}

/** The wish as a form. What is being filled in is not replaced by what others do: saving it says that it is stale. */
function Change({ name }: { name: string }) {
  const known = useQuery(queries.certificate(name));
  const accounts = useQuery(queries.accounts);
  const client = useQueryClient();
  if (!known.data || !accounts.data) return <ErrorBox error={known.error ?? accounts.error} />;
  const { etag } = known.data.meta;
  return (
    <AcmeForm
      key={etag}
      accounts={accounts.data.map((account) => account.name)}
      known={known.data}
      etag={etag}
      onDone={() => void client.invalidateQueries({ queryKey: ['config'] })}
    />
  );
}

function ChainFacts({ chain }: { chain: Chain }) {
  const rows: [string, React.ReactNode][] = [
    ['Key', chain.keyType],
    ['For', chain.names.join(', ')],
    ['Issued', chain.issuedAt && new Date(chain.issuedAt).toLocaleString()],
    ['Issuer', chain.origin === 'placeholder' ? 'nobody: it stands in until there is one' : chain.issuer],
    ['Valid', `${new Date(chain.notBefore).toLocaleString()} to ${new Date(chain.notAfter).toLocaleString()}`],
    ['Serial', <Code>{chain.serial}</Code>],
    ['SHA-256', <Code>{chain.fingerprint}</Code>],
    [
      'OCSP',
      chain.ocsp &&
        `${chain.ocsp.status}${chain.ocsp.nextUpdate ? `, until ${new Date(chain.ocsp.nextUpdate).toLocaleString()}` : ''} ${chain.ocsp.error ?? ''}`,
    ],
  ];
  return <FactTable label={`chain ${chain.keyType}`} rows={rows} />;
}

/** Titles and values; what has no value is left out. */
function FactTable({ label, rows }: { label: string; rows: [string, React.ReactNode][] }) {
  return (
    <Paper withBorder p="sm">
      <Table withRowBorders={false} verticalSpacing={4} aria-label={label}>
        <Table.Tbody>
          {rows
            .filter(([, value]) => value)
            .map(([title, value]) => (
              <Table.Tr key={title}>
                <Table.Th w={120}>{title}</Table.Th>
                <Table.Td style={{ wordBreak: 'break-word' }}>{value}</Table.Td>
              </Table.Tr>
            ))}
        </Table.Tbody>
      </Table>
    </Paper>
  );
}

function Actions({ certificate }: { certificate: CertificateStatus }) {
  const navigate = useNavigate();
  const renew = useWrite(writes.renew, ['certificates']);
  const remove = useWrite(writes.deleteCertificate, ['config', 'certificates']);
  const whyNot = useWhyNot('operator');
  return (
    <Group gap="xs">
      {renew.error && <ErrorBox error={renew.error} />}
      <Button
        size="compact-xs"
        variant="default"
        component="a"
        href={`/api/v1/certificates/${encodeURIComponent(certificate.name)}/chain`}
        download={`${certificate.name}.pem`}
      >
        Download the chain
      </Button>
      {certificate.acme && !whyNot && (
        <Button
          size="compact-xs"
          loading={renew.isPending}
          disabled={certificate.acme.state === 'ordering'}
          onClick={() => renew.mutate(certificate.name)}
        >
          {certificate.state === 'placeholder' ? 'Order now' : 'Renew now'}
        </Button>
      )}
      {!whyNot && (
        <Confirm
          label="Delete"
          question={`The certificate ${certificate.name} goes from every node.`}
          pending={remove.isPending}
          error={remove.error}
          act={() => remove.mutateAsync(certificate.name).then(() => navigate({ to: paths.certificates }))}
        />
      )}
    </Group>
  );
}
