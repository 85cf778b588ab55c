// Where the rooms are. Each one is loaded when it is first entered.
import { lazy, type ComponentType } from 'react'
import { loadTexts, type Part } from '../i18n'

/** A page with texts that the other pages do without. */
const withTexts = (part: Part, load: () => Promise<{ default: ComponentType }>) => lazy(() => Promise.all([load(), loadTexts(part)]).then(([page]) => page))

export const pages = [
  { path: '/', Page: lazy(() => import('../pages/Home')) },
  { path: '/start', Page: lazy(() => import('../pages/start/Start')) },
  { path: '/devices', Page: lazy(() => import('../pages/Devices')) },
  { path: '/devices/:id', Page: lazy(() => import('../pages/device/DevicePage')) },
  { path: '/incidents', Page: lazy(() => import('../pages/Incidents')) },
  { path: '/incidents/:id', Page: lazy(() => import('../pages/incident/IncidentPage')) },
  { path: '/alerts', Page: lazy(() => import('../pages/Alerts')) },
  { path: '/alerts/:id', Page: lazy(() => import('../pages/alert/AlertPage')) },
  { path: '/policies', Page: lazy(() => import('../pages/policies/Policies')) },
  { path: '/policies/:id', Page: lazy(() => import('../pages/policies/PolicyPage')) },
  { path: '/groups', Page: lazy(() => import('../pages/groups/Groups')) },
  { path: '/settings/users', Page: lazy(() => import('../pages/settings/Users')) },
  { path: '/settings/tokens', Page: lazy(() => import('../pages/settings/Tokens')) },
  { path: '/settings/audit', Page: lazy(() => import('../pages/settings/Audit')) },
  { path: '/settings/notifications', Page: lazy(() => import('../pages/settings/Notifications')) },
  { path: '/environments', Page: withTexts('deployment', () => import('../pages/Environments')) },
  { path: '/environments/:id', Page: withTexts('deployment', () => import('../pages/environment/EnvironmentPage')) },
  { path: '/environments/:id/connectors/:connector', Page: withTexts('deployment', () => import('../pages/environment/connectors/ConnectorPage')) },
  { path: '/upgrades', Page: withTexts('deployment', () => import('../pages/upgrades/Upgrades')) },
]
