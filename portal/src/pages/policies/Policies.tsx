import { Button, Menu, MenuItem, MenuList, MenuPopover, MenuTrigger } from '@fluentui/react-components'
import { AddRegular } from '@fluentui/react-icons/svg/add'
import { ShieldTaskRegular } from '@fluentui/react-icons/svg/shield-task'
import { useTranslation } from 'react-i18next'
import { useNavigate } from 'react-router'
import { listPolicies, type Policy, type PolicyType } from '../../api/policies'
import { useData } from '../../api/use'
import { useMay } from '../../app/session'
import { useFormat, useName } from '../../i18n/names'
import { FilterBar, SearchFilter, SelectFilter, useFilter } from '../../ui/Filters'
import { RouteLink } from '../../ui/links'
import { Ago, Status } from '../../ui/marks'
import { Page } from '../../ui/Page'
import { Empty, Failure, Loading } from '../../ui/states'
import { Table, type Column } from '../../ui/Table'
import { useAssigned } from './values'

const types: PolicyType[] = ['antivirus', 'exclusions', 'edr']

/** Every policy, the one that counts first at the top. */
export default function Policies() {
  const { t } = useTranslation()
  const name = useName()
  const format = useFormat()
  const assigned = useAssigned()
  const navigate = useNavigate()
  const may = useMay('policies.manage')
  const [query, setQuery] = useFilter('q')
  const [type, setType] = useFilter('type')
  const { data, error, reload } = useData('policies', listPolicies, ['policy', 'group', 'device'], 1_000)

  const create = (
    <Menu>
      <MenuTrigger disableButtonEnhancement>
        <Button appearance="primary" icon={<AddRegular />} disabled={!may} data-testid="policy-create">{t('policies.create')}</Button>
      </MenuTrigger>
      <MenuPopover>
        <MenuList>
          {types.map((kind) => <MenuItem key={kind} data-testid={`policy-create-${kind}`} onClick={() => void navigate(`/policies/new?type=${kind}`)}>{name('policyType', kind)}</MenuItem>)}
        </MenuList>
      </MenuPopover>
    </Menu>
  )
  const columns: Column<Policy>[] = [
    { id: 'name', header: t('policies.name'), min: 200, grow: 3, cell: (p) => <RouteLink to={`/policies/${p.id}`}>{p.name}</RouteLink> },
    { id: 'type', header: t('policies.type'), min: 150, grow: 1, cell: (p) => name('policyType', p.type) },
    { id: 'assigned', header: t('policies.assignedTo'), min: 170, grow: 2, cell: (p) => (p.assignments.length === 0 ? <Status tone="neutral">{t('policies.draft')}</Status> : p.assignments.map(assigned).join(t('policies.comma'))) },
    { id: 'priority', header: t('policies.priority'), min: 90, cell: (p) => format.number(p.priority) },
    { id: 'devices', header: t('policies.devices'), min: 210, cell: (p) => <Confirmation policy={p} /> },
    { id: 'updated', header: t('policies.updated'), min: 120, cell: (p) => <Ago time={p.updatedAt} /> },
    { id: 'by', header: t('policies.by'), min: 110, cell: (p) => p.updatedBy },
  ]
  const items = data?.items.filter((p) => (type === '' || p.type === type) && p.name.toLowerCase().includes(query.toLowerCase())) ?? []
  return (
    <Page title={t('nav.policies')} subtitle={t('policies.intro')} actions={data && data.items.length > 0 ? create : undefined} fill>
      {!data ? (error ? <Failure error={error} retry={reload} /> : <Loading />)
        : data.items.length === 0 ? <Empty icon={<ShieldTaskRegular />} title={t('policies.none')} action={create}>{t('policies.noneText')}</Empty>
          : (
            <>
              <FilterBar count={t('list.count', { count: items.length, number: format.number(items.length) })}>
                <SearchFilter label={t('policies.search')} value={query} set={setQuery} testid="policy-search" />
                <SelectFilter label={t('policies.type')} value={type} set={setType} all={t('list.all')} choices={types.map((kind) => ({ value: kind, label: name('policyType', kind) }))} />
              </FilterBar>
              <Table label={t('nav.policies')} columns={columns} items={items} rowId={(p) => p.id} rowTestid="policy-row" open={(p) => void navigate(`/policies/${p.id}`)} />
            </>
          )}
    </Page>
  )
}

/** How many devices a policy is for, and whether their agents apply it. */
export function Confirmation({ policy }: { policy: Policy }) {
  const { t } = useTranslation()
  const format = useFormat()
  const { assigned, confirmed, pending, failed } = policy.devices
  if (assigned === 0) return <Status tone="neutral">{t('policies.noDevices')}</Status>
  if (failed > 0) return <Status tone="bad">{t('policies.failedOf', { failed: format.number(failed), assigned: format.number(assigned) })}</Status>
  if (pending > 0) return <Status tone="warn">{t('policies.confirmedOf', { confirmed: format.number(confirmed), assigned: format.number(assigned) })}</Status>
  return <Status tone="good" testid="policy-confirmed">{t('policies.allConfirmed', { assigned: format.number(assigned) })}</Status>
}
