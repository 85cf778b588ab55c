import { makeStyles, tokens } from '@fluentui/react-components'
import { useTranslation } from 'react-i18next'
import { useNavigate, useParams } from 'react-router'
import { getIncident, setIncidentStatus } from '../api/calls'
import type { IncidentStatus } from '../api/types'
import { useData } from '../api/use'
import { useFormat, useName, useTitle } from '../i18n/names'
import { useAlertColumns } from '../ui/alertColumns'
import { Columns } from '../ui/Columns'
import { Facts } from '../ui/Facts'
import { RouteLink } from '../ui/links'
import { Moment, Severity } from '../ui/marks'
import { Page } from '../ui/Page'
import { Panel } from '../ui/Panel'
import { Failure, Loading } from '../ui/states'
import { StatusSelect } from '../ui/StatusSelect'
import { Table } from '../ui/Table'

const useStyles = makeStyles({
  devices: { listStyleType: 'none', margin: 0, padding: 0, display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalS },
})

const statuses: IncidentStatus[] = ['Active', 'InProgress', 'Resolved']

export default function IncidentPage() {
  const styles = useStyles()
  const { t } = useTranslation()
  const { id = '' } = useParams()
  const name = useName()
  const title = useTitle()
  const format = useFormat()
  const navigate = useNavigate()
  const columns = useAlertColumns({ narrow: true })
  const { data: incident, error, reload } = useData(`incident ${id}`, (signal) => getIncident(id, signal), ['incident', 'alert'])
  const crumbs = [{ to: '/incidents', label: t('nav.incidents') }]
  if (!incident) {
    return <Page title={t('incident.one')} crumbs={crumbs}>{error ? <Failure error={error} retry={reload} /> : <Loading />}</Page>
  }
  const devices = incident.devices ?? []
  return (
    <Page
      title={title(incident.name)} crumbs={crumbs}
      actions={(
        <StatusSelect
          value={incident.status} values={statuses} nameOf={(s) => name('incidentStatus', s)} testid="incident-status"
          change={(status) => setIncidentStatus(id, status).finally(reload)}
        />
      )}
    >
      <Columns
        main={(
          <Panel title={t('incident.alerts')}>
            <Table
              compact label={t('incident.alerts')} columns={columns} items={incident.alertItems ?? []} rowId={(a) => a.id}
              rowTestid="alert-row" open={(a) => void navigate(`/alerts/${a.id}`)}
            />
          </Panel>
        )}
        side={(
          <>
            <Panel title={t('incident.summary')}>
              <Facts
                narrow
                facts={[
                  { label: t('incident.severity'), value: <Severity value={incident.severity} testid="incident-severity" /> },
                  { label: t('incident.status'), value: name('incidentStatus', incident.status) },
                  { label: t('incident.activeAlerts'), value: t('incident.ofAlerts', { active: format.number(incident.alerts.active), total: format.number(incident.alerts.total) }) },
                  { label: t('incident.categories'), value: format.list((incident.categories ?? []).map((c) => name('category', c))) },
                  { label: t('incident.sources'), value: format.list((incident.detectionSources ?? []).map((s) => name('detectionSource', s))) },
                  { label: t('incident.assignee'), value: incident.assignee || t('incident.nobody') },
                  { label: t('incident.firstActivity'), value: <Moment time={incident.firstActivity} /> },
                  { label: t('incident.lastActivity'), value: <Moment time={incident.lastActivity} /> },
                  { label: t('incident.created'), value: <Moment time={incident.createdAt} /> },
                  { label: t('incident.id'), value: incident.id },
                ]}
              />
            </Panel>
            <Panel title={t('incident.devices')}>
              <ul className={styles.devices}>
                {devices.map((d) => <li key={d.id}><RouteLink to={`/devices/${d.id}`} data-testid="incident-device">{d.name}</RouteLink></li>)}
              </ul>
            </Panel>
          </>
        )}
      />
    </Page>
  )
}
