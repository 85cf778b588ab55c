import { ShieldCheckmarkRegular } from '@fluentui/react-icons/svg/shield-checkmark'
import { useTranslation } from 'react-i18next'
import { useNavigate } from 'react-router'
import { listAlerts } from '../api/calls'
import { useRows } from '../api/rows'
import { useFormat } from '../i18n/names'
import { useAlertColumns } from '../ui/alertColumns'
import { Page } from '../ui/Page'
import { RowTable } from '../ui/PagedTable'
import { QueueFilters, useQueue } from '../ui/QueueFilters'
import { Empty } from '../ui/states'

const statuses = ['Open', 'New', 'InProgress', 'Resolved']

export default function Alerts() {
  const { t } = useTranslation()
  const format = useFormat()
  const navigate = useNavigate()
  const columns = useAlertColumns()
  const queue = useQueue()
  const rows = useRows(queue.key, (page, signal) => listAlerts({ ...queue.query, ...page }, signal), ['alert'])
  return (
    <Page title={t('nav.alerts')} fill>
      <QueueFilters statuses={statuses} family="alertStatus" count={rows.loading ? undefined : t('list.count', { count: rows.total, number: format.number(rows.total) })} />
      <RowTable
        rows={rows} label={t('nav.alerts')} columns={columns} order={queue.order} rowTestid="alert-row" open={(a) => void navigate(`/alerts/${a.id}`)}
        empty={queue.filtered
          ? <Empty icon={<ShieldCheckmarkRegular />} title={t('list.noMatch')}>{t('list.noMatchText')}</Empty>
          : <Empty icon={<ShieldCheckmarkRegular />} title={t('alert.none')}>{t('alert.noneText')}</Empty>}
      />
    </Page>
  )
}
