import {
  Button, Dialog, DialogActions, DialogBody, DialogContent, DialogSurface, DialogTitle, Field, Input, makeStyles, MessageBar, MessageBarBody, Select, Text, tokens,
} from '@fluentui/react-components'
import { AddRegular } from '@fluentui/react-icons/svg/add'
import { KeyRegular } from '@fluentui/react-icons/svg/key'
import { useState, type FormEvent } from 'react'
import { useTranslation } from 'react-i18next'
import { createApiToken, deleteApiToken, listApiTokens, type ApiToken, type Role } from '../../api/administration'
import { useData } from '../../api/use'
import { useNotify } from '../../app/toast'
import { useFormat, useName } from '../../i18n/names'
import { Ago, Status } from '../../ui/marks'
import { Page } from '../../ui/Page'
import { Panel } from '../../ui/Panel'
import { PlainTable } from '../../ui/PlainTable'
import { Empty, Failure, Loading, useErrorText } from '../../ui/states'
import { Confirm } from '../environment/Confirm'
import { AdminsOnly } from './AdminsOnly'
import { SecretShown } from './SecretShown'

const useStyles = makeStyles({
  content: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalL },
  dim: { color: tokens.colorNeutralForeground3 },
})

export default function Tokens() {
  const { t } = useTranslation()
  return <AdminsOnly permission="tokens.manage" title={t('nav.tokens')}><TokenList /></AdminsOnly>
}

function TokenList() {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const format = useFormat()
  const notify = useNotify()
  const errorText = useErrorText()
  const { data, error, reload } = useData('api tokens', listApiTokens)
  const [creating, setCreating] = useState(false)
  const [shown, setShown] = useState<ApiToken>()
  const [deleting, setDeleting] = useState<ApiToken>()
  const remove = (token: ApiToken) => {
    setDeleting(undefined)
    deleteApiToken(token.id).then(() => notify('success', t('tokens.deleted', { label: token.label })), (e: unknown) => notify('error', t('tokens.failed'), errorText(e))).finally(reload)
  }
  const create = <Button appearance="primary" icon={<AddRegular />} onClick={() => setCreating(true)} data-testid="api-token-create">{t('tokens.create')}</Button>
  return (
    <Page title={t('nav.tokens')} subtitle={t('tokens.intro')} actions={data && data.items.length > 0 ? create : undefined}>
      {!data ? (error ? <Failure error={error} retry={reload} /> : <Loading />)
        : data.items.length === 0 ? <Empty icon={<KeyRegular />} title={t('tokens.none')} action={create}>{t('tokens.noneText')}</Empty>
          : (
            <Panel title={t('nav.tokens')}>
              <PlainTable
                label={t('nav.tokens')} items={data.items} rowId={(token) => token.id} rowTestid="api-token-row"
                columns={[
                  { id: 'label', header: t('tokens.label'), cell: (token) => token.label },
                  { id: 'role', header: t('users.role'), tight: true, cell: (token) => name('userRole', token.role) },
                  { id: 'by', header: t('tokens.by'), tight: true, cell: (token) => token.createdBy },
                  { id: 'used', header: t('tokens.lastUsed'), tight: true, cell: (token) => (token.lastUsed ? <Ago time={token.lastUsed} /> : <span className={styles.dim}>{t('users.never')}</span>) },
                  { id: 'expires', header: t('tokens.expires'), tight: true, cell: (token) => (Date.parse(token.expiresAt) < Date.now() ? <Status tone="neutral">{t('tokens.expired')}</Status> : <time dateTime={token.expiresAt}>{format.time(token.expiresAt)}</time>) },
                  { id: 'acts', header: t('users.action'), tight: true, cell: (token) => <Button size="small" onClick={() => setDeleting(token)} data-testid="api-token-delete">{t('tokens.delete')}</Button> },
                ]}
              />
            </Panel>
          )}
      {creating && <NewApiToken close={() => setCreating(false)} created={(token) => { setCreating(false); setShown(token); reload() }} />}
      {shown?.token && <SecretShown title={t('tokens.made', { label: shown.label })} warning={t('tokens.once')} label={t('tokens.token')} secret={shown.token} close={() => setShown(undefined)} />}
      {deleting && <Confirm title={t('tokens.deleteTitle', { label: deleting.label })} text={t('tokens.deleteText')} act={t('tokens.delete')} confirm={() => remove(deleting)} close={() => setDeleting(undefined)} />}
    </Page>
  )
}

const day = 86_400

function NewApiToken({ close, created }: { close: () => void; created: (token: ApiToken) => void }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const words = useName()
  const format = useFormat()
  const errorText = useErrorText()
  const [label, setLabel] = useState('')
  const [role, setRole] = useState<Role>('reader')
  const [days, setDays] = useState(90)
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState<unknown>()
  const submit = (event: FormEvent) => {
    event.preventDefault()
    if (busy) return
    setBusy(true)
    setError(undefined)
    createApiToken({ label: label.trim(), role, expiresInSeconds: days * day }).then(created, (e: unknown) => {
      setError(e)
      setBusy(false)
    })
  }
  return (
    <Dialog open onOpenChange={(_, d) => !d.open && close()}>
      <DialogSurface data-testid="api-token-dialog">
        <form onSubmit={submit}>
          <DialogBody>
            <DialogTitle>{t('tokens.create')}</DialogTitle>
            <DialogContent className={styles.content}>
              {error !== undefined && <MessageBar intent="error" layout="multiline" role="alert"><MessageBarBody>{errorText(error)}</MessageBarBody></MessageBar>}
              <Field label={t('tokens.label')} hint={t('tokens.labelHint')} required><Input value={label} maxLength={128} autoFocus onChange={(_, d) => setLabel(d.value)} input={{ 'data-testid': 'api-token-label' } as object} /></Field>
              <Field label={t('users.role')}><Select value={role} onChange={(_, d) => setRole(d.value as Role)} data-testid="api-token-role">{(['reader', 'operator', 'admin'] as const).map((r) => <option key={r} value={r}>{words('userRole', r)}</option>)}</Select></Field>
              <Text className={styles.dim}>{words('roleAbout', role)}</Text>
              <Field label={t('tokens.lasts')}><Select value={String(days)} onChange={(_, d) => setDays(Number(d.value))}>{[1, 7, 30, 90, 365].map((n) => <option key={n} value={n}>{t('tokens.days', { count: n, number: format.number(n) })}</option>)}</Select></Field>
            </DialogContent>
            <DialogActions>
              <Button type="submit" appearance="primary" disabledFocusable={busy || label.trim() === ''} data-testid="api-token-save">{t('action.create')}</Button>
              <Button onClick={close}>{t('action.cancel')}</Button>
            </DialogActions>
          </DialogBody>
        </form>
      </DialogSurface>
    </Dialog>
  )
}
