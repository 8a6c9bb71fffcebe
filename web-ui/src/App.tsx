import { Alert, AppShell, Burger, Button, Group, Loader, NavLink, Text, useMantineColorScheme } from '@mantine/core';
import { useDisclosure } from '@mantine/hooks';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { createRootRoute, createRoute, createRouter, Link, Outlet, useRouterState } from '@tanstack/react-router';
import { useEffect, useState } from 'react';
import { whenSignedOut } from './api/client';
import { follow } from './api/events';
import { queries, useWrite, writes } from './api/queries';
import { SessionContext } from './api/session';
import type { Session } from './api/types';
import { AcmeAccounts } from './pages/AcmeAccounts';
import { CertificatePage } from './pages/CertificatePage';
import { Certificates } from './pages/Certificates';
import { Configuration } from './pages/Configuration';
import { History, RevisionPage } from './pages/History';
import { ListenerPage, Listeners } from './pages/Listeners';
import { NewCertificate } from './pages/NewCertificate';
import { Nodes } from './pages/Nodes';
import { ListPage, Lists, MapPage } from './pages/Lists';
import { Overview } from './pages/Overview';
import { PoolPage, Pools } from './pages/Pools';
import { SignIn } from './pages/SignIn';
import { Tokens } from './pages/Tokens';
import { paths } from './paths';
import { ErrorBox, Page } from './ui/Page';

const MENU = [
  ['Overview', paths.overview],
  ['Listeners', paths.listeners],
  ['Pools', paths.pools],
  ['Certificates', paths.certificates],
  ['ACME accounts', paths.accounts],
  ['Lists and maps', paths.lists],
  ['Nodes', paths.nodes],
  ['Configuration', paths.configuration],
  ['History', paths.history],
  ['API tokens', paths.tokens],
] as const;

/** Who is there decides what is shown. */
function Root() {
  const client = useQueryClient();
  const session = useQuery(queries.session);
  useEffect(() => whenSignedOut(() => void client.invalidateQueries({ queryKey: ['session'] })), [client]);
  if (session.isPending) return <Loader m="xl" />;
  if (session.data && 'bootstrapNeeded' in session.data) return <SignIn isFirst />;
  if (session.error && (session.error as { status?: number }).status !== 401) return <ErrorBox error={session.error} />;
  if (session.error || !session.data) return <SignIn isFirst={false} />;
  return (
    <SessionContext value={session.data}>
      <Shell session={session.data} />
    </SessionContext>
  );
}

function Shell({ session }: { session: Session }) {
  const client = useQueryClient();
  const [opened, { toggle, close }] = useDisclosure(false);
  const [connected, setConnected] = useState(true);
  const { colorScheme, setColorScheme } = useMantineColorScheme();
  const path = useRouterState({ select: (state) => state.location.pathname });
  const signOut = useWrite(writes.signOut, ['session']);
  useEffect(() => follow(client, setConnected), [client]);
  const next = { auto: 'light', light: 'dark', dark: 'auto' } as const;
  return (
    <AppShell header={{ height: 48 }} navbar={{ width: 190, breakpoint: 'sm', collapsed: { mobile: !opened } }} padding="md">
      <AppShell.Header>
        <Group h="100%" px="md" justify="space-between">
          <Group gap="sm">
            <Burger opened={opened} onClick={toggle} hiddenFrom="sm" size="sm" aria-label="Menu" />
            <Text fw={700}>awe4lb</Text>
          </Group>
          <Group gap="xs">
            <Button size="compact-xs" variant="default" onClick={() => setColorScheme(next[colorScheme])}>
              {colorScheme}
            </Button>
            <Text size="sm">
              {session.user} ({session.role})
            </Text>
            <Button size="compact-xs" variant="default" onClick={() => signOut.mutate(undefined)}>
              Sign out
            </Button>
          </Group>
        </Group>
      </AppShell.Header>
      <AppShell.Navbar p="xs" aria-label="Pages">
        {MENU.map(([label, to]) => (
          <NavLink
            key={to}
            component={Link}
            to={to}
            label={label}
            variant="filled"
            onClick={close}
            active={to === '/' ? path === '/' : path === to || path.startsWith(`${to}/`)}
          />
        ))}
      </AppShell.Navbar>
      <AppShell.Main>
        {!connected && (
          <Alert color="orange" variant="outline" mb="md" title="Disconnected" role="status">
            What is shown may be old; it is asked for anew every few seconds until the control plane answers.
          </Alert>
        )}
        <Outlet />
      </AppShell.Main>
    </AppShell>
  );
}

const root = createRootRoute({
  component: Root,
  notFoundComponent: () => <Page title="Not found">There is no such page.</Page>,
});
const page = (path: string, component: () => React.JSX.Element) =>
  createRoute({ getParentRoute: () => root, path, component });

const tree = root.addChildren([
  page('/', Overview),
  page('/listeners', Listeners),
  page('/listeners/$name', ListenerPage),
  page('/pools', Pools),
  page('/pools/$name', PoolPage),
  page('/lists', Lists),
  page('/lists/$name', ListPage),
  page('/maps/$name', MapPage),
  page('/certificates', Certificates),
  page('/certificates/$name', CertificatePage),
  page('/new-certificate', NewCertificate),
  page('/acme-accounts', AcmeAccounts),
  page('/nodes', Nodes),
  page('/configuration', Configuration),
  page('/history', History),
  page('/history/$number', RevisionPage),
  page('/tokens', Tokens),
]);

/** All pages by their address. */
export const router = createRouter({ routeTree: tree, defaultPreload: 'intent' });
