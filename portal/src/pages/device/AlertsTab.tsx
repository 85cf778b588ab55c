import { ShieldCheckmarkRegular } from '@fluentui/react-icons/svg/shield-checkmark'
import { useTranslation } from 'react-i18next'
import { useNavigate } from 'react-router'
import { listAlerts } from '../../api/calls'
import type { Alert } from '../../api/types'
import { usePaged } from '../../api/use'
import { useAlertColumns } from '../../ui/alertColumns'
import { RouteLink } from '../../ui/links'
import { PagedTable } from '../../ui/PagedTable'
import { Empty } from '../../ui/states'
import type { Column } from '../../ui/Table'

/** The alerts of a device, each with the incident that it belongs to. */
export function AlertsTab({ device }: { device: string }) {
  const { t } = useTranslation()
  const navigate = useNavigate()
  const columns = useAlertColumns({ narrow: true })
  const incident: Column<Alert> = {
    id: 'incident', header: t('alert.incident'), min: 130,
    cell: (a) => a.incidentId && <RouteLink to={`/incidents/${a.incidentId}`}>{t('alert.incidentId', { id: a.incidentId })}</RouteLink>,
  }
  const list = usePaged(`alerts of ${device}`, (page, signal) => listAlerts({ device, ...page }, signal), ['alert'])
  return (
    <PagedTable
      list={list} label={t('device.alerts')} columns={[...columns, incident]} rowTestid="alert-row" open={(a) => void navigate(`/alerts/${a.id}`)}
      empty={<Empty icon={<ShieldCheckmarkRegular />} title={t('device.noAlerts')} />}
    />
  )
}
