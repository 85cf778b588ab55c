import {
  Button, Checkbox, Dialog, DialogActions, DialogBody, DialogContent, DialogSurface, DialogTitle, Field, Input, makeStyles, MessageBar, MessageBarBody, Select, Switch, Textarea, tokens,
} from '@fluentui/react-components'
import { useState, type FormEvent } from 'react'
import { useTranslation } from 'react-i18next'
import { createNotification, saveNotification, type Notification, type NotificationKind, type Target } from '../../api/administration'
import { ApiError } from '../../api/client'
import { useNotify } from '../../app/toast'
import { useName } from '../../i18n/names'
import { useErrorText } from '../../ui/states'

const useStyles = makeStyles({
  surface: { maxWidth: '680px' },
  content: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalM },
  pair: { display: 'grid', gridTemplateColumns: '1fr 1fr', alignItems: 'start', gap: tokens.spacingHorizontalL },
  checks: { display: 'flex', flexWrap: 'wrap' },
})

const kinds: NotificationKind[] = ['webhook', 'smtp', 'syslog']
const triggers = ['newAlert', 'newIncident', 'statusChange']
const fresh: Record<NotificationKind, Target> = {
  webhook: { url: '' },
  smtp: { host: '', port: 587, security: 'starttls', username: '', from: '', to: [] },
  syslog: { host: '', port: 6514, protocol: 'tls' },
}

interface Props {
  notification?: Notification
  saved: () => void
  close: () => void
}

