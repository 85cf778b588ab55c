// The panel in which people say what an alert or an incident is and who works
// on it. Nothing is sent until it is saved, and then only what was changed.
import { Button, DrawerBody, DrawerFooter, DrawerHeader, DrawerHeaderTitle, Field, Input, makeStyles, MessageBar, MessageBarBody, OverlayDrawer, Select, Textarea, tokens } from '@fluentui/react-components'
import { DismissRegular } from '@fluentui/react-icons/svg/dismiss'
import { useState, type FormEvent } from 'react'
import { useTranslation } from 'react-i18next'
import { classifications, determinations, listAssignees } from '../api/incidents'
import { useData } from '../api/use'
import { useSession } from '../app/session'
import { useName } from '../i18n/names'
import { useErrorText } from './states'

const useStyles = makeStyles({
  form: { display: 'flex', flexDirection: 'column', minHeight: 0, flexGrow: 1 },
  body: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalL, paddingTop: tokens.spacingVerticalS, paddingBottom: tokens.spacingVerticalL },
  assignee: { display: 'flex', flexDirection: 'column', alignItems: 'flex-start', gap: tokens.spacingVerticalXS },
})

const severities = ['High', 'Medium', 'Low', 'Informational']

export interface Managed {
  name?: string
  severity?: string
  status: string
  assignee: string
  classification: string
  determination: string
}

interface Props {
  title: string
  value: Managed
  statuses: readonly string[]
  statusName: (status: string) => string
  /** Sends what was changed, and a comment when there is one. */
  save: (change: Partial<Managed>, comment: string) => Promise<unknown>
  close: () => void
}

export default function Manage({ title, value, statuses, statusName, save, close }: Props) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const session = useSession()
  const errorText = useErrorText()
  const assignees = useData('assignees', listAssignees)
  const [draft, setDraft] = useState(value)
  const [comment, setComment] = useState('')
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState<unknown>()
  const set = (part: Partial<Managed>) => setDraft((old) => ({ ...old, ...part }))

  const classes = classifications.flatMap((c) => (determinations[c] ?? ['']).map((d) => ({ value: d === '' ? c : `${c}/${d}`, c, d })))
  const chosen = draft.determination !== '' && draft.determination !== 'NotSet' ? `${draft.classification}/${draft.determination}` : draft.classification
  const people = [...new Set([draft.assignee, session.user.name, ...(assignees.data ?? [])])].filter((p) => p !== '')

  const submit = (event: FormEvent) => {
    event.preventDefault()
    if (busy) return
    const change: Partial<Managed> = {}
    for (const key of ['name', 'severity', 'status', 'assignee', 'classification', 'determination'] as const) {
      if (draft[key] !== undefined && draft[key] !== value[key]) change[key] = key === 'name' ? draft[key]!.trim() : draft[key]
    }
    // A determination means nothing without its classification.
    if (change.determination !== undefined && change.determination !== '') change.classification = draft.classification
    setBusy(true)
    setError(undefined)
    save(change, comment.trim()).then(close, (e: unknown) => {
      setError(e)
      setBusy(false)
    })
  }
  return (
    <OverlayDrawer open position="end" size="small" onOpenChange={(_, d) => !d.open && close()} aria-label={title} data-testid="manage-panel">
      <DrawerHeader>
        <DrawerHeaderTitle action={<Button appearance="subtle" icon={<DismissRegular />} aria-label={t('action.close')} onClick={close} />}>{title}</DrawerHeaderTitle>
      </DrawerHeader>
      <form className={styles.form} onSubmit={submit}>
        <DrawerBody>
          <div className={styles.body}>
            {error !== undefined && <MessageBar intent="error" layout="multiline" role="alert"><MessageBarBody>{errorText(error)}</MessageBarBody></MessageBar>}
            {draft.name !== undefined && (
              <Field label={t('manage.name')} required>
                <Input value={draft.name} maxLength={200} onChange={(_, d) => set({ name: d.value })} input={{ 'data-testid': 'manage-name' } as object} />
              </Field>
            )}
            {draft.severity !== undefined && (
              <Field label={t('manage.severity')}>
                <Select value={draft.severity} onChange={(_, d) => set({ severity: d.value })} data-testid="manage-severity">
                  {severities.map((s) => <option key={s} value={s}>{name('severity', s)}</option>)}
                </Select>
              </Field>
            )}
            <Field label={t('manage.status')}>
              <Select value={draft.status} onChange={(_, d) => set({ status: d.value })} data-testid="manage-status">
                {statuses.map((s) => <option key={s} value={s}>{statusName(s)}</option>)}
              </Select>
            </Field>
            <div className={styles.assignee}>
              <Field label={t('manage.assignee')} style={{ width: '100%' }}>
                <Select value={draft.assignee} onChange={(_, d) => set({ assignee: d.value })} data-testid="manage-assignee">
                  <option value="">{t('manage.nobody')}</option>
                  {people.map((p) => <option key={p} value={p}>{p}</option>)}
                </Select>
              </Field>
              {draft.assignee !== session.user.name && <Button size="small" appearance="transparent" onClick={() => set({ assignee: session.user.name })} data-testid="manage-mine">{t('manage.mine')}</Button>}
            </div>
            <Field label={t('manage.classification')} hint={t('manage.classificationHint')}>
              <Select
                value={chosen} data-testid="manage-classification"
                onChange={(_, d) => {
                  const [c = 'NotSet', determination = ''] = d.value.split('/')
                  set({ classification: c, determination })
                }}
              >
                {!classes.some((k) => k.value === chosen) && <option value={chosen}>{name('classification', draft.classification)}</option>}
                {classifications.map((c) => (determinations[c]
                  ? (
                    <optgroup key={c} label={name('classification', c)}>
                      {classes.filter((k) => k.c === c).map((k) => <option key={k.value} value={k.value}>{name('determination', k.d)}</option>)}
                    </optgroup>
                  )
                  : <option key={c} value={c}>{name('classification', c)}</option>))}
              </Select>
            </Field>
            <Field label={t('manage.comment')}>
              <Textarea value={comment} rows={4} maxLength={4000} onChange={(_, d) => setComment(d.value)} textarea={{ 'data-testid': 'manage-comment' } as object} />
            </Field>
          </div>
        </DrawerBody>
        <DrawerFooter>
          <Button type="submit" appearance="primary" disabledFocusable={busy || draft.name?.trim() === ''} data-testid="manage-save">{t('action.save')}</Button>
          <Button onClick={close}>{t('action.cancel')}</Button>
        </DrawerFooter>
      </form>
    </OverlayDrawer>
  )
}
