// Machines that environments know, with an agent or without one, and how they
// are brought under protection.
import { path, request } from './client'
import type { List, Tier } from './types'
import type { Tag } from './policies'

/** Why something is as it is, and what to do about it. Texts are English; id and detail are for other languages. */
export interface Reason {
  id: string
  text: string
  remedy: string
  /** The part of it that no catalogue can hold. */
  detail?: string
}

export const machineStates = ['succeeded', 'failed', 'creating', 'waiting', 'not_applicable', 'none', 'removing'] as const
export type MachineState = (typeof machineStates)[number]

export type PlanChoice = 'inherit' | 'off' | Tier

export interface Ref {
  id: string
  name: string
}

/** The agent on a machine as an extension of it. */
export interface Extension {
  name: string
  state: MachineState
  /** While it is creating. */
  step: string
  /** What it waits for. */
  waits: string
  reason: Reason | null
  since: string
  startedAt: string | null
  /** That the latest successful deployment took. */
  seconds: number
  attempt: number
  nextAttemptAt: string | null
  agentVersion: string
  selfTestRun: string
  alert: string
  protectedAt: string | null
  /** Malware is reported, not blocked, until observeUntil. */
  observing: boolean
  observeUntil: string | null
}

export interface Machine {
  id: string
  name: string
  environment: Ref
  source: string
  connector: Ref | null
  address: string
  externalId: string
  os: string
  arch: string
  tags: Tag[]
  /** Those of the tags that people gave here; the others are the inventory's. */
  ownTags: Tag[]
  plan: { effective: 'off' | Tier; setting: PlanChoice; from: 'environment' | 'machine' | 'tag' }
  /** The tag that excludes it. */
  excludedBy: string
  device: Ref | null
  firstSeen: string
  lastSeen: string
  /** Its inventory does not name it any more. */
  gone: boolean
  offboarded: boolean
  /** Its own host has done that. */
  offboardedByHost: boolean
  offboardedAt: string | null
  extension: Extension
  protected: boolean
  version: number
}

export interface JournalLine {
  at: string
  step: string
  state: 'ok' | 'failed' | 'info'
  text: string
  reason: Reason | null
}

export interface MachineDetail extends Machine {
  /** The oldest first. */
  journal: JournalLine[]
}

/** What selects machines; the names are those of the API and of the address. */
export const machineFilters = ['q', 'state', 'reason', 'connector', 'tag', 'plan', 'setting', 'sort'] as const

export type MachineQuery = Partial<Record<(typeof machineFilters)[number], string>>

export interface Counts {
  machines: number
  protected: number
  waiting: number
  creating: number
  failed: number
  not_applicable: number
  none: number
  removing: number
}

export interface ReasonCount extends Reason {
  state: MachineState
  count: number
}

export interface Window {
  /** None: every day. */
  days: string[]
  start: string
  minutes: number
  timezone?: string
}

export interface OnboardingSettings {
  automatic: boolean
  concurrency: number
  dryRun: boolean
  window: Window | null
  observe: { enabled: boolean; hours: number }
  excludeTags: Tag[]
  allowHostOffboarding: boolean
  /** Without the proof by a harmless detection. */
  skipSelfTest: boolean
  /** 0: for good. */
  keepOffboardedDays: number
}

export interface Onboarding extends OnboardingSettings {
  environment: string
  version: number
  updatedAt?: string
  updatedBy: string
  counts: Counts
  reasons: ReasonCount[]
  /** Machines that are worked on now, at most 100. */
  working: Machine[]
}

export interface PreviewLine {
  machine: Ref
  address: string
  would: 'install' | 'upgrade' | 'repair' | 'verify' | 'nothing' | 'skip'
  reason: Reason | null
}

export interface CoveragePoint {
  at: string
  machines: number
  protected: number
  failed: number
  notApplicable: number
}

type Abort = AbortSignal | undefined

export const listMachines = (query: MachineQuery & { environment?: string; cursor?: string; limit?: number }, signal?: Abort) =>
  request<List<Machine>>(path(['machines'], { ...query }), { signal })
export const getMachine = (id: string, signal?: Abort) => request<MachineDetail>(path(['machines', id]), { signal })
export const changeMachine = (id: string, change: { version: number; plan?: PlanChoice; tags?: Tag[] }) =>
  request<MachineDetail>(path(['machines', id]), { method: 'PATCH', body: change })
export const deployMachine = (id: string, how: { despiteConflict?: boolean; takeOver?: boolean } = {}) =>
  request<MachineDetail>(path(['machines', id, 'deploy']), { method: 'POST', body: how })
export const offboardMachine = (id: string, reason: string) => request<MachineDetail>(path(['machines', id, 'offboard']), { method: 'POST', body: { reason } })
export const deleteMachine = (id: string) => request<void>(path(['machines', id]), { method: 'DELETE' })

export const getOnboarding = (environment: string, signal?: Abort) => request<Onboarding>(path(['environments', environment, 'onboarding']), { signal })
export const saveOnboarding = (environment: string, settings: OnboardingSettings & { version: number }) =>
  request<Onboarding>(path(['environments', environment, 'onboarding']), { method: 'PUT', body: settings })
export const previewOnboarding = (environment: string, page: { cursor: string; limit: number }, signal?: Abort) =>
  request<List<PreviewLine>>(path(['environments', environment, 'onboarding', 'preview'], page), { method: 'POST', signal })
export const getCoverage = (environment: string, days: number, signal?: Abort) =>
  request<{ points: CoveragePoint[] }>(path(['environments', environment, 'coverage'], { days }), { signal })
