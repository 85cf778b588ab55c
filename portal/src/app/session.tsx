// Who is signed in.
import { createContext, useCallback, useContext, useEffect, useMemo, useState, type ReactNode } from 'react'
import { getSession, signOut as endSession } from '../api/calls'
import { ApiError, whenSignedOut } from '../api/client'
import type { Session } from '../api/types'

export type Permission = 'alerts.triage' | 'tests.run' | 'enrolment.manage' | 'devices.manage' | 'plans.manage' | 'policies.manage' | 'users.manage' | 'tokens.manage' | 'audit.read' | 'notifications.manage'

interface SessionState {
  /** undefined while it is not known, null when nobody is signed in. */
  session: Session | null | undefined
  error: unknown
  setSession: (session: Session | null) => void
  signOut: () => void
  retry: () => void
}

const Context = createContext<SessionState | undefined>(undefined)

export function SessionProvider({ children }: { children: ReactNode }) {
  const [session, setSession] = useState<Session | null>()
  const [error, setError] = useState<unknown>()

  const retry = useCallback(() => {
    setError(undefined)
    getSession().then(setSession, (e: unknown) => {
      if (e instanceof ApiError && e.status === 401) setSession(null)
      else setError(e)
    })
  }, [])
  useEffect(() => {
    whenSignedOut(() => setSession(null))
    retry()
  }, [retry])

  const signOut = useCallback(() => {
    // Also when the call fails: the person wants to be out of this page.
    void endSession().catch(() => undefined).then(() => setSession(null))
  }, [])

  const value = useMemo(() => ({ session, error, setSession, signOut, retry }), [session, error, signOut, retry])
  return <Context value={value}>{children}</Context>
}

export function useSessionState(): SessionState {
  const value = useContext(Context)
  if (!value) throw new Error('useSessionState outside of SessionProvider')
  return value
}

/** The session of a page that only signed-in people see. */
export function useSession(): Session {
  const { session } = useSessionState()
  if (!session) throw new Error('useSession without a session')
  return session
}

/** Whether this person may do something; the control plane decides again. */
export function useMay(permission: Permission): boolean {
  const session = useSession()
  return session.permissions?.includes(permission) ?? session.role === 'admin'
}
