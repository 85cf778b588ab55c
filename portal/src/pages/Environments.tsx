import { SettingsRegular } from '@fluentui/react-icons/svg/settings'
import { useTranslation } from 'react-i18next'
import { useNavigate } from 'react-router'
import { listEnvironments } from '../api/calls'
import type { Environment } from '../api/types'
import { useData } from '../api/use'
import { useFormat, useName } from '../i18n/names'
import { RouteLink } from '../ui/links'
import { Ago, Status } from '../ui/marks'
import { Page } from '../ui/Page'
import { Empty, Failure, Loading } from '../ui/states'
import { Table, type Column } from '../ui/Table'

export default function Environments() {
  const { t } = useTranslation()
  const name = useName()
  const format = useFormat()
  const navigate = useNavigate()
  const { data, error, reload } = useData('environments', listEnvironments, ['plan', 'device'])

  const columns: Column<Environment>[] = [
    { id: 'name', header: t('environment.name'), min: 220, grow: 3, cell: (e) => <RouteLink to={`/environments/${e.id}`}>{e.name}</RouteLink> },
    { id: 'kind', header: t('environment.kind'), min: 140, grow: 1, cell: (e) => name('environmentKind', e.kind) },
    { id: 'plan', header: t('environment.plan'), min: 160, grow: 1, cell: (e) => <Status tone={e.plan === 'off' ? 'neutral' : 'good'}>{name('plan', e.plan)}</Status> },
    { id: 'devices', header: t('environment.devices'), min: 110, cell: (e) => <RouteLink to={`/devices?environment=${e.id}`}>{format.number(e.devices.total)}</RouteLink> },
    { id: 'protected', header: t('environment.protected'), min: 130, cell: (e) => format.number(e.devices.protected) },
    { id: 'created', header: t('environment.created'), min: 130, cell: (e) => <Ago time={e.createdAt} /> },
  ]
  return (
    <Page title={t('nav.environments')} subtitle={t('environment.intro')} fill>
      {!data ? (error ? <Failure error={error} retry={reload} /> : <Loading />)
        : data.items.length === 0 ? <Empty icon={<SettingsRegular />} title={t('environment.none')} />
          : <Table label={t('nav.environments')} columns={columns} items={data.items} rowId={(e) => e.id} rowTestid="environment-row" open={(e) => void navigate(`/environments/${e.id}`)} />}
    </Page>
  )
}
