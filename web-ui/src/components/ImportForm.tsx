import { Alert, Button, FileInput, Group, List, PasswordInput, Stack, Text, TextInput } from '@mantine/core';
import { useState } from 'react';
import { useWrite, writes } from '../api/queries';
import type { Imported, ImportWish } from '../api/types';
import { ErrorBox } from '../ui/Page';

/** What is sent for these files: text is PEM, anything else PKCS#12. */
export async function wishOf(name: string, files: File[], password: string): Promise<ImportWish> {
  let archive: string | undefined;
  const wish: ImportWish = { name };
  if (password !== '') wish.password = password;
  const texts: string[] = [];
  for (const file of files) {
    const bytes = new Uint8Array(await file.arrayBuffer());
    const text = new TextDecoder().decode(bytes);
    if (text.includes('-----BEGIN ')) texts.push(text);
    else if (archive) throw new Error(`${archive} and ${file.name} are both PKCS#12: one certificate at a time`);
    else {
      archive = file.name;
      wish.pkcs12 = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(''));
    }
  }
  if (texts.length > 0) wish.pem = texts.join('\n');
  return wish;
}

interface Props {
  /** Which certificate is replaced; without one it is asked for. */
  name?: string;
  onDone?: (name: string) => void;
}

/** Chain and key from files: first what would be stored and what is odd about it, then stored. */
export function ImportForm({ name: given, onDone }: Props) {
  const [name, setName] = useState(given ?? '');
  const [files, setFiles] = useState<File[]>([]);
  const [password, setPassword] = useState('');
  const check = useWrite(async () => writes.importCertificate({ ...(await wishOf(name, files, password)), dryRun: true }), []);
  const store = useWrite(async () => writes.importCertificate(await wishOf(name, files, password)), ['config', 'certificates']);
  // What was checked is what is stored.
  const change = (set: () => void) => {
    set();
    check.reset();
    store.reset();
  };
  const stored = (done: Imported) => {
    setFiles([]);
    setPassword('');
    check.reset();
    onDone?.(done.name);
  };
  return (
    <form
      aria-label="Import"
      onSubmit={(event) => {
        event.preventDefault();
        store.reset();
        check.mutate(undefined);
      }}
    >
      <Stack gap="sm" maw={560}>
        <ErrorBox error={store.error ?? check.error} />
        {!given && <TextInput label="Name" required value={name} onChange={(event) => change(() => setName(event.currentTarget.value))} />}
        <FileInput
          label="Files"
          description="PEM (chain and key, in one file or several) or PKCS#12"
          multiple
          required
          value={files}
          onChange={(chosen) => change(() => setFiles(chosen))}
        />
        <PasswordInput
          label="Password"
          description="Of the file or the key, if it has one"
          autoComplete="off"
          value={password}
          onChange={(event) => change(() => setPassword(event.currentTarget.value))}
        />
        <Group>
          <Button type="submit" variant="default" loading={check.isPending} disabled={files.length === 0 || name === ''}>
            Check
          </Button>
        </Group>
        {check.data && !store.data && <Checked found={check.data} />}
        {check.data && !store.data && (
          <Group>
            <Button loading={store.isPending} onClick={() => store.mutate(undefined, { onSuccess: stored })}>
              {check.data.replaces ? 'Replace' : 'Store'}
            </Button>
          </Group>
        )}
        {store.data && <Alert variant="outline" color="green" role="status" title={`${store.data.name} is stored`} />}
      </Stack>
    </form>
  );
}

function Checked({ found }: { found: Imported }) {
  return (
    <Alert variant="outline" color={found.warnings.length > 0 ? 'orange' : 'green'} role="status" title={found.names.join(', ')}>
      <Text size="sm">
        {found.keyType}, until {new Date(found.notAfter).toLocaleString()}
        {found.replaces && `; in place of one until ${new Date(found.replaces.notAfter).toLocaleString()}`}
      </Text>
      <List size="sm">
        {found.warnings.map((warning) => (
          <List.Item key={warning.detail}>
            {warning.detail}
            {warning.hint && ` (${warning.hint})`}
          </List.Item>
        ))}
      </List>
    </Alert>
  );
}
