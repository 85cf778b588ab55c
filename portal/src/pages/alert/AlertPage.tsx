import { Button, makeStyles, MessageBar, MessageBarBody, Text, tokens } from '@fluentui/react-components'
import { EditRegular } from '@fluentui/react-icons/svg/edit'
import { lazy, Suspense, useMemo, useState } from 'react'
import { useTranslation } from 'react-i18next'
import { useParams } from 'react-router'
import { changeAlert, commentOn, getAlertStory, type AlertChange } from '../../api/incidents'
import type { AlertStatus, DeviceEvent } from '../../api/types'
import { useData } from '../../api/use'
import { useMay } from '../../app/session'
import { useNotify } from '../../app/toast'
import { useFormat, useName, useTitle } from '../../i18n/names'
import { useSummary } from '../../i18n/summary'
import { Columns } from '../../ui/Columns'
import { Comments } from '../../ui/Comments'
import { useEventColumns } from '../../ui/eventColumns'
import { EventPanel } from '../../ui/EventPanel'
import { useEffectsText } from '../../ui/effects'
import { Facts } from '../../ui/Facts'
import { RouteLink } from '../../ui/links'
import { Moment, Severity, Status } from '../../ui/marks'
import { Page } from '../../ui/Page'
import { Panel } from '../../ui/Panel'
import { buildTree, rowsOf } from '../../ui/processes'
import { ProcessFacts } from '../../ui/ProcessFacts'
import { Failure, Loading } from '../../ui/states'
import { StatusSelect } from '../../ui/StatusSelect'
import { Table } from '../../ui/Table'
import { Evidence } from './Evidence'
import { ProcessTree } from './ProcessTree'
import { Rule } from './Rule'

const Manage = lazy(() => import('../../ui/Manage'))

const useStyles = makeStyles({
  steps: { margin: 0, paddingLeft: '20px', display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalS },
  none: { color: tokens.colorNeutralForeground3 },
})

const statuses: AlertStatus[] = ['New', 'InProgress', 'Resolved']
const settled = ['blocked', 'quarantined', 'removed']

