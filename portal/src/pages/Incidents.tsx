import { ShieldCheckmarkRegular } from '@fluentui/react-icons/svg/shield-checkmark'
import { useTranslation } from 'react-i18next'
import { useNavigate } from 'react-router'
import { listIncidents } from '../api/calls'
import { usePaged } from '../api/use'
import { useFormat, useName } from '../i18n/names'
import { FilterBar, SelectFilter, useFilter } from '../ui/Filters'
import { useIncidentColumns } from '../ui/incidentColumns'
import { Page } from '../ui/Page'
import { PagedTable } from '../ui/PagedTable'
import { Empty } from '../ui/states'

const statuses = ['Active', 'InProgress', 'Resolved']

export default function Incidents() {
  const { t } = useTranslation()
  const name = useName()
  const format = useFormat()
  const navigate = useNavigate()
  const columns = useIncidentColumns()
  const [status, setStatus] = useFilter('status')
  const list = usePaged(`incidents ${status}`, (page, signal) => listIncidents({ status, ...page }, signal), ['incident', 'alert'])
  return (
    <Page title={t('nav.incidents')} fill>
      <FilterBar count={list.loading ? undefined : t('list.count', { count: list.total, number: format.number(list.total) })}>
        <SelectFilter label={t('incident.status')} value={status} set={setStatus} all={t('list.all')} choices={statuses.map((value) => ({ value, label: name('incidentStatus', value) }))} />
      </FilterBar>
      <PagedTable
        list={list} label={t('nav.incidents')} columns={columns} rowTestid="incident-row" open={(i) => void navigate(`/incidents/${i.id}`)}
        empty={status !== ''
          ? <Empty icon={<ShieldCheckmarkRegular />} title={t('list.noMatch')}>{t('list.noMatchText')}</Empty>
          : <Empty icon={<ShieldCheckmarkRegular />} title={t('incident.none')}>{t('incident.noneText')}</Empty>}
      />
    </Page>
  )
}
