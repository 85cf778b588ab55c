import { ShieldCheckmarkRegular } from '@fluentui/react-icons/svg/shield-checkmark'
import { useTranslation } from 'react-i18next'
import { useNavigate } from 'react-router'
import { listIncidents } from '../api/calls'
import { useRows } from '../api/rows'
import { useFormat, useName } from '../i18n/names'
import { FilterBar, SelectFilter, useFilter } from '../ui/Filters'
import { useIncidentColumns } from '../ui/incidentColumns'
import { Page } from '../ui/Page'
import { RowTable } from '../ui/PagedTable'
import { Empty } from '../ui/states'

const statuses = ['Open', 'Active', 'InProgress', 'Resolved']
const severities = ['High', 'Medium', 'Low', 'Informational']

export default function Incidents() {
  const { t } = useTranslation()
  const name = useName()
  const format = useFormat()
  const navigate = useNavigate()
  const columns = useIncidentColumns()
  const [status, setStatus] = useFilter('status')
  const [severity, setSeverity] = useFilter('severity')
  const rows = useRows(`incidents ${status} ${severity}`, (page, signal) => listIncidents({ status, severity, ...page }, signal), ['incident', 'alert'])
  const filtered = status !== '' || severity !== ''
  return (
    <Page title={t('nav.incidents')} fill>
      <FilterBar count={rows.loading ? undefined : t('list.count', { count: rows.total, number: format.number(rows.total) })}>
        <SelectFilter label={t('incident.status')} value={status} set={setStatus} all={t('list.all')} choices={statuses.map((value) => ({ value, label: name('incidentStatus', value) }))} />
        <SelectFilter label={t('incident.severity')} value={severity} set={setSeverity} all={t('list.all')} choices={severities.map((value) => ({ value, label: name('severity', value) }))} />
      </FilterBar>
      <RowTable
        rows={rows} label={t('nav.incidents')} columns={columns} rowTestid="incident-row" open={(i) => void navigate(`/incidents/${i.id}`)}
        empty={filtered
          ? <Empty icon={<ShieldCheckmarkRegular />} title={t('list.noMatch')}>{t('list.noMatchText')}</Empty>
          : <Empty icon={<ShieldCheckmarkRegular />} title={t('incident.none')}>{t('incident.noneText')}</Empty>}
      />
    </Page>
  )
}
