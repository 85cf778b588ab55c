import { makeStyles, MessageBar, MessageBarBody, Text, tokens } from '@fluentui/react-components'
import { useMemo, useState } from 'react'
import { useTranslation } from 'react-i18next'
import { useParams } from 'react-router'
import { getAlert, setAlertStatus } from '../../api/calls'
import type { AlertStatus, DeviceEvent } from '../../api/types'
import { useData } from '../../api/use'
import { useFormat, useName, useTitle } from '../../i18n/names'
import { useSummary } from '../../i18n/summary'
import { Columns } from '../../ui/Columns'
import { useEventColumns } from '../../ui/eventColumns'
import { EventPanel } from '../../ui/EventPanel'
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
  const columns = useEventColumns(setEvent)
  const { data: alert, error, reload } = useData(`alert ${id}`, (signal) => getAlert(id, signal), ['alert', 'incident'])
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
        <StatusSelect
          value={alert.status} values={statuses} nameOf={(s) => name('alertStatus', s)} testid="alert-status"
          change={(status) => setAlertStatus(id, status).finally(reload)}
        />
      )}
    >
      {alert.test && <MessageBar><MessageBarBody>{t('alert.test')}</MessageBarBody></MessageBar>}
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
            <Panel title={t('alert.tree')}>
              {nodes.length === 0 ? <Text className={styles.none}>{t('alert.noTree')}</Text>
                : <ProcessTree roots={roots} selected={selected?.id ?? ''} select={(n) => setChosen(n.id)} />}
            </Panel>
            <Panel title={t('alert.evidence')}>
              {evidence.length === 0 ? <Text className={styles.none}>{t('alert.noEvidence')}</Text> : <Evidence items={evidence} />}
            </Panel>
            <Panel title={t('alert.events')}>
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
                  { label: t('alert.category'), value: name('category', alert.category) },
                  { label: t('alert.techniques'), value: format.list(alert.techniques ?? []) },
                  { label: t('alert.source'), value: name('detectionSource', alert.detectionSource) },
                  { label: t('alert.rule'), value: alert.rule?.name && title(alert.rule.name), testid: 'alert-rule' },
                  { label: t('alert.ruleId'), value: alert.rule?.id },
                  { label: t('alert.ruleVersion'), value: alert.rule?.version },
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
          </>
        )}
      />
      <EventPanel event={event} close={() => setEvent(undefined)} />
    </Page>
  )
}
