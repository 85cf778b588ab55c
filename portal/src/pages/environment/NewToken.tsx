import {
  Button, Dialog, DialogActions, DialogBody, DialogContent, DialogSurface, DialogTitle, Field, Input, makeStyles, MessageBar, MessageBarBody,
  Select, SpinButton, Tab, TabList, Text, tokens,
} from '@fluentui/react-components'
import { useState, type FormEvent } from 'react'
import { useTranslation } from 'react-i18next'
import { createToken } from '../../api/calls'
import { snippets, type JoinToken, type Snippet } from '../../api/types'
import { useName } from '../../i18n/names'
import { Copyable } from '../../ui/Copy'
import { useErrorText } from '../../ui/states'

const useStyles = makeStyles({
  surface: { maxWidth: '720px' },
  content: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalL },
  pair: { display: 'grid', gridTemplateColumns: '1fr 1fr', gap: tokens.spacingHorizontalL },
  copy: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalXS },
  ways: { marginLeft: '-10px', flexWrap: 'wrap' },
})

const hour = 3_600
const day = 24 * hour
const maxUses = 10_000

interface Props {
  environment: string
  created: () => void
  close: () => void
}

/** Makes a token, and shows it this once: only its digest is kept. */
export function NewToken({ environment, created, close }: Props) {
  const styles = useStyles()
  const { t } = useTranslation()
  const errorText = useErrorText()
  const [label, setLabel] = useState(() => t('token.defaultLabel'))
  const [expires, setExpires] = useState(day)
  const [uses, setUses] = useState(1)
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState<unknown>()
  const [token, setToken] = useState<JoinToken>()

  const submit = (event: FormEvent) => {
    event.preventDefault()
    if (busy) return
    setBusy(true)
    setError(undefined)
    createToken(environment, { label: label.trim(), expiresInSeconds: expires, maxUses: uses }).then(
      (made) => {
        setToken(made)
        created()
      },
      setError,
    ).finally(() => setBusy(false))
  }
  const choices = [
    { seconds: hour, label: t('token.hour') },
    { seconds: day, label: t('token.day') },
    { seconds: 7 * day, label: t('token.week') },
    { seconds: 30 * day, label: t('token.month') },
  ]
  return (
    // Once the token is shown, a click beside the dialog must not lose it.
    <Dialog open modalType={token ? 'alert' : 'modal'} onOpenChange={(_, d) => !d.open && close()}>
      <DialogSurface className={styles.surface} data-testid="token-dialog">
        {token ? (
          <DialogBody>
            <DialogTitle>{t('token.made')}</DialogTitle>
            <DialogContent className={styles.content}>
              <MessageBar intent="warning" layout="multiline"><MessageBarBody>{t('token.once')}</MessageBarBody></MessageBar>
              <Ways token={token} />
              <div className={styles.copy}>
                <Text weight="semibold">{t('token.token')}</Text>
                <Copyable text={token.token ?? ''} label={t('token.token')} testid="token-value" />
              </div>
            </DialogContent>
            <DialogActions><Button appearance="primary" onClick={close} data-testid="token-done">{t('action.done')}</Button></DialogActions>
          </DialogBody>
        ) : (
          <form onSubmit={submit}>
            <DialogBody>
              <DialogTitle>{t('token.create')}</DialogTitle>
              <DialogContent className={styles.content}>
                {error !== undefined && <MessageBar intent="error" layout="multiline" role="alert"><MessageBarBody>{errorText(error)}</MessageBarBody></MessageBar>}
                <Field label={t('token.label')} hint={t('token.labelHint')} required>
                  <Input value={label} onChange={(_, d) => setLabel(d.value)} maxLength={100} autoFocus input={{ 'data-testid': 'token-label' } as object} />
                </Field>
                <div className={styles.pair}>
                  <Field label={t('token.expires')}>
                    <Select value={String(expires)} onChange={(_, d) => setExpires(Number(d.value))} data-testid="token-expiry">
                      {choices.map((c) => <option key={c.seconds} value={c.seconds}>{c.label}</option>)}
                    </Select>
                  </Field>
                  <Field label={t('token.maxUses')}>
                    <SpinButton
                      value={uses} min={1} max={maxUses} input={{ 'data-testid': 'token-uses' } as object}
                      onChange={(_, d) => {
                        const n = d.value ?? Number(d.displayValue)
                        if (Number.isInteger(n)) setUses(Math.min(Math.max(n, 1), maxUses))
                      }}
                    />
                  </Field>
                </div>
              </DialogContent>
              <DialogActions>
                <Button type="submit" appearance="primary" disabledFocusable={busy || label.trim() === ''} data-testid="token-create-confirm">{t('action.create')}</Button>
                <Button onClick={close}>{t('action.cancel')}</Button>
              </DialogActions>
            </DialogBody>
          </form>
        )}
      </DialogSurface>
    </Dialog>
  )
}

/** The ways in which a server can be told the token. */
function Ways({ token }: { token: JoinToken }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const ways = snippets.filter((s) => token.snippets?.[s])
  const [chosen, setChosen] = useState<Snippet | 'installed'>(ways[0] ?? 'installed')
  const text = chosen === 'installed' ? token.command ?? '' : token.snippets?.[chosen] ?? ''
  const label = name('snippet', chosen)
  return (
    <div className={styles.copy}>
      <Text weight="semibold">{t('token.ways')}</Text>
      <TabList className={styles.ways} selectedValue={chosen} onTabSelect={(_, d) => setChosen(d.value as Snippet)}>
        {[...ways, 'installed' as const].map((s) => <Tab key={s} value={s} id={`way-${s}`} aria-controls="way-panel" data-testid={`token-way-${s}`}>{name('snippet', s)}</Tab>)}
      </TabList>
      <div id="way-panel" role="tabpanel" aria-labelledby={`way-${chosen}`} className={styles.copy}>
        <Text size={200}>{name('snippetAbout', chosen)}</Text>
        <Copyable key={chosen} text={text} label={label} testid="token-command" block={chosen !== 'installed'} />
      </div>
    </div>
  )
}
