import { makeStyles, Tab, TabList } from '@fluentui/react-components'
import { useTranslation } from 'react-i18next'
import { useParams } from 'react-router'
import { getEnvironment, getPlan } from '../../api/calls'
import { useData } from '../../api/use'
import { useFilter } from '../../ui/Filters'
import { Page } from '../../ui/Page'
import { Failure, Loading } from '../../ui/states'
import { Onboarding } from './Onboarding'
import { PlanForm } from './PlanForm'

const useStyles = makeStyles({ tabs: { marginLeft: '-12px' } })

/** One environment: its plan, and how servers come into it. */
export default function EnvironmentPage() {
  const styles = useStyles()
  const { t } = useTranslation()
  const { id = '' } = useParams()
  const [tab, setTab] = useFilter('tab')
  const environment = useData(`environment ${id}`, (signal) => getEnvironment(id, signal), ['plan', 'device'])
  const plan = useData(`plan ${id}`, (signal) => getPlan(id, signal), ['plan'])
  const crumbs = [{ to: '/environments', label: t('nav.environments') }]
  const error = environment.error ?? plan.error
  if (!environment.data || !plan.data) {
    return (
      <Page title={t('nav.environments')} crumbs={crumbs}>
        {error ? <Failure error={error} retry={() => { environment.reload(); plan.reload() }} /> : <Loading />}
      </Page>
    )
  }
  const current = tab === 'enrol' ? 'enrol' : 'plan'
  return (
    <Page title={environment.data.name} crumbs={crumbs}>
      <TabList className={styles.tabs} selectedValue={current} onTabSelect={(_, d) => setTab(d.value === 'plan' ? '' : String(d.value))}>
        <Tab value="plan" id="tab-plan" aria-controls="tab-panel" data-testid="environment-tab-plan">{t('environment.plans')}</Tab>
        <Tab value="enrol" id="tab-enrol" aria-controls="tab-panel" data-testid="environment-tab-enrol">{t('environment.enrol')}</Tab>
      </TabList>
      <div id="tab-panel" role="tabpanel" aria-labelledby={`tab-${current}`}>
        {current === 'plan'
          ? <PlanForm key={id} environment={environment.data} plan={plan.data} saved={plan.set} reload={plan.reload} />
          : <Onboarding environment={id} planOff={environment.data.plan === 'off'} />}
      </div>
    </Page>
  )
}
