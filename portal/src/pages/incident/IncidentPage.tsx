import { Button, makeStyles, Tab, TabList, Text, tokens } from '@fluentui/react-components'
import { EditRegular } from '@fluentui/react-icons/svg/edit'
import { lazy, Suspense, useState } from 'react'
import { useTranslation } from 'react-i18next'
import { useNavigate, useParams } from 'react-router'
import { changeIncident, commentOn, getIncidentStory, type IncidentChange } from '../../api/incidents'
import type { IncidentStatus } from '../../api/types'
import { useData } from '../../api/use'
import { useMay } from '../../app/session'
import { useNotify } from '../../app/toast'
import { useFormat, useName, useTitle } from '../../i18n/names'
import { useAlertColumns } from '../../ui/alertColumns'
import { Columns } from '../../ui/Columns'
import { Comments } from '../../ui/Comments'
import { useEffectsText } from '../../ui/effects'
import { Facts } from '../../ui/Facts'
import { useFilter } from '../../ui/Filters'
import { Moment, Severity } from '../../ui/marks'
import { Page } from '../../ui/Page'
import { Panel } from '../../ui/Panel'
import { Failure, Loading } from '../../ui/states'
import { StatusSelect } from '../../ui/StatusSelect'
import { Table } from '../../ui/Table'
import { Evidence } from '../alert/Evidence'
import { Activities } from './Activities'
import { Assets } from './Assets'
import { Story } from './Story'

const Manage = lazy(() => import('../../ui/Manage'))

const useStyles = makeStyles({
  facts: { display: 'flex', flexWrap: 'wrap', alignItems: 'center', gap: `${tokens.spacingVerticalXS} ${tokens.spacingHorizontalXL}`, marginTop: tokens.spacingVerticalS, color: tokens.colorNeutralForeground2 },
  tabs: { marginLeft: '-12px', flexShrink: 0 },
  panel: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalL, flexGrow: 1, minHeight: 0 },
  dim: { color: tokens.colorNeutralForeground3 },
})

const statuses: IncidentStatus[] = ['Active', 'InProgress', 'Resolved']
const tabs = ['story', 'alerts', 'activities', 'assets', 'evidence'] as const

