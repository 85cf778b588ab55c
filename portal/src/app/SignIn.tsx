import { Button, Field, Input, makeStyles, MessageBar, MessageBarBody, Text, tokens } from '@fluentui/react-components'
import { useState, type FormEvent } from 'react'
import { useTranslation } from 'react-i18next'
import { Navigate, useSearchParams } from 'react-router'
import { signIn } from '../api/calls'
import { ApiError } from '../api/client'
import { useErrorText } from '../ui/states'
import { Door } from './Door'
import { useSessionState } from './session'

const useStyles = makeStyles({
  form: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalL },
  hint: { color: tokens.colorNeutralForeground3 },
})

/** Where to go after signing in: only to a path of this portal. */
function destination(to: string | null): string {
  return to && /^\/(?![/\\])/.test(to) ? to : '/'
}

export default function SignIn() {
  const styles = useStyles()
  const { t } = useTranslation()
  const { session, setSession } = useSessionState()
  const errorText = useErrorText()
  const [parameters] = useSearchParams()
  const [name, setName] = useState('')
  const [password, setPassword] = useState('')
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState<unknown>()

  if (session) return <Navigate to={destination(parameters.get('to'))} replace />

  const submit = (event: FormEvent) => {
    event.preventDefault()
    if (busy) return
    setBusy(true)
    setError(undefined)
    signIn(name.trim(), password).then(setSession, (e: unknown) => {
      setError(e)
      setBusy(false)
    })
  }
  const message = error === undefined ? '' : error instanceof ApiError && error.status === 401 ? t('signin.wrong') : errorText(error)
  return (
    <Door title={t('signin.title')}>
      <form className={styles.form} onSubmit={submit}>
        {message !== '' && (
          <MessageBar intent="error" layout="multiline" role="alert">
            <MessageBarBody data-testid="signin-error">{message}</MessageBarBody>
          </MessageBar>
        )}
        <Field label={t('signin.name')} required>
          <Input
            input={{ 'data-testid': 'signin-name' } as object}
            autoComplete="username" autoFocus autoCapitalize="none" spellCheck={false}
            value={name} onChange={(_, d) => setName(d.value)}
          />
        </Field>
        <Field label={t('signin.password')} required>
          <Input
            input={{ 'data-testid': 'signin-password' } as object}
            type="password" autoComplete="current-password"
            value={password} onChange={(_, d) => setPassword(d.value)}
          />
        </Field>
        <Button type="submit" appearance="primary" disabledFocusable={busy} data-testid="signin-submit">{t('signin.submit')}</Button>
        <Text size={200} className={styles.hint}>{t('signin.hint')}</Text>
      </form>
    </Door>
  )
}
