import { Text } from '@mantine/core';

const COLORS: Record<string, string> = { '+': 'green', '-': 'red', '@': 'blue' };

/** A unified difference as text. */
export function Diff({ text }: { text: string }) {
  return (
    <Text component="pre" ff="monospace" fz={13} m={0} tabIndex={0} style={{ overflowX: 'auto' }} data-testid="unified">
      {text.split('\n').map((line, index) => (
        <Text key={index} component="span" inherit display="block" c={color(line)}>
          {line || ' '}
        </Text>
      ))}
    </Text>
  );
}

function color(line: string): string | undefined {
  if (line.startsWith('+++') || line.startsWith('---')) return 'dimmed';
  return COLORS[line[0] ?? ''];
}
