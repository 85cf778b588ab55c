import { Button, DrawerBody, DrawerHeader, DrawerHeaderTitle, makeStyles, OverlayDrawer, tokens } from '@fluentui/react-components'
import { DismissRegular } from '@fluentui/react-icons/svg/dismiss'
import { HistoryRegular } from '@fluentui/react-icons/svg/history'
import { useState } from 'react'
import { useTranslation } from 'react-i18next'
import { listAudit, type AuditEntry } from '../../api/administration'
import { usePaged } from '../../api/use'
import { useFormat, useName } from '../../i18n/names'
import { Facts } from '../../ui/Facts'
import { FilterBar, SearchFilter, SelectFilter, useFilter } from '../../ui/Filters'
import { RouteLink } from '../../ui/links'
import { Moment } from '../../ui/marks'
import { Page } from '../../ui/Page'
import { PagedTable } from '../../ui/PagedTable'
import { Empty } from '../../ui/states'
import type { Column } from '../../ui/Table'
import { AdminsOnly } from './AdminsOnly'

const useStyles = makeStyles({
  body: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalL, paddingBottom: tokens.spacingVerticalXXL },
  detail: { margin: 0, padding: tokens.spacingHorizontalM, backgroundColor: tokens.colorNeutralBackground3, borderRadius: tokens.borderRadiusMedium, fontFamily: tokens.fontFamilyMonospace, fontSize: tokens.fontSizeBase200, whiteSpace: 'pre-wrap', overflowWrap: 'anywhere' },
})

export default function Audit() {
  const { t } = useTranslation()
  return <AdminsOnly permission="audit.read" title={t('nav.audit')}><Log /></AdminsOnly>
}

/** Where a target has a page of its own. */
function pageOf(entry: AuditEntry): string | undefined {
  const { id } = entry.target
  if (id === '') return undefined
  switch (entry.action.split('.')[0]) {
    case 'device': return `/devices/${id}`
    case 'incident': return `/incidents/${id}`
    case 'alert': return `/alerts/${id}`
    case 'policy': return entry.action === 'policy.delete' ? undefined : `/policies/${id}`
    case 'plan':
    case 'environment': return `/environments/${id}`
  }
  return undefined
}

function TargetName({ entry }: { entry: AuditEntry }) {
  const to = pageOf(entry)
  const text = entry.target.name || entry.target.id
  return to ? <RouteLink to={to}>{text}</RouteLink> : <>{text}</>
}

function Log() {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const format = useFormat()
  const [actor, setActor] = useFilter('actor')
  const [action, setAction] = useFilter('action')
  const [target, setTarget] = useFilter('target')
  const [open, setOpen] = useState<AuditEntry>()
  const list = usePaged(`audit ${actor} ${action} ${target}`, (page, signal) => listAudit({ actor, action, target, ...page }, signal), ['policy', 'plan', 'group', 'notification', 'incident', 'alert'], true)
  const columns: Column<AuditEntry>[] = [
    { id: 'time', header: t('audit.time'), min: 190, cell: (e) => <Moment time={e.time} /> },
    { id: 'actor', header: t('audit.actor'), min: 150, grow: 1, cell: (e) => e.actor.name || name('actorKind', e.actor.kind) },
    { id: 'action', header: t('audit.action'), min: 210, grow: 2, cell: (e) => name('auditAction', e.action) },
    { id: 'target', header: t('audit.target'), min: 180, grow: 2, cell: (e) => <TargetName entry={e} /> },
    { id: 'address', header: t('audit.address'), min: 130, cell: (e) => e.actor.address },
    { id: 'detail', header: t('audit.detail'), min: 100, cell: (e) => <Button size="small" appearance="subtle" onClick={() => setOpen(e)} data-testid="audit-open">{t('audit.show')}</Button> },
  ]
  return (
    <Page title={t('nav.audit')} subtitle={t('audit.intro')} fill>
      <FilterBar count={list.loading ? undefined : t('list.count', { count: list.total, number: format.number(list.total) })}>
        <SearchFilter label={t('audit.byActor')} value={actor} set={setActor} testid="audit-actor" />
        <SelectFilter label={t('audit.action')} value={action} set={setAction} all={t('list.all')} choices={actions.map((a) => ({ value: a, label: name('auditAction', a) }))} />
        {target !== '' && <Button onClick={() => setTarget('')} icon={<DismissRegular />} iconPosition="after">{t('audit.onlyTarget', { id: target })}</Button>}
      </FilterBar>
      <PagedTable label={t('nav.audit')} columns={columns} list={list} rowTestid="audit-row" empty={<Empty icon={<HistoryRegular />} title={t('list.noMatch')}>{t('list.noMatchText')}</Empty>} />
      <OverlayDrawer open={open !== undefined} position="end" size="medium" onOpenChange={(_, d) => !d.open && setOpen(undefined)} data-testid="audit-panel">
        {open && (
          <>
            <DrawerHeader><DrawerHeaderTitle action={<Button appearance="subtle" icon={<DismissRegular />} aria-label={t('action.close')} onClick={() => setOpen(undefined)} />}>{name('auditAction', open.action)}</DrawerHeaderTitle></DrawerHeader>
            <DrawerBody className={styles.body}>
              <Facts narrow facts={[
                { label: t('audit.time'), value: <Moment time={open.time} /> },
                { label: t('audit.actor'), value: `${open.actor.name} (${name('actorKind', open.actor.kind)})` },
                { label: t('audit.address'), value: open.actor.address },
                { label: t('audit.target'), value: <TargetName entry={open} /> },
                { label: t('audit.id'), value: open.target.id },
              ]}
              />
              <pre className={styles.detail} tabIndex={0}>{JSON.stringify(open.detail, null, 2)}</pre>
              {open.target.id !== '' && <div><Button onClick={() => { setTarget(open.target.id); setOpen(undefined) }}>{t('audit.sameTarget')}</Button></div>}
            </DrawerBody>
          </>
        )}
      </OverlayDrawer>
    </Page>
  )
}

/** What can be asked for; the log may hold more. */
const actions = [
  'session.create', 'user.create', 'user.change', 'user.reset_password', 'user.change_password', 'user.delete', 'token.create', 'token.delete', 'plan.change', 'environment.create', 'environment.rename', 'environment.delete', 'join_token.create', 'join_token.revoke',
  'onboarding.change', 'machine.change', 'machine.deploy', 'machine.offboard', 'machine.leave', 'machine.link', 'machine.merge', 'machine.delete', 'machine.expire', 'connector.create', 'connector.change', 'connector.test', 'connector.accept_host_key', 'connector.delete',
  'upgrade.change', 'upgrade.halt', 'upgrade.resume', 'upgrade.rollback',
  'device.revoke', 'device.leave', 'device.expire', 'device.detection_test', 'policy.create', 'policy.change', 'policy.delete', 'device_group.create', 'device_group.change', 'device_group.delete', 'alert.change', 'alert.comment', 'incident.change', 'incident.comment',
  'notification.create', 'notification.change', 'notification.delete', 'notification.test', 'backup.make', 'ca.rotate', 'ca.finish', 'content.add', 'content.remove', 'content.export', 'content.rotate',
]
