import { useTranslation } from 'react-i18next'
import type { Alert } from '../api/types'
import { useName, useTitle } from '../i18n/names'
import { RouteLink } from './links'
import { Ago, Severity } from './marks'
import type { Column } from './Table'

/** The columns of every list of alerts; narrow ones leave out what the page says already. */
export function useAlertColumns({ narrow = false }: { narrow?: boolean } = {}): Column<Alert>[] {
  const { t } = useTranslation()
  const name = useName()
  const title = useTitle()
  const all: (Column<Alert> & { wide?: boolean })[] = [
    { id: 'title', header: t('alert.title'), min: 260, grow: 4, sort: 'name', cell: (a) => <RouteLink to={`/alerts/${a.id}`} title={title(a.title)} data-testid="alert-title">{title(a.title)}</RouteLink> },
    { id: 'severity', header: t('alert.severity'), min: 120, sort: 'severity', cell: (a) => <Severity value={a.severity} testid="alert-severity" /> },
    { id: 'status', header: t('alert.status'), min: 90, sort: 'status', cell: (a) => name('alertStatus', a.status) },
    { id: 'state', header: t('alert.state'), min: 110, cell: (a) => name('threatState', a.state) },
    { id: 'category', header: t('alert.category'), min: 140, grow: 1, wide: true, cell: (a) => name('category', a.category) },
    { id: 'device', header: t('alert.device'), min: 140, grow: 1, wide: true, cell: (a) => <RouteLink to={`/devices/${a.device.id}`}>{a.device.name}</RouteLink> },
    { id: 'source', header: t('alert.source'), min: 120, wide: true, cell: (a) => name('detectionSource', a.detectionSource) },
    { id: 'last', header: t('alert.lastActivity'), min: 130, sort: 'lastActivity', cell: (a) => <Ago time={a.lastActivity} /> },
  ]
  return narrow ? all.filter((c) => !c.wide) : all
}