/** Where messages go, and of what. */
export function NotificationDialog({ notification: old, saved, close }: Props) {
  const styles = useStyles()
  const { t } = useTranslation()
  const words = useName()
  const notify = useNotify()
  const errorText = useErrorText()
  const [name, setName] = useState(old?.name ?? '')
  const [kind, setKind] = useState<NotificationKind>(old?.kind ?? 'webhook')
  const [enabled, setEnabled] = useState(old?.enabled ?? true)
  const [severity, setSeverity] = useState(old?.minSeverity ?? 'Informational')
  const [tests, setTests] = useState(old?.includeTests ?? false)
  const [on, setOn] = useState(old?.on ?? ['newAlert', 'newIncident'])
  const [target, setTarget] = useState<Target>(old?.target ?? fresh.webhook)
  const [to, setTo] = useState((old?.target.to ?? []).join('\n'))
  const [secret, setSecret] = useState('')
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState<unknown>()
  const change = (next: Target) => setTarget((now) => ({ ...now, ...next }))
  const port = (value: string) => change({ port: Number(value) || undefined })

  const submit = (event: FormEvent) => {
    event.preventDefault()
    if (busy) return
    setBusy(true)
    setError(undefined)
    const lines = to.split('\n').map((line) => line.trim()).filter((line) => line !== '')
    const body = {
      name: name.trim(), kind, enabled, minSeverity: severity, includeTests: tests, on, target: kind === 'smtp' ? { ...target, to: lines } : target,
      ...(secret !== '' && { secret }), ...(old && { version: old.version }),
    }
    const call = old ? saveNotification(old.id, body) : createNotification(body)
    call.then(
      (next) => {
        notify('success', t('notifications.saved', { name: next.name }))
        saved()
      },
      (e: unknown) => {
        setError(e)
        setBusy(false)
      },
    )
  }
  const conflict = old !== undefined && error instanceof ApiError && error.kind === 'conflict'
  const text = (label: string, value: string | undefined, set: (value: string) => void, testid: string, hint?: string) => (
    <Field label={label} hint={hint}><Input value={value ?? ''} onChange={(_, d) => set(d.value)} input={{ 'data-testid': testid } as object} /></Field>
  )
  return (
    <Dialog open onOpenChange={(_, d) => !d.open && close()}>
      <DialogSurface className={styles.surface} data-testid="notification-dialog">
        <form onSubmit={submit}>
          <DialogBody>
            <DialogTitle>{old ? t('notifications.editTitle', { name: old.name }) : t('notifications.create')}</DialogTitle>
            <DialogContent className={styles.content}>
              {error !== undefined && <MessageBar intent="error" layout="multiline" role="alert" data-testid="notification-error"><MessageBarBody>{conflict ? t('notifications.conflict') : errorText(error)}</MessageBarBody></MessageBar>}
              <div className={styles.pair}>
                <Field label={t('notifications.name')} required><Input value={name} maxLength={100} autoFocus onChange={(_, d) => setName(d.value)} input={{ 'data-testid': 'notification-name' } as object} /></Field>
                <Field label={t('notifications.kind')}>
                  <Select
                    value={kind} disabled={old !== undefined} data-testid="notification-kind" onChange={(_, d) => {
                      setKind(d.value as NotificationKind)
                      setTarget(fresh[d.value as NotificationKind])
                    }}
                  >
                    {kinds.map((k) => <option key={k} value={k}>{words('notificationKind', k)}</option>)}
                  </Select>
                </Field>
              </div>
              {kind === 'webhook' && text(t('notifications.url'), target.url, (url) => change({ url }), 'notification-url', t('notifications.urlHint'))}
              {kind !== 'webhook' && (
                <div className={styles.pair}>
                  {text(t('notifications.host'), target.host, (host) => change({ host }), 'notification-host')}
                  <Field label={t('notifications.port')}><Input type="number" min={1} max={65_535} value={String(target.port ?? '')} onChange={(_, d) => port(d.value)} /></Field>
                </div>
              )}
              {kind === 'smtp' && (
                <>
                  <div className={styles.pair}>
                    <Field label={t('notifications.security')}><Select value={target.security} onChange={(_, d) => change({ security: d.value })}>{['starttls', 'tls', 'none'].map((s) => <option key={s} value={s}>{words('mailSecurity', s)}</option>)}</Select></Field>
                    {text(t('notifications.username'), target.username, (username) => change({ username }), 'notification-username', t('notifications.usernameHint'))}
                  </div>
                  <div className={styles.pair}>
                    {text(t('notifications.sender'), target.from, (from) => change({ from }), 'notification-from')}
                    <Field label={t('notifications.recipients')} hint={t('policies.onePerLine')}><Textarea value={to} onChange={(_, d) => setTo(d.value)} textarea={{ 'data-testid': 'notification-to' } as object} /></Field>
                  </div>
                </>
              )}
              {kind === 'syslog' && <Field label={t('notifications.protocol')}><Select value={target.protocol} onChange={(_, d) => change({ protocol: d.value })}>{['tls', 'tcp', 'udp'].map((p) => <option key={p} value={p}>{words('syslogProtocol', p)}</option>)}</Select></Field>}
              {kind !== 'syslog' && (
                <Field label={kind === 'webhook' ? t('notifications.key') : t('notifications.password')} hint={old?.secretSet ? t('notifications.secretSet') : kind === 'webhook' ? t('notifications.keyHint') : undefined}>
                  <Input type="password" autoComplete="new-password" value={secret} maxLength={1000} onChange={(_, d) => setSecret(d.value)} input={{ 'data-testid': 'notification-secret' } as object} />
                </Field>
              )}
              {(kind !== 'syslog' || target.protocol === 'tls') && <Field label={t('notifications.ca')} hint={t('notifications.caHint')}><Textarea value={target.ca ?? ''} onChange={(_, d) => change({ ca: d.value || undefined })} /></Field>}
              <div className={styles.pair}>
                <Field label={t('notifications.severity')}><Select value={severity} onChange={(_, d) => setSeverity(d.value)}>{['Informational', 'Low', 'Medium', 'High'].map((s) => <option key={s} value={s}>{words('severity', s)}</option>)}</Select></Field>
                <Field label={t('notifications.on')}>
                  <div className={styles.checks}>
                    {triggers.map((trigger) => <Checkbox key={trigger} label={words('trigger', trigger)} checked={on.includes(trigger)} onChange={(_, d) => setOn(triggers.filter((x) => (x === trigger ? d.checked : on.includes(x))))} />)}
                  </div>
                </Field>
              </div>
              <Checkbox label={t('notifications.includeTests')} checked={tests} onChange={(_, d) => setTests(d.checked === true)} />
              <Switch label={t('notifications.enabled')} checked={enabled} onChange={(_, d) => setEnabled(d.checked)} data-testid="notification-enabled" />
            </DialogContent>
            <DialogActions>
              <Button type="submit" appearance="primary" disabledFocusable={busy || name.trim() === ''} data-testid="notification-save">{t('action.save')}</Button>
              <Button onClick={close}>{t('action.cancel')}</Button>
            </DialogActions>
          </DialogBody>
        </form>
      </DialogSurface>
    </Dialog>
  )
}
