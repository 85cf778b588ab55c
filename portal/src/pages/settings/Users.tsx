import {
  Button, Dialog, DialogActions, DialogBody, DialogContent, DialogSurface, DialogTitle, Field, Input, makeStyles, MessageBar, MessageBarBody, Select, Text, tokens,
} from '@fluentui/react-components'
import { AddRegular } from '@fluentui/react-icons/svg/add'
import { useState, type FormEvent } from 'react'
import { useTranslation } from 'react-i18next'
import { changeUser, createUser, deleteUser, listUsers, type Role, type User } from '../../api/administration'
import { useData } from '../../api/use'
import { useSession } from '../../app/session'
import { useNotify } from '../../app/toast'
import { useName } from '../../i18n/names'
import { Ago, Status } from '../../ui/marks'
import { Page } from '../../ui/Page'
import { Panel } from '../../ui/Panel'
import { PlainTable } from '../../ui/PlainTable'
import { Failure, Loading, useErrorText } from '../../ui/states'
import { Confirm } from '../environment/Confirm'
import { AdminsOnly } from './AdminsOnly'
import { SecretShown } from './SecretShown'

const useStyles = makeStyles({
  content: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalL },
  dim: { color: tokens.colorNeutralForeground3 },
  acts: { display: 'flex', gap: tokens.spacingHorizontalXS },
})

const roles: Role[] = ['reader', 'operator', 'admin']

export default function Users() {
  const { t } = useTranslation()
  return <AdminsOnly permission="users.manage" title={t('nav.users')}><UserList /></AdminsOnly>
}

function UserList() {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const notify = useNotify()
  const errorText = useErrorText()
  const me = useSession().user
  const { data, error, reload } = useData('users', listUsers)
  const [creating, setCreating] = useState(false)
  const [shown, setShown] = useState<User>()
  const [resetting, setResetting] = useState<User>()
  const [deleting, setDeleting] = useState<User>()

  const failed = (e: unknown) => notify('error', t('users.failed'), errorText(e))
  const setRole = (user: User, role: Role) => changeUser(user.id, { role }).then(() => notify('success', t('users.roleChanged', { name: user.name, role: name('userRole', role) })), failed).finally(reload)
  const reset = (user: User) => {
    setResetting(undefined)
    changeUser(user.id, { resetPassword: true }).then(setShown, failed).finally(reload)
  }
  const remove = (user: User) => {
    setDeleting(undefined)
    deleteUser(user.id).then(() => notify('success', t('users.deleted', { name: user.name })), failed).finally(reload)
  }
  return (
    <Page
      title={t('nav.users')} subtitle={t('users.intro')}
      actions={<Button appearance="primary" icon={<AddRegular />} onClick={() => setCreating(true)} data-testid="user-create">{t('users.create')}</Button>}
    >
      <Panel title={t('users.people')}>
        {!data ? (error ? <Failure error={error} retry={reload} /> : <Loading />) : (
          <PlainTable
            label={t('nav.users')} items={data.items} rowId={(u) => u.id} rowTestid="user-row"
            columns={[
              { id: 'name', header: t('users.name'), cell: (u) => (u.id === me.id ? t('users.you', { name: u.name }) : u.name) },
              {
                id: 'role', header: t('users.role'), tight: true, cell: (u) => (
                  <Select size="small" value={u.role} disabled={u.id === me.id} aria-label={t('users.roleOf', { name: u.name })} data-testid={`role-${u.name}`} onChange={(_, d) => void setRole(u, d.value as Role)}>
                    {roles.map((role) => <option key={role} value={role}>{name('userRole', role)}</option>)}
                  </Select>
                ),
              },
              { id: 'state', header: t('users.state'), tight: true, cell: (u) => (u.mustChangePassword ? <Status tone="warn">{t('users.oneTime')}</Status> : <Status tone="good">{t('users.active')}</Status>) },
              { id: 'last', header: t('users.lastSignIn'), tight: true, cell: (u) => (u.lastSignIn ? <Ago time={u.lastSignIn} /> : <span className={styles.dim}>{t('users.never')}</span>) },
              { id: 'created', header: t('users.created'), tight: true, cell: (u) => <Ago time={u.createdAt} /> },
              {
                id: 'acts', header: t('users.action'), tight: true, cell: (u) => (
                  <span className={styles.acts}>
                    <Button size="small" onClick={() => setResetting(u)} disabled={u.id === me.id} data-testid="user-reset">{t('users.reset')}</Button>
                    <Button size="small" onClick={() => setDeleting(u)} disabled={u.id === me.id} data-testid="user-delete">{t('users.delete')}</Button>
                  </span>
                ),
              },
            ]}
          />
        )}
      </Panel>
      <Panel title={t('users.roles')}>
        <PlainTable
          label={t('users.roles')} items={roles} rowId={(role) => role}
          columns={[{ id: 'role', header: t('users.role'), tight: true, cell: (role) => name('userRole', role) }, { id: 'may', header: t('users.may'), cell: (role) => name('roleAbout', role) }]}
        />
      </Panel>
      {creating && <NewUser close={() => setCreating(false)} created={(user) => { setCreating(false); setShown(user); reload() }} />}
      {shown?.oneTimePassword && <SecretShown title={t('users.passwordOf', { name: shown.name })} warning={t('users.once')} label={t('users.password')} secret={shown.oneTimePassword} close={() => setShown(undefined)} />}
      {resetting && <Confirm title={t('users.resetTitle', { name: resetting.name })} text={t('users.resetText')} act={t('users.reset')} confirm={() => reset(resetting)} close={() => setResetting(undefined)} />}
      {deleting && <Confirm title={t('users.deleteTitle', { name: deleting.name })} text={t('users.deleteText')} act={t('users.delete')} confirm={() => remove(deleting)} close={() => setDeleting(undefined)} />}
    </Page>
  )
}

