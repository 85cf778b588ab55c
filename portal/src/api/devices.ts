// The inventory: which devices there are, and how many of each.
import { path, request } from './client'
import type { Counts } from './machines'
import type { Device, List, Tier } from './types'

/** What selects devices; the names are those of the API and of the address. */
export const deviceFilters = ['q', 'environment', 'health', 'onboarding', 'coverage', 'reason', 'realTime', 'risk', 'platform', 'distribution', 'agentVersion', 'tag', 'new', 'sort'] as const

export type DeviceQuery = Partial<Record<(typeof deviceFilters)[number], string>>

export const listDevices = (query: DeviceQuery & { cursor?: string; limit?: number }, signal?: AbortSignal) =>
  request<List<Device>>(path(['devices'], { ...query }), { signal })

export interface Count {
  value: string
  count: number
}

export interface CoverageCount {
  state: string
  count: number
  reasons: Count[]
}

export interface Open {
  total: number
  bySeverity: Record<string, number>
  unassigned: number
}

/** The organization at a glance. Each number is the total of the list that the same filter selects. */
export interface Summary {
  devices: {
    total: number
    offboarded: number
    connected: number
    new: number
    coverage: CoverageCount[]
    health: Count[]
    realTime: Count[]
    risk: Count[]
    definitions: Count[]
    platforms: Count[]
    distributions: Count[]
    agentVersions: Count[]
    tags: Count[]
  }
  incidents: Open
  alerts: Open
  environments: { id: string; name: string; plan: 'off' | Tier; devices: { total: number; active: number; protected: number }; machines?: Counts }[]
}

export const getSummary = (signal?: AbortSignal) => request<Summary>(path(['summary']), { signal })
