import { createContext, useContext } from 'react';
import type { Role, Session } from './types';

const ORDER: Role[] = ['viewer', 'operator', 'admin'];

export const SessionContext = createContext<Session>({ user: '', role: 'viewer', via: 'cookie' });

/** Who is signed in. */
export function useSession(): Session {
  return useContext(SessionContext);
}

/** Why this may not be done, in words for the control that is off; nothing when it may. */
export function useWhyNot(needed: Role): string | undefined {
  const { role } = useSession();
  return ORDER.indexOf(role) >= ORDER.indexOf(needed) ? undefined : `needs the role ${needed}; you are ${role}`;
}