function NewUser({ close, created }: { close: () => void; created: (user: User) => void }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const words = useName()
  const errorText = useErrorText()
  const [name, setName] = useState('')
  const [role, setRole] = useState<Role>('reader')
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState<unknown>()
  const submit = (event: FormEvent) => {
    event.preventDefault()
    if (busy) return
    setBusy(true)
    setError(undefined)
    createUser({ name: name.trim(), role }).then(created, (e: unknown) => {
      setError(e)
      setBusy(false)
    })
  }
  return (
    <Dialog open onOpenChange={(_, d) => !d.open && close()}>
      <DialogSurface data-testid="user-dialog">
        <form onSubmit={submit}>
          <DialogBody>
            <DialogTitle>{t('users.create')}</DialogTitle>
            <DialogContent className={styles.content}>
              {error !== undefined && <MessageBar intent="error" layout="multiline" role="alert"><MessageBarBody>{errorText(error)}</MessageBarBody></MessageBar>}
              <Field label={t('users.name')} hint={t('users.nameHint')} required><Input value={name} maxLength={64} autoFocus onChange={(_, d) => setName(d.value)} input={{ 'data-testid': 'user-name' } as object} /></Field>
              <Field label={t('users.role')}>
                <Select value={role} onChange={(_, d) => setRole(d.value as Role)} data-testid="user-role">{roles.map((r) => <option key={r} value={r}>{words('userRole', r)}</option>)}</Select>
              </Field>
              <Text className={styles.dim}>{words('roleAbout', role)}</Text>
            </DialogContent>
            <DialogActions>
              <Button type="submit" appearance="primary" disabledFocusable={busy || name.trim().length < 2} data-testid="user-save">{t('action.create')}</Button>
              <Button onClick={close}>{t('action.cancel')}</Button>
            </DialogActions>
          </DialogBody>
        </form>
      </DialogSurface>
    </Dialog>
  )
}
