import { Button, makeStyles, Text, tokens } from '@fluentui/react-components'
import { useTranslation } from 'react-i18next'
import { useNavigate } from 'react-router'
import { listIncidents } from '../api/calls'
import { getSummary } from '../api/devices'
import { useData } from '../api/use'
import { useFormat } from '../i18n/names'
import { useIncidentColumns } from '../ui/incidentColumns'
import { RouteLink } from '../ui/links'
import { Page } from '../ui/Page'
import { Panel } from '../ui/Panel'
import { Failure, Loading } from '../ui/states'
import { Table } from '../ui/Table'
import { Coverage } from './home/Coverage'
import { Machines } from './home/Machines'
import { Next } from './home/Next'
import { OpenIncidents } from './home/OpenIncidents'
import { Protection } from './home/Protection'

const useStyles = makeStyles({
  grid: { display: 'grid', gridTemplateColumns: 'repeat(auto-fit, minmax(min(320px, 100%), 1fr))', gap: tokens.spacingHorizontalL, alignItems: 'stretch' },
  begin: { display: 'flex', flexWrap: 'wrap', alignItems: 'center', justifyContent: 'space-between', gap: tokens.spacingHorizontalL },
  hint: { color: tokens.colorNeutralForeground3 },
})

export default function Home() {
  const styles = useStyles()
  const { t } = useTranslation()
  const format = useFormat()
  const navigate = useNavigate()
  const columns = useIncidentColumns()
  const summary = useData('home summary', getSummary, ['device', 'alert', 'incident', 'plan', 'machine'], 1_000)
  const incidents = useData('home incidents', (signal) => listIncidents({ status: 'Open', limit: 10 }, signal), ['incident', 'alert'], 500)

  const error = summary.error ?? incidents.error
  if (!summary.data || !incidents.data) {
    return (
      <Page title={t('nav.home')}>
        {error ? <Failure error={error} retry={() => { summary.reload(); incidents.reload() }} /> : <Loading />}
      </Page>
    )
  }
  const { devices } = summary.data
  return (
    <Page title={t('nav.home')}>
      {devices.total === 0 && (
        <Panel title={t('home.begin')}>
          <div className={styles.begin}>
            <Text>{t('home.beginText')}</Text>
            <Button appearance="primary" onClick={() => void navigate('/start')} data-testid="home-start">{t('home.beginAction')}</Button>
          </div>
        </Panel>
      )}
      <Coverage devices={devices} />
      <div className={styles.grid}>
        <OpenIncidents open={summary.data.incidents} />
        <Next summary={summary.data} />
        <Protection devices={devices} />
        <Machines environments={summary.data.environments} />
      </div>
      <Panel
        title={t('home.incidents')}
        actions={<RouteLink to="/incidents?status=Open">{t('home.allIncidents', { number: format.number(summary.data.incidents.total) })}</RouteLink>}
      >
        {incidents.data.items.length === 0
          ? <Text className={styles.hint}>{t('home.noIncidents')}</Text>
          : (
            <Table
              compact label={t('home.incidents')} columns={columns} items={incidents.data.items} rowId={(i) => i.id}
              rowTestid="incident-row" open={(i) => void navigate(`/incidents/${i.id}`)}
            />
          )}
      </Panel>
    </Page>
  )
}
