import { Anchor, Loader, Text } from '@mantine/core';
import { notifications } from '@mantine/notifications';
import { useQuery } from '@tanstack/react-query';
import { Link, useParams } from '@tanstack/react-router';
import { queries, useWrite, writes } from '../api/queries';
import { useWhyNot } from '../api/session';
import { paths } from '../paths';
import { Confirm } from '../ui/Confirm';
import { DataTable } from '../ui/DataTable';
import { Diff } from '../ui/Diff';
import { ago, summary } from '../ui/format';
import { ErrorBox, Page } from '../ui/Page';

/** Who changed what, when. */
export function History() {
  const revisions = useQuery(queries.revisions);
  return (
    <Page title="History">
      <ErrorBox error={revisions.error} />
      <DataTable
        label="revisions"
        rows={revisions.data?.items ?? []}
        keyOf={(one) => String(one.number)}
        textOf={(one) => JSON.stringify(one)}
        empty="Nothing has been configured yet."
        columns={[
          {
            title: 'Revision',
            cell: (one) => (
              <Anchor component={Link} to={paths.revision(one.number)} inherit>
                {one.number}
              </Anchor>
            ),
          },
          {
            title: 'When',
            cell: (one) => <time dateTime={one.createdAt} title={one.createdAt}>{ago(one.createdAt)}</time>,
          },
          { title: 'Who', cell: (one) => one.author },
          { title: 'By', cell: (one) => one.source },
          { title: 'Changes', cell: (one) => summary(one.summary) },
          { title: 'Message', cell: (one) => one.message },
        ]}
      />
    </Page>
  );
}

/** One revision: its difference, and the way back to it. */
export function RevisionPage() {
  const number = Number((useParams({ strict: false }) as { number: string }).number);
  const revision = useQuery(queries.revision(number));
  const restore = useWrite(writes.restore, ['config', 'nodes', 'backends']);
  const whyNot = useWhyNot('operator');
  const of = revision.data?.revision;
  return (
    <Page
      title={`Revision ${number}`}
      actions={
        <Confirm
          label="restore"
          color="blue"
          question={`A new revision gets the content of revision ${number}. Nothing is lost from the history.`}
          pending={restore.isPending}
          error={restore.error}
          whyNot={whyNot}
          act={async () => {
            const done = await restore.mutateAsync(number);
            notifications.show({ message: done.changed ? `Revision ${done.revision}` : 'It is what runs already.' });
          }}
        />
      }
    >
      <ErrorBox error={revision.error} />
      {of && revision.data ? (
        <>
          <Text>
            {of.author}, {new Date(of.createdAt).toLocaleString()}, {of.source}, {summary(of.summary)}
            {of.message && `: ${of.message}`}
          </Text>
          <Diff text={revision.data.unified} />
        </>
      ) : (
        revision.isPending && <Loader size="sm" />
      )}
    </Page>
  );
}
