import { Alert, Badge, Button, Group, List, Loader, Modal, Stack, Text, TextInput, Tooltip } from '@mantine/core';
import { useDebouncedValue } from '@mantine/hooks';
import { notifications } from '@mantine/notifications';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { lazy, Suspense, useEffect, useState } from 'react';
import { Problem } from '../api/client';
import { queries, useWrite, writes } from '../api/queries';
import { useWhyNot } from '../api/session';
import type { Validation } from '../api/types';
import { summary } from '../ui/format';
import { ErrorBox, Page } from '../ui/Page';

const Editor = lazy(() => import('../ui/Editor'));
const Merge = lazy(() => import('../ui/Merge'));

/** The whole configuration as one document: checked while it is typed, compared before it is applied. */
export function Configuration() {
  const client = useQueryClient();
  const current = useQuery(queries.document);
  const [base, setBase] = useState<{ yaml: string; etag: string }>();
  const [draft, setDraft] = useState('');
  const whyNot = useWhyNot('operator');
  const isDirty = !!base && draft !== base.yaml;

  // What others do is shown at once, unless there is a draft: that is kept, and said to be behind.
  useEffect(() => {
    if (current.data && !isDirty && current.data.etag !== base?.etag) {
      setBase(current.data);
      setDraft(current.data.yaml);
    }
  }, [current.data, base, isDirty]);
  const isBehind = isDirty && !!current.data && current.data.etag !== base?.etag;

  const [settled] = useDebouncedValue(draft, 300);
  const check = useQuery({
    queryKey: ['validation', settled, base?.etag],
    queryFn: ({ signal }) => writes.validate(settled, signal),
    enabled: isDirty,
    placeholderData: (before) => before,
    gcTime: 0,
  });
  const validation = isDirty ? check.data : undefined;
  const isChecked = !check.isFetching && settled === draft;

  return (
    <Page
      title="Configuration"
      actions={
        <>
          <Button
            variant="default"
            size="xs"
            disabled={!isDirty}
            onClick={() => {
              setBase(current.data);
              setDraft(current.data?.yaml ?? '');
            }}
          >
            Discard
          </Button>
          {base && (
            <Apply
              base={base}
              draft={draft}
              validation={validation}
              whyNot={whyNot ?? reason(isDirty, isChecked, validation)}
              onApplied={() => void client.invalidateQueries({ queryKey: ['config'] })}
            />
          )}
        </>
      }
    >
      <ErrorBox error={current.error ?? check.error} />
      {isBehind && (
        <Alert color="orange" variant="outline" title="The configuration has changed meanwhile">
          Your draft starts from an older revision. Applying it will be refused: keep a copy, discard, and put your change in again.
        </Alert>
      )}
      {validation && <Verdict validation={validation} />}
      {base ? (
        <Suspense fallback={<Loader size="sm" />}>
          <Editor
            label="Configuration"
            value={draft}
            onChange={setDraft}
            errors={validation?.errors}
            warnings={validation?.warnings}
            readOnly={!!whyNot}
          />
        </Suspense>
      ) : (
        <Loader size="sm" />
      )}
    </Page>
  );
}

function reason(isDirty: boolean, isChecked: boolean, validation: Validation | undefined): string | undefined {
  if (!isDirty) return 'nothing has been changed';
  if (!isChecked || !validation) return 'is being checked';
  if (!validation.valid) return 'the document is not valid';
  return validation.changes.length === 0 ? 'changes nothing but form' : undefined;
}

function Verdict({ validation }: { validation: Validation }) {
  if (!validation.valid) {
    return (
      <Alert color="red" variant="outline" title={`Not valid: ${validation.errors.length} ${validation.errors.length === 1 ? "error" : "errors"}`} data-testid="errors">
        <List size="sm">
          {validation.errors.slice(0, 20).map((error, index) => (
            <List.Item key={index}>
              {error.line && `${error.line}:${error.column} `}
              {error.detail}
              {error.hint && ` (${error.hint})`}
            </List.Item>
          ))}
        </List>
      </Alert>
    );
  }
  return (
    <Group gap="xs" data-testid="verdict">
      <Badge color="green" variant="outline">
        valid
      </Badge>
      <Text size="sm">{summary(validation.summary)}</Text>
      {validation.changes.slice(0, 12).map((change) => (
        <Badge key={`${change.kind}/${change.name}`} variant="outline" color="gray">
          {change.op} {change.kind} {change.name}
        </Badge>
      ))}
      {validation.warnings.map((warning, index) => (
        <Text key={index} size="sm" c="orange">
          {warning.detail}
        </Text>
      ))}
    </Group>
  );
}

interface ApplyProps {
  base: { yaml: string; etag: string };
  draft: string;
  validation: Validation | undefined;
  whyNot: string | undefined;
  onApplied: () => void;
}

function Apply({ base, draft, validation, whyNot, onApplied }: ApplyProps) {
  const [opened, setOpened] = useState(false);
  const [message, setMessage] = useState('');
  const apply = useWrite(writes.document, ['config', 'nodes', 'backends']);
  const isStale = apply.error instanceof Problem && apply.error.status === 412;
  const submit = async () => {
    const done = await apply.mutateAsync({ yaml: draft, etag: base.etag, message });
    notifications.show({ message: `Revision ${done.revision}: ${summary(done.summary)}` });
    setOpened(false);
    setMessage('');
    onApplied();
  };
  return (
    <>
      <Tooltip label={whyNot} disabled={!whyNot}>
        <Button size="xs" disabled={!!whyNot} title={whyNot} onClick={() => setOpened(true)}>
          Compare and apply
        </Button>
      </Tooltip>
      <Modal opened={opened} onClose={() => setOpened(false)} title="What changes" size="80%">
        <Stack>
          {isStale ? (
            <Alert color="orange" variant="outline" title="Somebody else was faster" role="alert">
              Nothing was applied: the configuration has changed since you began.
            </Alert>
          ) : (
            <ErrorBox error={apply.error} />
          )}
          {validation && <Verdict validation={validation} />}
          <Suspense fallback={<Loader size="sm" />}>
            <Merge before={base.yaml} after={draft} />
          </Suspense>
          <TextInput
            label="Message"
            placeholder="Why, for the history"
            value={message}
            onChange={(event) => setMessage(event.currentTarget.value)}
          />
          <Group justify="flex-end">
            <Button variant="default" onClick={() => setOpened(false)}>
              Back
            </Button>
            <Button loading={apply.isPending} onClick={() => void submit().catch(() => {})}>
              Apply
            </Button>
          </Group>
        </Stack>
      </Modal>
    </>
  );
}