export default function IncidentPage() {
  const styles = useStyles()
  const { t } = useTranslation()
  const { id = '' } = useParams()
  const name = useName()
  const title = useTitle()
  const format = useFormat()
  const navigate = useNavigate()
  const notify = useNotify()
  const effectsText = useEffectsText()
  const may = useMay('alerts.triage')
  const columns = useAlertColumns({ narrow: true })
  const [tab, setTab] = useFilter('tab')
  const [managing, setManaging] = useState(false)
  const { data: incident, error, reload } = useData(`incident ${id}`, (signal) => getIncidentStory(id, signal), [`incident:${id}`, 'alert'], 500)
  const crumbs = [{ to: '/incidents', label: t('nav.incidents') }]
  if (!incident) {
    return <Page title={t('incident.one')} crumbs={crumbs}>{error ? <Failure error={error} retry={reload} /> : <Loading />}</Page>
  }
  const current = tabs.find((n) => n === tab) ?? 'story'
  const alerts = incident.alertItems ?? []
  const evidence = incident.evidence ?? []
  const comments = incident.comments ?? []
  const labels = {
    story: t('incident.story'), alerts: t('incident.alertsCount', { number: format.number(alerts.length) }), activities: t('incident.activities'),
    assets: t('incident.assets'), evidence: t('incident.evidenceCount', { number: format.number(evidence.length) }),
  }
  const classified = incident.classification && incident.classification !== 'NotSet'
  return (
    <Page
      title={title(incident.name)} crumbs={crumbs}
      subtitle={(
        <div className={styles.facts}>
          <Severity value={incident.severity} testid="incident-severity" />
          <span>{t('incident.numbered', { id: incident.id })}</span>
          <span data-testid="incident-assignee">{incident.assignee ? t('incident.assignedTo', { name: incident.assignee }) : t('incident.unassigned')}</span>
          {classified && <span data-testid="incident-classification">{[name('classification', incident.classification), name('determination', incident.determination)].filter((part) => part !== '').join(' · ')}</span>}
          <span>{t('incident.lastActivity')} <Moment time={incident.lastActivity} /></span>
        </div>
      )}
      actions={(
        <>
          <StatusSelect
            value={incident.status} values={statuses} nameOf={(s) => name('incidentStatus', s)} testid="incident-status"
            change={(status) => changeIncident(id, { status }).finally(reload)}
          />
          <Button icon={<EditRegular />} disabled={!may} onClick={() => setManaging(true)} data-testid="manage">{t('manage.incident')}</Button>
        </>
      )}
    >
      <TabList className={styles.tabs} selectedValue={current} onTabSelect={(_, d) => setTab(d.value === 'story' ? '' : String(d.value))}>
        {tabs.map((n) => <Tab key={n} value={n} id={`tab-${n}`} aria-controls="tab-panel" data-testid={`tab-${n}`}>{labels[n]}</Tab>)}
      </TabList>
      <div id="tab-panel" role="tabpanel" aria-labelledby={`tab-${current}`} className={styles.panel}>
        {current === 'story' && <Story incident={incident} />}
        {current === 'alerts' && (
          <Columns
            main={(
              <Panel title={t('incident.alerts')}>
                <Table compact label={t('incident.alerts')} columns={columns} items={alerts} rowId={(a) => a.id} rowTestid="alert-row" open={(a) => void navigate(`/alerts/${a.id}`)} />
              </Panel>
            )}
            side={(
              <Panel title={t('incident.summary')}>
                <Facts
                  narrow
                  facts={[
                    { label: t('incident.activeAlerts'), value: t('incident.ofAlerts', { active: format.number(incident.alerts.active), total: format.number(incident.alerts.total) }) },
                    { label: t('incident.categories'), value: format.list((incident.categories ?? []).map((c) => name('category', c))) },
                    { label: t('incident.sources'), value: format.list((incident.detectionSources ?? []).map((s) => name('detectionSource', s))) },
                    { label: t('incident.firstActivity'), value: <Moment time={incident.firstActivity} /> },
                    { label: t('incident.lastActivity'), value: <Moment time={incident.lastActivity} /> },
                    { label: t('incident.created'), value: <Moment time={incident.createdAt} /> },
                  ]}
                />
              </Panel>
            )}
          />
        )}
        {current === 'activities' && (
          <Columns
            main={<Activities items={incident.activity ?? []} />}
            side={<Comments items={comments} add={(text) => commentOn('incidents', id, text).then(reload)} />}
          />
        )}
        {current === 'assets' && <Assets incident={incident} />}
        {current === 'evidence' && (
          <Panel title={t('alert.evidence')}>
            {evidence.length === 0 ? <Text className={styles.dim}>{t('alert.noEvidence')}</Text> : <Evidence items={evidence} />}
          </Panel>
        )}
      </div>
      {managing && (
        <Suspense>
          <Manage
            title={t('manage.incident')} statuses={statuses} statusName={(s) => name('incidentStatus', s)} close={() => setManaging(false)}
            value={{
              name: title(incident.name), severity: incident.severity, status: incident.status, assignee: incident.assignee ?? '',
              classification: incident.classification || 'NotSet', determination: incident.determination === 'NotSet' ? '' : incident.determination ?? '',
            }}
            save={async (change, comment) => {
              let effects = ''
              if (Object.keys(change).length > 0) {
                // What somebody else changed meanwhile is not overwritten unseen.
                const seen: Record<string, string | undefined> = { name: incident.name, severity: incident.severity, status: incident.status, assignee: incident.assignee, classification: incident.classification, determination: incident.determination }
                const was = Object.fromEntries(Object.keys(change).map((field) => [field, seen[field] ?? '']))
                effects = effectsText((await changeIncident(id, { ...(change as IncidentChange), was })).effects)
              }
              if (comment !== '') await commentOn('incidents', id, comment)
              reload()
              notify('success', t('manage.saved'), effects)
            }}
          />
        </Suspense>
      )}
    </Page>
  )
}
