// Upgrades of the agents in rings, and the signed repository that they come from.
import { path, request } from './client'
import type { Reason } from './machines'

export interface Ring {
  id: string
  /** Percent of the devices that no earlier ring has. */
  share: number
  /** Ids of device groups that are in it whatever the share. */
  groups: string[]
  soakMinutes: number
}

export interface RingProgress {
  ring: string
  devices: number
  done: number
  failed: number
  waiting: number
  /** How long devices were unprotected while they were upgraded. */
  gapMs: { median: number; worst: number } | null
}

export interface UpgradeSettings {
  automatic: boolean
  /** A version, or newest. */
  target: string
  rings: Ring[]
}

export interface Upgrades extends UpgradeSettings {
  version: number
  state: 'idle' | 'running' | 'halted' | 'done'
  /** The ring that is upgraded now. */
  current: string
  halted: Reason | null
  progress: RingProgress[]
  /** How many devices wait for something that nobody waits for, and why. */
  held: { reason: Reason; devices: number }[]
}

interface Signed {
  version: number
  expires: string
}

export interface Package {
  name: string
  version: string
  arch: string
  format: string
  size: number
  sha256: string
  addedAt: string
}

export interface Repository {
  root: Signed
  targets?: Signed
  snapshot?: Signed
  timestamp: Signed
  packages: Package[]
  /** Why it could not be signed again; empty when all is well. */
  problem: string
}

/** A device in an upgrade. */
export interface UpgradeDevice {
  device: { id: string; name: string }
  ring: string
  state: string
  connected: boolean
  from: string
  to: string
  /** What one that waits waits for: device, window, turn. */
  waits: string
  reason: Reason | null
  gapMs: number | null
}

type Abort = AbortSignal | undefined

export const getUpgrades = (signal?: Abort) => request<Upgrades>(path(['upgrades']), { signal })
export const listUpgradeDevices = (query: { ring: string; state: string; held: string; limit: number }, signal?: Abort) =>
  request<{ items: UpgradeDevice[]; total: number; next: string }>(path(['upgrades', 'devices'], { ...query }), { signal })
export const saveUpgrades = (settings: UpgradeSettings & { version: number }) => request<Upgrades>(path(['upgrades']), { method: 'PUT', body: settings })
export const haltUpgrades = () => request<Upgrades>(path(['upgrades', 'halt']), { method: 'POST' })
export const resumeUpgrades = () => request<Upgrades>(path(['upgrades', 'resume']), { method: 'POST' })
export const rollBackUpgrades = () => request<Upgrades>(path(['upgrades', 'rollback']), { method: 'POST' })
export const getRepository = (signal?: Abort) => request<Repository>(path(['repository']), { signal })
