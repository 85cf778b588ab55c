import {
  Button, Dialog, DialogActions, DialogBody, DialogContent, DialogSurface, DialogTitle, Field, Input, makeStyles, MessageBar, MessageBarBody, Select, SpinButton, Textarea, tokens,
} from '@fluentui/react-components'
import { useState, type FormEvent } from 'react'
import { useTranslation } from 'react-i18next'
import { ApiError } from '../../api/client'
import { createGroup, saveGroup, type Group, type Match } from '../../api/policies'
import type { Environment } from '../../api/types'
import { useNotify } from '../../app/toast'
import { useErrorText } from '../../ui/states'

const useStyles = makeStyles({
  content: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalM },
  pair: { display: 'grid', gridTemplateColumns: '1fr 1fr', alignItems: 'start', gap: tokens.spacingHorizontalL },
})

interface Props {
  group?: Group
  environments: Environment[]
  saved: () => void
  close: () => void
}

/** Which devices a group is of. */
export function GroupDialog({ group, environments, saved, close }: Props) {
  const styles = useStyles()
  const { t } = useTranslation()
  const notify = useNotify()
  const errorText = useErrorText()
  const [name, setName] = useState(group?.name ?? '')
  const [rank, setRank] = useState(group?.rank ?? 100)
  const [match, setMatch] = useState<Match>(group?.match ?? {})
  const [tags, setTags] = useState(() => (group?.match.tags ?? []).map((tag) => `${tag.key}=${tag.value}`).join('\n'))
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState<unknown>()

  const submit = (event: FormEvent) => {
    event.preventDefault()
    if (busy) return
    setBusy(true)
    setError(undefined)
    const lines = tags.split('\n').map((line) => line.trim()).filter((line) => line !== '')
    const body = {
      name: name.trim(), rank,
      match: {
        ...(match.environment && { environment: match.environment }), ...(match.name && { name: match.name.trim() }), ...(match.osPlatform && { osPlatform: match.osPlatform }),
        ...(lines.length > 0 && { tags: lines.map((line) => ({ key: line.split('=')[0]!.trim(), value: line.slice(line.indexOf('=') + 1).trim() })) }),
      },
    }
    const call = group ? saveGroup(group.id, { ...body, version: group.version }) : createGroup(body)
    call.then(
      (next) => {
        notify('success', t('groups.saved', { name: next.name }))
        saved()
        close()
      },
      (e: unknown) => {
        setError(e)
        setBusy(false)
      },
    )
  }
  const conflict = group !== undefined && error instanceof ApiError && error.kind === 'conflict'
  return (
    <Dialog open onOpenChange={(_, d) => !d.open && close()}>
      <DialogSurface data-testid="group-dialog">
        <form onSubmit={submit}>
          <DialogBody>
            <DialogTitle>{group ? t('groups.editTitle', { name: group.name }) : t('groups.create')}</DialogTitle>
            <DialogContent className={styles.content}>
              {error !== undefined && <MessageBar intent="error" layout="multiline" role="alert" data-testid="group-error"><MessageBarBody>{conflict ? t('groups.conflict') : errorText(error)}</MessageBarBody></MessageBar>}
              <div className={styles.pair}>
                <Field label={t('policies.name')} required><Input value={name} maxLength={200} autoFocus onChange={(_, d) => setName(d.value)} input={{ 'data-testid': 'group-name' } as object} /></Field>
                <Field label={t('groups.rank')} hint={t('groups.rankHint')}>
                  <SpinButton value={rank} min={0} max={10_000} onChange={(_, d) => { const n = d.value ?? Number(d.displayValue); if (Number.isInteger(n)) setRank(Math.min(Math.max(n, 0), 10_000)) }} />
                </Field>
              </div>
              <Field label={t('groups.deviceName')} hint={t('groups.deviceNameHint')}><Input value={match.name ?? ''} maxLength={253} onChange={(_, d) => setMatch({ ...match, name: d.value })} input={{ 'data-testid': 'group-match' } as object} /></Field>
              <div className={styles.pair}>
                <Field label={t('groups.environment')}>
                  <Select value={match.environment ?? ''} onChange={(_, d) => setMatch({ ...match, environment: d.value })}>
                    <option value="">{t('list.all')}</option>
                    {environments.map((e) => <option key={e.id} value={e.id}>{e.name}</option>)}
                  </Select>
                </Field>
                <Field label={t('groups.os')}>
                  <Select value={match.osPlatform ?? ''} onChange={(_, d) => setMatch({ ...match, osPlatform: d.value })}>
                    <option value="">{t('list.all')}</option>
                    {['Linux', 'Windows'].map((os) => <option key={os} value={os}>{os}</option>)}
                  </Select>
                </Field>
              </div>
              <Field label={t('groups.tags')} hint={t('groups.tagsHint')}><Textarea value={tags} onChange={(_, d) => setTags(d.value)} /></Field>
            </DialogContent>
            <DialogActions>
              <Button type="submit" appearance="primary" disabledFocusable={busy || name.trim() === ''} data-testid="group-save">{t('action.save')}</Button>
              <Button onClick={close}>{t('action.cancel')}</Button>
            </DialogActions>
          </DialogBody>
        </form>
      </DialogSurface>
    </Dialog>
  )
}
