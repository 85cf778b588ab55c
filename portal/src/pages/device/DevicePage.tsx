import { Badge, makeStyles, MessageBar, MessageBarBody, Tab, TabList, tokens } from '@fluentui/react-components'
import { lazy, Suspense } from 'react'
import { useTranslation } from 'react-i18next'
import { useParams } from 'react-router'
import { getDevice } from '../../api/calls'
import { useData } from '../../api/use'
import { useFilter } from '../../ui/Filters'
import { Ago, Coverage, SensorHealth, Severity, Status } from '../../ui/marks'
import { Page } from '../../ui/Page'
import { Failure, Loading } from '../../ui/states'
import { AgentTab } from './AgentTab'
import { AlertsTab } from './AlertsTab'
import { OverviewTab } from './OverviewTab'
import { TimelineTab } from './TimelineTab'

const useStyles = makeStyles({
  facts: { display: 'flex', flexWrap: 'wrap', alignItems: 'center', gap: `${tokens.spacingVerticalXS} ${tokens.spacingHorizontalXL}`, marginTop: tokens.spacingVerticalS, color: tokens.colorNeutralForeground2 },
  tags: { display: 'inline-flex', flexWrap: 'wrap', gap: tokens.spacingHorizontalXS },
  panel: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalL, flexGrow: 1, minHeight: 0 },
  tabs: { marginLeft: '-12px' },
})

const PolicyTab = lazy(() => import('./PolicyTab'))
const TestsTab = lazy(() => import('./TestsTab'))

const tabs = ['overview', 'alerts', 'timeline', 'agent', 'policy', 'tests'] as const

export default function DevicePage() {
  const styles = useStyles()
  const { t } = useTranslation()
  const { id = '' } = useParams()
  const [tab, setTab] = useFilter('tab')
  const { data: device, error, reload } = useData(`device ${id}`, (signal) => getDevice(id, signal), [`device:${id}`, 'alert', 'plan', 'policy'], 500)
  const crumbs = [{ to: '/devices', label: t('nav.devices') }]
  if (!device) {
    return <Page title={t('device.one')} crumbs={crumbs}>{error ? <Failure error={error} retry={reload} /> : <Loading />}</Page>
  }
  const current = tabs.find((name) => name === tab) ?? 'overview'
  const labels = { overview: t('device.overview'), alerts: t('device.alerts'), timeline: t('device.timeline'), agent: t('device.agent'), policy: t('applied.tab'), tests: t('tests.title') }
  const addresses = device.ipAddresses ?? []
  const tags = device.tags ?? []
  return (
    <Page
      title={device.name} heading={<span data-testid="device-name">{device.name}</span>} crumbs={crumbs} fill={current === 'alerts' || current === 'timeline'}
      subtitle={(
        <div className={styles.facts}>
          {device.coverage && <Coverage value={device.coverage.state} testid="device-coverage" />}
          <SensorHealth value={device.sensorHealth} testid="device-health" />
          <Severity value={device.riskLevel} family="risk" testid="device-risk" />
          <Status tone={device.connected ? 'good' : 'neutral'} testid="device-connected">{device.connected ? t('device.connected') : t('device.disconnected')}</Status>
          <span>{device.osName || [device.osDistribution || device.osPlatform, device.osVersion].join(' ')}</span>
          {addresses.length > 0 && <span>{addresses[0]}</span>}
          <span>{t('device.seen')} <Ago time={device.lastSeen} /></span>
          {tags.length > 0 && <span className={styles.tags}>{tags.map((tag) => <Badge key={tag} appearance="outline">{tag}</Badge>)}</span>}
        </div>
      )}
    >
      {device.onboardingStatus === 'Offboarded' && <MessageBar intent="warning"><MessageBarBody>{t('device.offboarded')}</MessageBarBody></MessageBar>}
      <TabList className={styles.tabs} selectedValue={current} onTabSelect={(_, d) => setTab(d.value === 'overview' ? '' : String(d.value))}>
        {tabs.map((name) => <Tab key={name} value={name} id={`tab-${name}`} aria-controls="tab-panel" data-testid={`tab-${name}`}>{labels[name]}</Tab>)}
      </TabList>
      <div id="tab-panel" role="tabpanel" aria-labelledby={`tab-${current}`} className={styles.panel}>
        {current === 'overview' && <OverviewTab device={device} />}
        {current === 'alerts' && <AlertsTab device={id} />}
        {current === 'timeline' && <TimelineTab device={id} />}
        {current === 'agent' && <AgentTab device={device} />}
        {current === 'policy' && <Suspense fallback={<Loading />}><PolicyTab device={id} /></Suspense>}
        {current === 'tests' && <Suspense fallback={<Loading />}><TestsTab device={id} connected={device.connected} /></Suspense>}
      </div>
    </Page>
  )
}
