import { makeStyles, mergeClasses, Text, tokens } from '@fluentui/react-components'
import { useTranslation } from 'react-i18next'
import { useNavigate } from 'react-router'
import { listEnvironments, listIncidents } from '../api/calls'
import { useData } from '../api/use'
import { useFormat } from '../i18n/names'
import { useIncidentColumns } from '../ui/incidentColumns'
import { RouteLink } from '../ui/links'
import { Status } from '../ui/marks'
import { Page } from '../ui/Page'
import { Panel } from '../ui/Panel'
import { Failure, Loading } from '../ui/states'
import { Table } from '../ui/Table'

const useStyles = makeStyles({
  tiles: { display: 'grid', gridTemplateColumns: 'repeat(auto-fit, minmax(150px, 1fr))', gap: tokens.spacingHorizontalL },
  tile: {
    display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalXS, padding: '16px 20px', textDecoration: 'none',
    backgroundColor: tokens.colorNeutralBackground1, color: tokens.colorNeutralForeground1,
    border: `1px solid ${tokens.colorNeutralStroke2}`, borderRadius: tokens.borderRadiusLarge,
    ':hover': { backgroundColor: tokens.colorNeutralBackground1Hover, color: tokens.colorNeutralForeground1Hover, textDecoration: 'none' },
  },
  number: { fontSize: tokens.fontSizeHero800, lineHeight: tokens.lineHeightHero800, fontWeight: tokens.fontWeightSemibold },
  steps: { listStyleType: 'none', margin: 0, padding: 0, display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalM },
  step: { display: 'grid', gridTemplateColumns: '28px minmax(0, 1fr)', gap: tokens.spacingHorizontalM },
  mark: {
    width: '28px', height: '28px', borderRadius: '50%', display: 'grid', placeItems: 'center', fontWeight: tokens.fontWeightSemibold,
    backgroundColor: tokens.colorNeutralBackground3, color: tokens.colorNeutralForeground2,
  },
  done: { backgroundColor: tokens.colorStatusSuccessBackground2, color: tokens.colorStatusSuccessForeground2 },
  stepText: { display: 'flex', flexDirection: 'column', alignItems: 'flex-start' },
  hint: { color: tokens.colorNeutralForeground3 },
})

export default function Home() {
  const styles = useStyles()
  const { t } = useTranslation()
  const format = useFormat()
  const navigate = useNavigate()
  const columns = useIncidentColumns()
  const environments = useData('home environments', listEnvironments, ['device', 'plan'])
  const incidents = useData('home incidents', (signal) => listIncidents({ status: 'Active', limit: 10 }, signal), ['incident', 'alert'])

  const error = environments.error ?? incidents.error
  if (!environments.data || !incidents.data) {
    return (
      <Page title={t('nav.home')}>
        {error ? <Failure error={error} retry={() => { environments.reload(); incidents.reload() }} /> : <Loading />}
      </Page>
    )
  }
  const all = environments.data.items
  const sum = (f: (devices: { total: number; active: number; protected: number }) => number) => all.reduce((n, e) => n + f(e.devices), 0)
  const total = sum((d) => d.total)
  const covered = sum((d) => d.protected)
  const tiles = [
    { to: '/devices', testid: 'home-protected', number: covered, label: t('home.protected') },
    { to: '/devices', testid: 'home-unprotected', number: total - covered, label: t('home.unprotected') },
    { to: '/incidents?status=Active', testid: 'home-incidents', number: incidents.data.total, label: t('home.incidents') },
    { to: '/devices?health=Active', testid: 'home-active', number: sum((d) => d.active), label: t('home.active') },
  ]
  const settings = all.length === 1 ? `/environments/${all[0]!.id}` : '/environments'
  const steps = [
    { done: all.some((e) => e.plan !== 'off'), to: settings, title: t('home.stepPlan'), text: t('home.stepPlanText') },
    { done: total > 0, to: settings, title: t('home.stepEnrol'), text: t('home.stepEnrolText') },
    { done: covered > 0, to: '/devices', title: t('home.stepCheck'), text: t('home.stepCheckText') },
  ]
  return (
    <Page title={t('nav.home')}>
      <div className={styles.tiles}>
        {tiles.map((tile) => (
          <RouteLink key={tile.testid} to={tile.to} className={styles.tile}>
            <span className={styles.number} data-testid={tile.testid}>{format.number(tile.number)}</span>
            <span>{tile.label}</span>
          </RouteLink>
        ))}
      </div>
      {steps.some((s) => !s.done) && (
        <Panel title={t('home.next')}>
          <ol className={styles.steps}>
            {steps.map((step, i) => (
              <li key={step.title} className={styles.step}>
                <span className={mergeClasses(styles.mark, step.done && styles.done)} aria-hidden>{i + 1}</span>
                <div className={styles.stepText}>
                  {step.done ? <Status tone="good">{t('home.done', { step: step.title })}</Status> : <RouteLink to={step.to}>{step.title}</RouteLink>}
                  {!step.done && <Text size={200} className={styles.hint}>{step.text}</Text>}
                </div>
              </li>
            ))}
          </ol>
        </Panel>
      )}
      <Panel title={t('home.incidents')} actions={<RouteLink to="/incidents">{t('home.allIncidents')}</RouteLink>}>
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
