import { Anchor, Button, Group } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { Fragment } from 'react';
import { queries } from '../api/queries';
import { useWhyNot } from '../api/session';
import { DaysLeft, nextOf, StateBadge } from '../components/CertificateState';
import { paths } from '../paths';
import { DataTable } from '../ui/DataTable';
import { ErrorBox, Page } from '../ui/Page';

/** All certificates: how each does, and what happens next. */
export function Certificates() {
  const certificates = useQuery({ ...queries.certificates, refetchInterval: 30_000 });
  const whyNot = useWhyNot('operator');
  return (
    <Page
      title="Certificates"
      actions={
        !whyNot && (
          <Button size="xs" component={Link} to={paths.newCertificate}>
            New certificate
          </Button>
        )
      }
    >
      <ErrorBox error={certificates.error} />
      <DataTable
        label="certificates"
        rows={certificates.data ?? []}
        keyOf={(one) => one.name}
        textOf={(one) => `${JSON.stringify(one)} ${nextOf(one)}`}
        empty="There are no certificates yet."
        columns={[
          {
            title: 'Name',
            by: (one) => one.name,
            cell: (one) => (
              <Anchor component={Link} to={paths.certificate(one.name)} inherit>
                {one.name}
              </Anchor>
            ),
          },
          { title: 'For', by: (one) => one.names.join(' '), cell: (one) => one.names.join(', ') },
          { title: 'State', by: (one) => one.state, cell: (one) => <StateBadge certificate={one} /> },
          { title: 'Left', by: (one) => Date.parse(one.notAfter), cell: (one) => <DaysLeft certificate={one} /> },
          { title: 'Next', cell: (one) => nextOf(one) },
          { title: 'Kept', by: (one) => one.origin, cell: (one) => one.acme?.account ?? one.origin },
          { title: 'Used by', cell: (one) => <UsedBy listeners={one.usedBy} /> },
          {
            title: 'Nodes',
            by: (one) => one.nodes.serving,
            cell: (one) => (one.usedBy.length > 0 ? `${one.nodes.serving} of ${one.nodes.connected}` : 'none needs it'),
          },
        ]}
      />
    </Page>
  );
}

/** Listeners, as links. */
export function UsedBy({ listeners }: { listeners: string[] }) {
  return (
    <Group gap={4}>
      {listeners.map((name) => (
        <Fragment key={name}>
          <Anchor component={Link} to={paths.listener(name)} inherit>
            {name}
          </Anchor>
        </Fragment>
      ))}
    </Group>
  );
}
