import {
  Button, Dialog, DialogActions, DialogBody, DialogContent, DialogSurface, DialogTitle, Field, Input, makeStyles, MessageBar, MessageBarBody, Select, tokens,
} from '@fluentui/react-components'
import { useState, type FormEvent } from 'react'
import { useTranslation } from 'react-i18next'
import { createEnvironment, renameEnvironment } from '../../api/calls'
import { environmentKinds, type Environment, type EnvironmentKind } from '../../api/types'
import { useNotify } from '../../app/toast'
import { useName } from '../../i18n/names'
import { useErrorText } from '../../ui/states'

const useStyles = makeStyles({ content: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalL } })

interface Props {
  /** The one that gets another name; a new one when left out. */
  environment?: Environment
  saved: (environment: Environment) => void
  close: () => void
}

export function EnvironmentDialog({ environment: old, saved, close }: Props) {
  const styles = useStyles()
  const { t } = useTranslation()
  const words = useName()
  const notify = useNotify()
  const errorText = useErrorText()
  const [name, setName] = useState(old?.name ?? '')
  const [kind, setKind] = useState<EnvironmentKind>('onprem')
  const [externalId, setExternalId] = useState('')
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState<unknown>()
  const submit = (event: FormEvent) => {
    event.preventDefault()
    if (busy || name.trim() === '') return
    setBusy(true)
    setError(undefined)
    const call = old ? renameEnvironment(old.id, name.trim()) : createEnvironment({ name: name.trim(), kind, ...(kind !== 'onprem' && { externalId: externalId.trim() }) })
    call.then(
      (next) => {
        notify('success', old ? t('environment.renamed', { name: next.name }) : t('environment.createdText', { name: next.name }))
        saved(next)
      },
      (e: unknown) => {
        setError(e)
        setBusy(false)
      },
    )
  }
  const lacking = name.trim() === '' || (!old && kind !== 'onprem' && externalId.trim() === '')
  return (
    <Dialog open onOpenChange={(_, d) => !d.open && close()}>
      <DialogSurface data-testid="environment-dialog">
        <form onSubmit={submit}>
          <DialogBody>
            <DialogTitle>{old ? t('environment.renameTitle', { name: old.name }) : t('environment.create')}</DialogTitle>
            <DialogContent className={styles.content}>
              {error !== undefined && <MessageBar intent="error" layout="multiline" role="alert" data-testid="environment-error"><MessageBarBody>{errorText(error)}</MessageBarBody></MessageBar>}
              <Field label={t('environment.name')} required><Input value={name} maxLength={100} autoFocus onChange={(_, d) => setName(d.value)} input={{ 'data-testid': 'environment-name' } as object} /></Field>
              {!old && (
                <Field label={t('environment.kind')} hint={words('environmentKindAbout', kind)}>
                  <Select value={kind} onChange={(_, d) => setKind(d.value as EnvironmentKind)} data-testid="environment-kind">
                    {environmentKinds.map((k) => <option key={k} value={k}>{words('environmentKind', k)}</option>)}
                  </Select>
                </Field>
              )}
              {!old && kind !== 'onprem' && (
                <Field label={words('environmentExternalId', kind)} required>
                  <Input value={externalId} maxLength={200} onChange={(_, d) => setExternalId(d.value)} input={{ 'data-testid': 'environment-external' } as object} />
                </Field>
              )}
            </DialogContent>
            <DialogActions>
              <Button type="submit" appearance="primary" disabledFocusable={busy || lacking} data-testid="environment-save">{old ? t('action.save') : t('action.create')}</Button>
              <Button onClick={close}>{t('action.cancel')}</Button>
            </DialogActions>
          </DialogBody>
        </form>
      </DialogSurface>
    </Dialog>
  )
}