export default function AlertPage() {
  const styles = useStyles()
  const { t } = useTranslation()
  const { id = '' } = useParams()
  const name = useName()
  const title = useTitle()
  const summary = useSummary()
  const format = useFormat()
  const [chosen, setChosen] = useState('')
  const [event, setEvent] = useState<DeviceEvent>()
  const [managing, setManaging] = useState(false)
  const may = useMay('alerts.triage')
  const notify = useNotify()
  const effectsText = useEffectsText()
  const columns = useEventColumns(setEvent)
  const { data: alert, error, reload } = useData(`alert ${id}`, (signal) => getAlertStory(id, signal), [`alert:${id}`, 'incident'])
  const roots = useMemo(() => buildTree(alert?.tree ?? []), [alert?.tree])
  const crumbs = [{ to: '/alerts', label: t('nav.alerts') }]
  if (!alert) {
    return <Page title={t('alert.one')} crumbs={crumbs}>{error ? <Failure error={error} retry={reload} /> : <Loading />}</Page>
  }
  const nodes = rowsOf(roots, new Set())
  const selected = nodes.find((n) => n.id === chosen) ?? nodes.find((n) => n.part === 'acting')
  const events = alert.events ?? []
  const evidence = alert.evidence ?? []
  const actions = alert.recommendedActions ?? []
  return (
    <Page
      title={title(alert.title)}
      crumbs={[...crumbs, ...(alert.incidentId ? [{ to: `/incidents/${alert.incidentId}`, label: t('alert.ofIncident', { id: alert.incidentId }) }] : [])]}
      actions={(
        <>
          <StatusSelect
            value={alert.status} values={statuses} nameOf={(s) => name('alertStatus', s)} testid="alert-status"
            change={(status) => changeAlert(id, { status }).finally(reload)}
          />
          <Button icon={<EditRegular />} disabled={!may} onClick={() => setManaging(true)} data-testid="manage">{t('manage.alert')}</Button>
        </>
      )}
    >
      {alert.test && <MessageBar data-testid="alert-test"><MessageBarBody>{t('alert.test')}</MessageBarBody></MessageBar>}
      <Columns
        main={(
          <>
            <Panel title={t('alert.happened')}>
              <Text data-testid="alert-summary">{summary(alert.summary)}</Text>
              <Facts facts={[
                { label: t('alert.threat'), value: alert.threatName, testid: 'alert-threat' },
                { label: t('alert.state'), value: alert.state && <Status tone={settled.includes(alert.state) ? 'good' : 'warn'} testid="alert-state">{name('threatState', alert.state)}</Status> },
                { label: t('alert.device'), value: <RouteLink to={`/devices/${alert.device.id}`} data-testid="alert-device">{alert.device.name}</RouteLink> },
                { label: t('alert.incident'), value: alert.incidentId && <RouteLink to={`/incidents/${alert.incidentId}`} data-testid="alert-incident">{t('alert.incidentId', { id: alert.incidentId })}</RouteLink> },
                { label: t('alert.firstActivity'), value: <Moment time={alert.firstActivity} /> },
                { label: t('alert.lastActivity'), value: <Moment time={alert.lastActivity} /> },
              ]}
              />
            </Panel>
            {alert.state && (
              <Panel title={t('alert.actions')}>
                <Status tone={settled.includes(alert.state) ? 'good' : 'warn'} testid="alert-action">{name('actionTaken', alert.state)}</Status>
              </Panel>
            )}
            <Panel title={t('alert.tree')}>
              {nodes.length === 0 ? <Text className={styles.none}>{t('alert.noTree')}</Text>
                : <ProcessTree roots={roots} selected={selected?.id ?? ''} select={(n) => setChosen(n.id)} />}
            </Panel>
            <Panel title={t('alert.evidence')}>
              {evidence.length === 0 ? <Text className={styles.none}>{t('alert.noEvidence')}</Text> : <Evidence items={evidence} />}
            </Panel>
            <Rule alert={alert} />
            <Panel title={t('alert.events')} actions={<RouteLink to={`/devices/${alert.device.id}?tab=timeline&at=${encodeURIComponent(alert.lastActivity)}`} data-testid="alert-timeline">{t('alert.inTimeline')}</RouteLink>}>
              {events.length === 0 ? <Text className={styles.none}>{t('alert.noEvents')}</Text>
                : <Table compact label={t('alert.events')} columns={columns} items={events} rowId={(e) => e.id} rowTestid="event-row" open={setEvent} />}
            </Panel>
          </>
        )}
        side={(
          <>
            {selected && <Panel title={t('alert.process')}><ProcessFacts process={selected.process} narrow /></Panel>}
            <Panel title={t('alert.details')}>
              <Facts
                narrow
                facts={[
                  { label: t('alert.severity'), value: <Severity value={alert.severity} testid="alert-severity" /> },
                  { label: t('alert.status'), value: name('alertStatus', alert.status) },
                  { label: t('manage.assignee'), value: alert.assignee || t('manage.nobody'), testid: 'alert-assignee' },
                  { label: t('manage.classification'), value: [name('classification', alert.classification || 'NotSet'), alert.determination === 'NotSet' ? '' : name('determination', alert.determination)].filter((part) => part !== '').join(' · '), testid: 'alert-classification' },
                  { label: t('alert.category'), value: name('category', alert.category) },
                  { label: t('alert.techniques'), value: format.list(alert.techniques ?? []) },
                  { label: t('alert.source'), value: name('detectionSource', alert.detectionSource) },
                  { label: t('alert.occurrences'), value: alert.occurrences && alert.occurrences > 1 ? format.number(alert.occurrences) : '' },
                  { label: t('alert.id'), value: alert.id },
                ]}
              />
            </Panel>
            {actions.length > 0 && (
              <Panel title={t('alert.recommended')}>
                <ol className={styles.steps}>{actions.map((a) => <li key={a}>{name('advice', a)}</li>)}</ol>
              </Panel>
            )}
            <Comments items={alert.comments ?? []} add={(text) => commentOn('alerts', id, text).then(reload)} />
          </>
        )}
      />
      <EventPanel event={event} close={() => setEvent(undefined)} />
      {managing && (
        <Suspense>
          <Manage
            title={t('manage.alert')} statuses={statuses} statusName={(s) => name('alertStatus', s)} close={() => setManaging(false)}
            value={{ status: alert.status, assignee: alert.assignee ?? '', classification: alert.classification || 'NotSet', determination: alert.determination === 'NotSet' ? '' : alert.determination ?? '' }}
            save={async (change, comment) => {
              let effects = ''
              if (Object.keys(change).length > 0) {
                // What somebody else changed meanwhile is not overwritten unseen.
                const seen: Record<string, string | undefined> = { status: alert.status, assignee: alert.assignee, classification: alert.classification, determination: alert.determination }
                const was = Object.fromEntries(Object.keys(change).map((field) => [field, seen[field] ?? '']))
                effects = effectsText((await changeAlert(id, { ...(change as AlertChange), was })).effects)
              }
              if (comment !== '') await commentOn('alerts', id, comment)
              reload()
              notify('success', t('manage.saved'), effects)
            }}
          />
        </Suspense>
      )}
    </Page>
  )
}
