import { ShieldCheckmarkRegular } from '@fluentui/react-icons/svg/shield-checkmark'
import { useTranslation } from 'react-i18next'
import { useNavigate } from 'react-router'
import { listIncidents } from '../api/calls'
import { useRows } from '../api/rows'
import { useFormat } from '../i18n/names'
import { useIncidentColumns } from '../ui/incidentColumns'
import { Page } from '../ui/Page'
import { RowTable } from '../ui/PagedTable'
import { QueueFilters, useQueue } from '../ui/QueueFilters'
import { Empty } from '../ui/states'

const statuses = ['Open', 'Active', 'InProgress', 'Resolved']

export default function Incidents() {
  const { t } = useTranslation()
  const format = useFormat()
  const navigate = useNavigate()
  const columns = useIncidentColumns()
  const queue = useQueue()
  const rows = useRows(queue.key, (page, signal) => listIncidents({ ...queue.query, ...page }, signal), ['incident', 'alert'])
  return (
    <Page title={t('nav.incidents')} fill>
      <QueueFilters statuses={statuses} family="incidentStatus" count={rows.loading ? undefined : t('list.count', { count: rows.total, number: format.number(rows.total) })} />
      <RowTable
        rows={rows} label={t('nav.incidents')} columns={columns} order={queue.order} rowTestid="incident-row" open={(i) => void navigate(`/incidents/${i.id}`)}
        empty={queue.filtered
          ? <Empty icon={<ShieldCheckmarkRegular />} title={t('list.noMatch')}>{t('list.noMatchText')}</Empty>
          : <Empty icon={<ShieldCheckmarkRegular />} title={t('incident.none')}>{t('incident.noneText')}</Empty>}
      />
    </Page>
  )
}
