// Policies, device groups, and what applies to a device.
import { path, request } from './client'
import type { List } from './types'

export type PolicyType = 'antivirus' | 'exclusions' | 'edr'

export interface CatalogueSetting {
  name: string
  section: PolicyType
  kind: 'bool' | 'int' | 'enum' | 'strings' | 'actions' | 'schedules' | 'exclusions' | 'tags'
  values?: string[]
  min?: number
  max?: number
  default: unknown
  /** Whether this version does something with it. */
  engine: boolean
  united: boolean
}

export interface Assignment {
  kind: 'all' | 'environment' | 'group'
  id?: string
  name?: string
}

export interface Policy {
  id: string
  name: string
  description: string
  type: PolicyType
  settings: Record<string, unknown>
  priority: number
  assignments: Assignment[]
  version: number
  updatedAt: string
  updatedBy: string
  devices: { assigned: number; confirmed: number; pending: number; failed: number }
}

export type PolicyChange = Pick<Policy, 'name' | 'description' | 'type' | 'settings' | 'priority' | 'assignments'> & { version?: number }

export interface Tag {
  key: string
  value: string
}

export interface Match {
  environment?: string
  name?: string
  tags?: Tag[]
  osPlatform?: string
}

export interface Group {
  id: string
  name: string
  rank: number
  match: Match
  devices: number
  version: number
  updatedAt: string
  updatedBy: string
}

export interface Source {
  kind: 'policy' | 'plan' | 'default' | 'device'
  id?: string
  name?: string
}

export interface AppliedSetting {
  name: string
  section: PolicyType
  value: unknown
  source: Source
  united?: Source[]
  overridden?: (Source & { value: unknown })[]
  confirmed: boolean
  since: string | null
}

export interface Applied {
  version: number
  composedAt: string | null
  confirmedVersion: number
  confirmedAt: string | null
  pending: boolean
  error: string
  groups: string[]
  settings: AppliedSetting[]
}

type Abort = AbortSignal | undefined

export const listPolicies = (signal?: Abort) => request<List<Policy>>(path(['policies'], { limit: 500 }), { signal })
export const getPolicy = (id: string, signal?: Abort) => request<Policy>(path(['policies', id]), { signal })
export const getCatalogue = (signal?: Abort) => request<{ settings: CatalogueSetting[] }>(path(['policies', 'catalogue']), { signal })
export const createPolicy = (policy: PolicyChange) => request<Policy>(path(['policies']), { method: 'POST', body: policy })
export const savePolicy = (id: string, policy: PolicyChange) => request<Policy>(path(['policies', id]), { method: 'PUT', body: policy })
export const deletePolicy = (id: string) => request<void>(path(['policies', id], { force: 'true' }), { method: 'DELETE' })

export const listGroups = (signal?: Abort) => request<List<Group>>(path(['device-groups'], { limit: 500 }), { signal })
export const createGroup = (group: { name: string; rank: number; match: Match }) => request<Group>(path(['device-groups']), { method: 'POST', body: group })
export const saveGroup = (id: string, group: { version: number; name: string; rank: number; match: Match }) =>
  request<Group>(path(['device-groups', id]), { method: 'PUT', body: group })
export const deleteGroup = (id: string) => request<void>(path(['device-groups', id]), { method: 'DELETE' })

export const getApplied = (device: string, signal?: Abort) => request<Applied>(path(['devices', device, 'policy']), { signal })
