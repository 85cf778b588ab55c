import { useTranslation } from 'react-i18next'
import { useParams } from 'react-router'
import { getEnvironment, getPlan } from '../../api/calls'
import { useData } from '../../api/use'
import { Page } from '../../ui/Page'
import { Failure, Loading } from '../../ui/states'
import { Onboarding } from './Onboarding'
import { PlanForm } from './PlanForm'

/** One environment: its plan, and how servers come into it. */
export default function EnvironmentPage() {
  const { t } = useTranslation()
  const { id = '' } = useParams()
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
  return (
    <Page title={environment.data.name} crumbs={crumbs}>
      <PlanForm key={id} environment={environment.data} plan={plan.data} saved={plan.set} reload={plan.reload} />
      <Onboarding environment={id} planOff={environment.data.plan === 'off'} />
    </Page>
  )
}
