import { useTranslation } from 'react-i18next'
import type { Incident } from '../api/types'
import { useFormat, useName, useTitle } from '../i18n/names'
import { RouteLink } from './links'
import { Ago, Severity } from './marks'
import type { Column } from './Table'

/** The columns of every list of incidents. */
export function useIncidentColumns(): Column<Incident>[] {
  const { t } = useTranslation()
  const name = useName()
  const title = useTitle()
  const format = useFormat()
  return [
    { id: 'name', header: t('incident.name'), min: 250, grow: 4, sort: 'name', cell: (i) => <RouteLink to={`/incidents/${i.id}`} title={title(i.name)} data-testid="incident-title">{title(i.name)}</RouteLink> },
    { id: 'id', header: t('incident.id'), min: 60, cell: (i) => i.id },
    { id: 'severity', header: t('incident.severity'), min: 130, sort: 'severity', cell: (i) => <Severity value={i.severity} /> },
    { id: 'status', header: t('incident.status'), min: 90, sort: 'status', cell: (i) => name('incidentStatus', i.status) },
    { id: 'alerts', header: t('incident.activeAlerts'), min: 110, cell: (i) => t('incident.ofAlerts', { active: format.number(i.alerts.active), total: format.number(i.alerts.total) }) },
    { id: 'devices', header: t('incident.devices'), min: 130, grow: 1, cell: (i) => format.list((i.devices ?? []).map((d) => d.name)) },
    { id: 'categories', header: t('incident.categories'), min: 110, grow: 1, cell: (i) => format.list((i.categories ?? []).map((c) => name('category', c))) },
    { id: 'assignee', header: t('queue.assignee'), min: 100, cell: (i) => i.assignee || t('manage.nobody') },
    { id: 'last', header: t('incident.lastActivity'), min: 120, sort: 'lastActivity', cell: (i) => <Ago time={i.lastActivity} /> },
  ]
}
