import { Button, Group, Modal, Stack, Text, Tooltip } from '@mantine/core';
import { useDisclosure } from '@mantine/hooks';
import type { ReactNode } from 'react';
import { ErrorBox } from './Page';

interface Props {
  label: string;
  /** What it means, before it is done. */
  question: ReactNode;
  act: () => Promise<unknown>;
  pending: boolean;
  error: unknown;
  color?: string;
  /** Why it cannot be done now. */
  whyNot?: string;
}

/** A button that asks before it does something that is hard to take back. */
export function Confirm({ label, question, act, pending, error, color = 'red', whyNot }: Props) {
  const [opened, { open, close }] = useDisclosure(false);
  return (
    <>
      <Tooltip label={whyNot} disabled={!whyNot}>
        <Button size="compact-xs" variant="default" onClick={open} disabled={!!whyNot} title={whyNot}>
          {label}
        </Button>
      </Tooltip>
      <Modal opened={opened} onClose={close} title={label} centered>
        <Stack>
          <Text>{question}</Text>
          <ErrorBox error={error} />
          <Group justify="flex-end">
            <Button variant="default" onClick={close}>
              Cancel
            </Button>
            <Button color={color} loading={pending} onClick={() => void act().then(close, () => {})}>
              {label}
            </Button>
          </Group>
        </Stack>
      </Modal>
    </>
  );
}
