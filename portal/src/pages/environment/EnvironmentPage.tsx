import { makeStyles, Tab, TabList, tokens } from '@fluentui/react-components'
import { lazy, Suspense } from 'react'
import { useTranslation } from 'react-i18next'
import { useParams, useSearchParams } from 'react-router'
import { getEnvironment, getPlan } from '../../api/calls'
import { getOnboarding } from '../../api/machines'
import { useData } from '../../api/use'
import { useFormat, useName } from '../../i18n/names'
import { RouteLink } from '../../ui/links'
import { Status } from '../../ui/marks'
import { Page } from '../../ui/Page'
import { Failure, Loading } from '../../ui/states'
import { machinesAt } from './at'
import { EnvironmentActions } from './EnvironmentActions'
import { PlanForm } from './PlanForm'

const useStyles = makeStyles({
  facts: { display: 'flex', flexWrap: 'wrap', alignItems: 'center', gap: `${tokens.spacingVerticalXS} ${tokens.spacingHorizontalXL}`, marginTop: tokens.spacingVerticalS, color: tokens.colorNeutralForeground2 },
  panel: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalL, flexGrow: 1, minHeight: 0 },
  tabs: { marginLeft: '-12px', flexShrink: 0 },
})

const MachinesTab = lazy(() => import('./machines/MachinesTab'))
const ConnectorsTab = lazy(() => import('./connectors/ConnectorsTab'))
const OnboardingTab = lazy(() => import('./onboarding/OnboardingTab'))
const TokensTab = lazy(() => import('./TokensTab'))
const CoverageTab = lazy(() => import('./CoverageTab'))

const tabs = ['plan', 'machines', 'connectors', 'onboarding', 'tokens', 'coverage'] as const

/** One environment: its plan, what it knows, and how that comes under protection. */
export default function EnvironmentPage() {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const format = useFormat()
  const { id = '' } = useParams()
  const [parameters, setParameters] = useSearchParams()
  const environment = useData(`environment ${id}`, (signal) => getEnvironment(id, signal), ['plan', 'device', 'machine'], 1_000)
  const plan = useData(`plan ${id}`, (signal) => getPlan(id, signal), ['plan'])
  const onboarding = useData(`onboarding ${id}`, (signal) => getOnboarding(id, signal), ['machine', 'plan', `onboarding:${id}`], 500)
  const crumbs = [{ to: '/environments', label: t('nav.environments') }]
  const error = environment.error ?? plan.error
  if (!environment.data || !plan.data) {
    return (
      <Page title={t('nav.environments')} crumbs={crumbs}>
        {error ? <Failure error={error} retry={() => { environment.reload(); plan.reload() }} /> : <Loading />}
      </Page>
    )
  }
  const current = tabs.find((tab) => tab === parameters.get('tab')) ?? 'plan'
  // What selects machines means nothing on another tab.
  const setTab = (tab: string) => setParameters(tab === 'plan' ? {} : { tab }, { replace: true })
  const labels = {
    plan: t('environment.planTab'), machines: t('environment.machines'), connectors: t('connector.many'), onboarding: t('onboarding.tab'), tokens: t('token.title'), coverage: t('environment.coverage'),
  }
  const { kind, externalId } = environment.data
  const planOff = environment.data.plan === 'off'
  const counts = onboarding.data?.counts
  return (
    <Page
      title={environment.data.name} crumbs={crumbs} fill={current === 'machines'}
      actions={<EnvironmentActions environment={environment.data} renamed={environment.reload} />}
      subtitle={(
        <div className={styles.facts}>
          <span>{name('environmentKind', kind)}</span>
          {externalId && <span>{externalId}</span>}
          <Status tone={planOff ? 'neutral' : 'good'}>{t('environment.planIs', { plan: name('plan', environment.data.plan) })}</Status>
          {counts && (
            <>
              <RouteLink to={machinesAt(id)} data-testid="head-machines">{t('environment.countMachines', { count: counts.machines, number: format.number(counts.machines) })}</RouteLink>
              <RouteLink to={machinesAt(id, { state: 'succeeded' })} data-testid="head-succeeded">{t('environment.countProtected', { count: counts.protected, number: format.number(counts.protected) })}</RouteLink>
              {counts.failed > 0 && <RouteLink to={machinesAt(id, { state: 'failed' })} data-testid="head-failed">{t('environment.countFailed', { count: counts.failed, number: format.number(counts.failed) })}</RouteLink>}
            </>
          )}
        </div>
      )}
    >
      <TabList className={styles.tabs} selectedValue={current} onTabSelect={(_, d) => setTab(String(d.value))}>
        {tabs.map((tab) => <Tab key={tab} value={tab} id={`tab-${tab}`} aria-controls="tab-panel" data-testid={`tab-${tab}`}>{labels[tab]}</Tab>)}
      </TabList>
      <div id="tab-panel" role="tabpanel" aria-labelledby={`tab-${current}`} className={styles.panel}>
        {current === 'plan' && <PlanForm key={id} environment={environment.data} plan={plan.data} saved={plan.set} reload={plan.reload} />}
        <Suspense fallback={<Loading />}>
          {current === 'machines' && <MachinesTab environment={id} onboarding={onboarding.data} connect={() => setTab('connectors')} />}
          {current === 'connectors' && <ConnectorsTab environment={id} toTokens={() => setTab('tokens')} />}
          {current === 'onboarding' && (!onboarding.data
            ? onboarding.error ? <Failure error={onboarding.error} retry={onboarding.reload} /> : <Loading />
            : <OnboardingTab key={id} environment={id} planOff={planOff} onboarding={onboarding.data} set={onboarding.set} reload={onboarding.reload} />)}
          {current === 'tokens' && <TokensTab environment={id} planOff={planOff} />}
          {current === 'coverage' && <CoverageTab environment={id} />}
        </Suspense>
      </div>
    </Page>
  )
}
