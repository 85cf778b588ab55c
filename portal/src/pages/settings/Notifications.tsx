import { Button, makeStyles, Text, tokens } from '@fluentui/react-components'
import { AddRegular } from '@fluentui/react-icons/svg/add'
import { SendRegular } from '@fluentui/react-icons/svg/send'
import { useState } from 'react'
import { useTranslation } from 'react-i18next'
import { deleteNotification, listNotifications, testNotification, type Notification } from '../../api/administration'
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
import { NotificationDialog } from './NotificationDialog'

const useStyles = makeStyles({
  dim: { color: tokens.colorNeutralForeground3 },
  lines: { display: 'flex', flexDirection: 'column' },
  acts: { display: 'flex', gap: tokens.spacingHorizontalXS },
})

/** Who is told of alerts and incidents, and whether that works. */
export default function Notifications() {
  const { t } = useTranslation()
  return <AdminsOnly permission="notifications.manage" title={t('nav.notifications')}><NotificationList /></AdminsOnly>
}

const receiver = ({ target, kind }: Notification) => (kind === 'webhook' ? target.url : `${target.host}:${target.port}`)

function NotificationList() {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const notify = useNotify()
  const errorText = useErrorText()
  const { data, error, reload } = useData('notifications', listNotifications, ['notification', 'alert', 'incident'], 1_000)
  const [editing, setEditing] = useState<Notification | 'new'>()
  const [deleting, setDeleting] = useState<Notification>()
  const [testing, setTesting] = useState('')

  const failed = (e: unknown) => notify('error', t('notifications.failed'), errorText(e))
  const test = (n: Notification) => {
    setTesting(n.id)
    testNotification(n.id).then(
      (r) => (r.ok ? notify('success', t('notifications.testOk', { name: n.name, ms: r.durationMs }), r.detail) : notify('error', t('notifications.testFailed', { name: n.name }), r.detail)),
      failed,
    ).finally(() => { setTesting(''); reload() })
  }
  const remove = (n: Notification) => {
    setDeleting(undefined)
    deleteNotification(n.id).then(() => notify('success', t('notifications.deleted', { name: n.name })), failed).finally(reload)
  }
  const create = <Button appearance="primary" icon={<AddRegular />} onClick={() => setEditing('new')} data-testid="notification-create">{t('notifications.create')}</Button>
  return (
    <Page title={t('nav.notifications')} subtitle={t('notifications.intro')} actions={data && data.items.length > 0 ? create : undefined}>
      {!data ? (error ? <Failure error={error} retry={reload} /> : <Loading />)
        : data.items.length === 0 ? <Empty icon={<SendRegular />} title={t('notifications.none')} action={create}>{t('notifications.noneText')}</Empty>
          : (
            <Panel title={t('nav.notifications')}>
              <PlainTable
                label={t('nav.notifications')} items={data.items} rowId={(n) => n.id} rowTestid="notification-row"
                columns={[
                  { id: 'name', header: t('notifications.name'), cell: (n) => n.name },
                  { id: 'kind', header: t('notifications.kind'), tight: true, cell: (n) => name('notificationKind', n.kind) },
                  { id: 'to', header: t('notifications.to'), cell: (n) => <Text className={styles.dim}>{receiver(n)}</Text> },
                  { id: 'when', header: t('notifications.when'), cell: (n) => t('notifications.from', { severity: name('severity', n.minSeverity), on: n.on.map((on) => name('trigger', on)).join(t('policies.comma')) }) },
                  { id: 'state', header: t('notifications.state'), cell: (n) => <Delivery notification={n} /> },
                  {
                    id: 'acts', header: t('notifications.action'), tight: true, cell: (n) => (
                      <span className={styles.acts}>
                        <Button size="small" onClick={() => test(n)} disabledFocusable={testing !== ''} data-testid="notification-test">{testing === n.id ? t('notifications.testing') : t('notifications.test')}</Button>
                        <Button size="small" onClick={() => setEditing(n)} data-testid="notification-edit">{t('notifications.edit')}</Button>
                        <Button size="small" onClick={() => setDeleting(n)} data-testid="notification-delete">{t('notifications.delete')}</Button>
                      </span>
                    ),
                  },
                ]}
              />
            </Panel>
          )}
      {editing && <NotificationDialog notification={editing === 'new' ? undefined : editing} saved={() => { setEditing(undefined); reload() }} close={() => setEditing(undefined)} />}
      {deleting && <Confirm title={t('notifications.deleteTitle', { name: deleting.name })} text={t('notifications.deleteText')} act={t('notifications.delete')} confirm={() => remove(deleting)} close={() => setDeleting(undefined)} />}
    </Page>
  )
}

/** How deliveries go: the last one, and what did not arrive. */
function Delivery({ notification: n }: { notification: Notification }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const format = useFormat()
  if (!n.enabled) return <Status tone="neutral">{t('notifications.off')}</Status>
  const last = n.lastDelivery
  return (
    <span className={styles.lines}>
      {last === null ? <Status tone="neutral">{t('notifications.nothingYet')}</Status>
        : last.ok ? <Status tone="good" testid="notification-state">{t('notifications.delivered')} <Ago time={last.at} /></Status>
          : <Status tone="bad">{t('notifications.notDelivered')} <Ago time={last.at} /></Status>}
      {last && !last.ok && <Text size={200} className={styles.dim}>{last.detail}</Text>}
      {n.pending > 0 && <Text size={200}>{t('notifications.pending', { count: n.pending, number: format.number(n.pending) })}</Text>}
      {n.failed > 0 && <Text size={200} title={n.failedDetail}>{t('notifications.givenUp', { count: n.failed, number: format.number(n.failed) })}</Text>}
      {n.dropped > 0 && <Text size={200}>{t('notifications.dropped', { count: n.dropped, number: format.number(n.dropped) })}</Text>}
    </span>
  )
}
