import { ShieldCheckmarkRegular } from '@fluentui/react-icons/svg/shield-checkmark'
import { useTranslation } from 'react-i18next'
import { useNavigate } from 'react-router'
import { listAlerts } from '../api/calls'
import { useRows } from '../api/rows'
import { useFormat, useName } from '../i18n/names'
import { useAlertColumns } from '../ui/alertColumns'
import { FilterBar, SelectFilter, useFilter } from '../ui/Filters'
import { Page } from '../ui/Page'
import { RowTable } from '../ui/PagedTable'
import { Empty } from '../ui/states'

const statuses = ['Open', 'New', 'InProgress', 'Resolved']
const severities = ['High', 'Medium', 'Low', 'Informational']

export default function Alerts() {
  const { t } = useTranslation()
  const name = useName()
  const format = useFormat()
  const navigate = useNavigate()
  const columns = useAlertColumns()
  const [status, setStatus] = useFilter('status')
  const [severity, setSeverity] = useFilter('severity')
  const rows = useRows(`alerts ${status} ${severity}`, (page, signal) => listAlerts({ status, severity, ...page }, signal), ['alert'])
  const filtered = status !== '' || severity !== ''
  return (
    <Page title={t('nav.alerts')} fill>
      <FilterBar count={rows.loading ? undefined : t('list.count', { count: rows.total, number: format.number(rows.total) })}>
        <SelectFilter label={t('alert.status')} value={status} set={setStatus} all={t('list.all')} choices={statuses.map((value) => ({ value, label: name('alertStatus', value) }))} />
        <SelectFilter label={t('alert.severity')} value={severity} set={setSeverity} all={t('list.all')} choices={severities.map((value) => ({ value, label: name('severity', value) }))} />
      </FilterBar>
      <RowTable
        rows={rows} label={t('nav.alerts')} columns={columns} rowTestid="alert-row" open={(a) => void navigate(`/alerts/${a.id}`)}
        empty={filtered
          ? <Empty icon={<ShieldCheckmarkRegular />} title={t('list.noMatch')}>{t('list.noMatchText')}</Empty>
          : <Empty icon={<ShieldCheckmarkRegular />} title={t('alert.none')}>{t('alert.noneText')}</Empty>}
      />
    </Page>
  )
}
