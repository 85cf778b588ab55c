import { Spinner } from '@fluentui/react-components'
import { lazy, Suspense } from 'react'
import { useTranslation } from 'react-i18next'
import { Navigate, useLocation } from 'react-router'
import { Failure } from '../ui/states'
import { useSessionState } from './session'
import { Shell } from './Shell'

const ChangePassword = lazy(() => import('./ChangePassword'))

/** Lets in who is signed in and has a password of their own. */
export function RequireSession() {
  const { t } = useTranslation()
  const { session, error, retry } = useSessionState()
  const { pathname, search } = useLocation()

  if (error) return <Failure error={error} retry={retry} />
  if (session === undefined) return <Spinner style={{ height: '100%' }} label={t('state.loading')} />
  if (session === null) {
    const to = pathname + search
    return <Navigate to={to === '/' ? '/signin' : `/signin?to=${encodeURIComponent(to)}`} replace />
  }
  if (session.mustChangePassword) return <Suspense><ChangePassword /></Suspense>
  return <Shell />
}
