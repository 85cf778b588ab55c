// What a page shows while it has nothing to show.
import { Button, makeStyles, Spinner, Subtitle2, Text, tokens } from '@fluentui/react-components'
import { ErrorCircleRegular } from '@fluentui/react-icons/svg/error-circle'
import { useCallback, type ReactNode } from 'react'
import { useTranslation } from 'react-i18next'
import { ApiError } from '../api/client'
import { useName } from '../i18n/names'

const useStyles = makeStyles({
  block: {
    display: 'flex',
    flexDirection: 'column',
    alignItems: 'center',
    justifyContent: 'center',
    gap: tokens.spacingVerticalS,
    padding: '48px 24px',
    textAlign: 'center',
    color: tokens.colorNeutralForeground2,
  },
  icon: { fontSize: '40px', lineHeight: 1, color: tokens.colorNeutralForeground3 },
  text: { maxWidth: '60ch' },
  detail: { color: tokens.colorNeutralForeground3, overflowWrap: 'anywhere' },
  actions: { marginTop: tokens.spacingVerticalS },
})

/** Says in the reader's language why a call failed. */
export function useErrorText(): (error: unknown) => string {
  const { t } = useTranslation()
  const name = useName()
  return useCallback((error) => {
    if (!(error instanceof ApiError)) return t('state.failed')
    const pause = /too many failed sign-ins.*try again in (\S+?)\./.exec(error.message)
    if (pause) return t('state.paused', { time: pause[1] })
    // What the person did wrong is said in the message alone; other kinds are
    // explained in general, with the message below as the detail.
    if (error.kind === 'conflict' && error.message) return t('state.refused', { reason: name('errorKind', 'conflict'), detail: error.message })
    const known = error.kind === 'invalid' ? name('message', error.message) : name('errorKind', error.kind)
    return known === error.kind ? error.message || t('state.failed') : known
  }, [t, name])
}

export function Loading() {
  const { t } = useTranslation()
  return <Spinner style={{ padding: '48px' }} label={t('state.loading')} />
}

/** Nothing there, and what to do about it. */
export function Empty({ icon, title, children, action, testid = 'empty' }: { icon: ReactNode; title: string; children?: ReactNode; action?: ReactNode; testid?: string }) {
  const styles = useStyles()
  return (
    <div className={styles.block} data-testid={testid}>
      <span className={styles.icon} aria-hidden>{icon}</span>
      <Subtitle2 as="h2" style={{ margin: 0 }}>{title}</Subtitle2>
      {children !== undefined && <Text className={styles.text}>{children}</Text>}
      {action !== undefined && <div className={styles.actions}>{action}</div>}
    </div>
  )
}

/** A call failed: why, and a way to try again. */
export function Failure({ error, retry }: { error: unknown; retry: () => void }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const text = useErrorText()(error)
  const detail = error instanceof ApiError ? error.message : ''
  return (
    <div className={styles.block} role="alert" data-testid="failure">
      <span className={styles.icon} aria-hidden><ErrorCircleRegular /></span>
      <Subtitle2 as="h2" style={{ margin: 0 }}>{text}</Subtitle2>
      {detail !== '' && detail !== text && <Text className={styles.detail}>{detail}</Text>}
      {error instanceof ApiError && error.id !== '' && <Text size={200} className={styles.detail}>{t('state.errorId', { id: error.id })}</Text>}
      <div className={styles.actions}><Button onClick={retry}>{t('action.retry')}</Button></div>
    </div>
  )
}
