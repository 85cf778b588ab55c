import { Button } from '@fluentui/react-components'
import { AddRegular } from '@fluentui/react-icons/svg/add'
import { SettingsRegular } from '@fluentui/react-icons/svg/settings'
import { lazy, Suspense, useState } from 'react'
import { useTranslation } from 'react-i18next'
import { useNavigate } from 'react-router'
import { listEnvironments } from '../api/calls'
import type { Counts, MachineState } from '../api/machines'
import type { Environment } from '../api/types'
import { useData } from '../api/use'
import { useMay } from '../app/session'
import { useFormat, useName } from '../i18n/names'
import { RouteLink } from '../ui/links'
import { Ago, Status } from '../ui/marks'
import { Page } from '../ui/Page'
import { Empty, Failure, Loading } from '../ui/states'
import { Table, type Column } from '../ui/Table'
import { machinesAt } from './environment/at'

const EnvironmentDialog = lazy(() => import('./environment/EnvironmentDialog').then((m) => ({ default: m.EnvironmentDialog })))

export default function Environments() {
  const { t } = useTranslation()
  const name = useName()
  const format = useFormat()
  const navigate = useNavigate()
  const may = useMay('plans.manage')
  const [creating, setCreating] = useState(false)
  const { data, error, reload } = useData('environments', listEnvironments, ['plan', 'device', 'machine'], 1_000)

  const count = (key: keyof Counts, header: string, state?: MachineState): Column<Environment> => ({
    id: key, header, min: 120,
    cell: (e) => <RouteLink to={machinesAt(e.id, state && { state })} title={header} data-testid={`environment-${key}`}>{format.number(e.machines?.[key] ?? 0)}</RouteLink>,
  })
  const columns: Column<Environment>[] = [
    { id: 'name', header: t('environment.name'), min: 200, grow: 3, cell: (e) => <RouteLink to={`/environments/${e.id}`} title={e.name}>{e.name}</RouteLink> },
    { id: 'kind', header: t('environment.kind'), min: 160, grow: 1, cell: (e) => <span title={e.externalId}>{name('environmentKind', e.kind)}</span> },
    { id: 'plan', header: t('environment.plan'), min: 120, cell: (e) => <Status tone={e.plan === 'off' ? 'neutral' : 'good'}>{name('plan', e.plan)}</Status> },
    count('machines', t('environment.machines')),
    count('protected', name('machineState', 'succeeded'), 'succeeded'),
    count('failed', name('machineState', 'failed'), 'failed'),
    count('not_applicable', name('machineState', 'not_applicable'), 'not_applicable'),
    { id: 'created', header: t('environment.created'), min: 120, cell: (e) => <Ago time={e.createdAt} /> },
  ]
  const create = <Button appearance="primary" icon={<AddRegular />} disabled={!may} onClick={() => setCreating(true)} data-testid="environment-create">{t('environment.create')}</Button>
  return (
    <Page title={t('nav.environments')} subtitle={t('environment.intro')} actions={data && data.items.length > 0 ? create : undefined} fill>
      {!data ? (error ? <Failure error={error} retry={reload} /> : <Loading />)
        : data.items.length === 0 ? <Empty icon={<SettingsRegular />} title={t('environment.none')} action={create} />
          : <Table label={t('nav.environments')} columns={columns} items={data.items} rowId={(e) => e.id} rowTestid="environment-row" open={(e) => void navigate(`/environments/${e.id}`)} />}
      {creating && <Suspense><EnvironmentDialog saved={(e) => void navigate(`/environments/${e.id}?tab=connectors`)} close={() => setCreating(false)} /></Suspense>}
    </Page>
  )
}
