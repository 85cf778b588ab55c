import { Button, Field, Input, makeStyles, MessageBar, MessageBarBody, Text, tokens } from '@fluentui/react-components'
import { useState, type FormEvent } from 'react'
import { useTranslation } from 'react-i18next'
import { changePassword } from '../api/calls'
import { useErrorText } from '../ui/states'
import { Door } from './Door'
import { useSessionState } from './session'

const useStyles = makeStyles({
  form: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalL },
})

/** The control plane's own rule; it decides, this only says so sooner. */
const shortest = 12

/** A one-time password must become the person's own before anything else. */
export default function ChangePassword() {
  const styles = useStyles()
  const { t } = useTranslation()
  const { setSession, signOut } = useSessionState()
  const errorText = useErrorText()
  const [current, setCurrent] = useState('')
  const [next, setNext] = useState('')
  const [repeat, setRepeat] = useState('')
  const [tried, setTried] = useState(false)
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState<unknown>()

  const short = [...next].length < shortest
  const different = next !== repeat
  const submit = (event: FormEvent) => {
    event.preventDefault()
    setTried(true)
    if (busy || short || different) return
    setBusy(true)
    setError(undefined)
    changePassword(current, next).then(setSession, (e: unknown) => {
      setError(e)
      setBusy(false)
    })
  }
  const message = error === undefined ? '' : errorText(error)
  return (
    <Door title={t('password.title')}>
      <Text>{t('password.why')}</Text>
      <form className={styles.form} onSubmit={submit}>
        {message !== '' && (
          <MessageBar intent="error" layout="multiline" role="alert">
            <MessageBarBody data-testid="password-error">{message}</MessageBarBody>
          </MessageBar>
        )}
        <Field label={t('password.current')} required>
          <Input
            input={{ 'data-testid': 'password-current' } as object}
            type="password" autoComplete="current-password" autoFocus
            value={current} onChange={(_, d) => setCurrent(d.value)}
          />
        </Field>
        <Field
          label={t('password.new')} required hint={t('password.rule', { count: shortest })}
          validationMessage={tried && short ? t('password.short') : undefined}
        >
          <Input
            input={{ 'data-testid': 'password-new' } as object}
            type="password" autoComplete="new-password"
            value={next} onChange={(_, d) => setNext(d.value)}
          />
        </Field>
        <Field label={t('password.repeat')} required validationMessage={tried && different ? t('password.different') : undefined}>
          <Input
            input={{ 'data-testid': 'password-repeat' } as object}
            type="password" autoComplete="new-password"
            value={repeat} onChange={(_, d) => setRepeat(d.value)}
          />
        </Field>
        <Button type="submit" appearance="primary" disabledFocusable={busy} data-testid="password-submit">{t('password.submit')}</Button>
        <Button appearance="transparent" onClick={signOut}>{t('user.signOut')}</Button>
      </form>
    </Door>
  )
}
