// The shapes of the API, version 1. Times are RFC 3339 in UTC.
import type { Counts } from './machines'

export interface List<T> {
  items: T[]
  total: number
  /** Where the next page begins, empty at the end. */
  next?: string
}

export type Role = 'reader' | 'operator' | 'admin'

export interface Session {
  user: { id: string; name: string; role: Role }
  mustChangePassword: boolean
  organization: { id: string; name: string }
  version: string
  role: Role
  permissions?: string[]
}

export type Tier = 'P1' | 'P2'

export const environmentKinds = ['onprem', 'azure', 'aws', 'gcp'] as const
export type EnvironmentKind = (typeof environmentKinds)[number]

export interface Environment {
  id: string
  name: string
  kind: string
  createdAt: string
  plan: 'off' | Tier
  /** Id of the subscription, account or project; empty for a site. */
  externalId?: string
  devices: { total: number; active: number; protected: number }
  /** Absent from an older control plane. */
  machines?: Counts
}

export interface PlanSetting {
  id: string
  name: string
  enabled: boolean
  default: boolean
  availableIn: Tier[]
  engine: boolean
  changeable: boolean
  reason: '' | 'requires_p2' | 'not_in_this_version' | 'plan_off'
}

export interface PlanSettings {
  environment: string
  servers: boolean
  tier: Tier
  version: number
  updatedAt?: string
  updatedBy?: string
  settings: PlanSetting[]
  filesystems?: { path: string; mode: string }[]
}

export interface Capability {
  id: string
  name: string
  P1: boolean
  P2: boolean
  inThisVersion: boolean
}

export interface JoinToken {
  id: string
  label: string
  createdAt: string
  expiresAt: string
  maxUses: number
  uses: number
  revoked: boolean
  /** Only in the answer to its creation. */
  token?: string
  /** Only in the answer to its creation: what to type on the server. */
  command?: string
  /** Only in the answer to its creation: ways to have it typed. */
  snippets?: Partial<Record<Snippet, string>> | null
}

export const snippets = ['shell', 'cloudInit', 'ansible', 'image'] as const
export type Snippet = (typeof snippets)[number]

export interface Device {
  id: string
  name: string
  environment: { id: string; name: string }
  osPlatform: string
  osDistribution: string
  osVersion: string
  /** What the distribution calls itself. */
  osName?: string
  kernel: string
  arch: string
  agentVersion: string
  ipAddresses?: string[] | null
  firstSeen: string
  lastSeen: string
  onboardingStatus: string
  sensorHealth: string
  connected: boolean
  riskLevel: string
  activeAlerts: number
  /** mode says in words what is blocked and what is only watched. */
  protection: { realTime: string; mode?: string; healthy: boolean; licensed: boolean }
  /** Absent from an older control plane. */
  coverage?: { state: string; reasons?: string[] | null }
  /** NAME=VALUE, or the value alone for GROUP. */
  tags?: string[] | null
  plan: string
  exposureLevel: string
}

export interface Condition {
  part: string
  state: string
  since?: string
  reason?: string
  remedy?: string
  /** Names the reason; detail is the part of it that no catalogue can hold. */
  code?: string
  detail?: string
}

export interface HealthReport extends Record<string, unknown> {
  healthy: boolean
  licensed: boolean
  managed?: string[] | null
  conditions?: Condition[] | null
  time?: string
}

export interface DeviceDetail extends Device {
  health?: HealthReport | null
  extension: { name: string; version: string; provisioningState: string; message?: string }
  certificate?: { serial: string; notAfter: string } | null
  healthAt?: string | null
  policy?: { version: number; confirmedVersion: number; confirmedAt?: string | null; error?: string } | null
}

export interface ProcessInfo {
  key?: string
  parent?: string
  path?: string
  name?: string
  args?: string[] | null
  started?: string
  user?: { uid?: number; euid?: number; name?: string }
  sha256?: string
  exitCode?: number | null
}

export interface FileInfo extends Record<string, unknown> {
  path?: string
  size?: number
  sha256?: string
  hashes?: { sha256?: string }
}

export interface NetworkInfo extends Record<string, unknown> {
  protocol?: string
  direction?: string
  localIp?: string
  localPort?: number
  remoteIp?: string
  remotePort?: number
  url?: string
}

export interface DeviceEvent {
  id: string
  time: string
  action: string
  table: string
  source: string
  summary: string
  initiator?: ProcessInfo
  process?: ProcessInfo
  file?: FileInfo
  network?: NetworkInfo
  threat?: Record<string, unknown>
  fields?: Record<string, string>
}

export type AlertStatus = 'New' | 'InProgress' | 'Resolved'

export interface Alert {
  id: string
  title: string
  severity: string
  status: AlertStatus
  category: string
  techniques?: string[] | null
  detectionSource: string
  device: { id: string; name: string }
  incidentId: string
  firstActivity: string
  lastActivity: string
  createdAt: string
  threatName?: string
  state?: string
  summary: string
  /** How many findings this alert stands for. */
  occurrences?: number
  rule?: { id: string; name: string; version: string }
  test?: boolean
}

export interface Evidence {
  role?: string
  verdict?: string
  state?: string
  file?: FileInfo | null
  process?: ProcessInfo | null
  user?: { name?: string; uid?: number } | null
  network?: NetworkInfo | null
}

export interface AlertDetail extends Alert {
  evidence?: Evidence[] | null
  /** The acting process first, then its ancestors. */
  tree?: ProcessInfo[] | null
  events?: DeviceEvent[] | null
  recommendedActions?: string[] | null
}

export type IncidentStatus = 'Active' | 'InProgress' | 'Resolved'

export interface Incident {
  id: string
  name: string
  severity: string
  status: IncidentStatus
  alerts: { active: number; total: number }
  devices?: { id: string; name: string }[] | null
  categories?: string[] | null
  detectionSources?: string[] | null
  firstActivity: string
  lastActivity: string
  createdAt: string
  assignee?: string
}

export interface IncidentDetail extends Incident {
  alertItems?: Alert[] | null
}
