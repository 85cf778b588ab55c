// Connectors: the ways to machines that have no agent yet.
import { path, request } from './client'
import type { Reason } from './machines'
import type { List } from './types'

export const connectorKinds = ['ssh', 'azure', 'aws', 'gcp'] as const
export type ConnectorKind = (typeof connectorKinds)[number]

/** The ways to hold a credential, the best first. */
export const credentials = ['push', 'certificate', 'key'] as const
export type Credential = (typeof credentials)[number]

export interface SSH {
  hosts: string
  user: string
  port?: number
  jump?: string
  sudo: 'none' | 'passwordless' | 'password'
  credential: Credential
  hostKeys: 'first_use' | 'listed'
  knownHosts?: string
}

export interface SSHView extends SSH {
  /** For TrustedUserCAKeys of the hosts. */
  caPublicKey: string
  /** For authorized_keys of the hosts. */
  publicKey: string
  hasSecret: boolean
  hasSudoPassword: boolean
}

export interface Connector {
  id: string
  name: string
  environment: string
  kind: ConnectorKind
  version: number
  machines: number
  updatedAt?: string
  updatedBy?: string
  lastSync: string | null
  error: Reason | null
  ssh: SSHView | null
  azure?: CloudSettings | null
  aws?: CloudSettings | null
  gcp?: CloudSettings | null
  /** Empty, or what this kind was not tried on. */
  verified: string
}

/** The settings of a cloud by their names; hasSecret says whether a secret is stored. */
export type CloudSettings = Record<string, unknown>

/** What only goes in. What is left out stays as it is. */
export type Secret = Record<string, string>

export interface ConnectorChange {
  version?: number
  name: string
  kind: ConnectorKind
  ssh?: SSH
  azure?: CloudSettings
  aws?: CloudSettings
  gcp?: CloudSettings
  secret?: Secret
}

export interface Tried {
  name: string
  address: string
  ok: boolean
  reason: Reason | null
  facts: { osName?: string; kernel?: string; arch?: string; agent?: string } | null
}

export interface TestReport {
  hosts: Tried[]
  total: number
  passed: number
}

export interface HostKey {
  host: string
  algorithm: string
  fingerprint: string
  firstSeen: string
  /** The key that the host shows instead; it is not connected to. */
  offered: { algorithm: string; fingerprint: string; at: string } | null
}

type Abort = AbortSignal | undefined

export const listConnectors = (environment: string, signal?: Abort) => request<List<Connector>>(path(['environments', environment, 'connectors'], { limit: 200 }), { signal })
export const getConnector = (id: string, signal?: Abort) => request<Connector>(path(['connectors', id]), { signal })
export const createConnector = (environment: string, change: ConnectorChange) =>
  request<Connector>(path(['environments', environment, 'connectors']), { method: 'POST', body: change })
export const saveConnector = (id: string, change: ConnectorChange) => request<Connector>(path(['connectors', id]), { method: 'PUT', body: change })
export const deleteConnector = (id: string) => request<void>(path(['connectors', id]), { method: 'DELETE' })
export const testNewConnector = (environment: string, change: ConnectorChange) =>
  request<TestReport>(path(['environments', environment, 'connectors', 'test']), { method: 'POST', body: change })
export const testConnector = (id: string, change: ConnectorChange) => request<TestReport>(path(['connectors', id, 'test']), { method: 'POST', body: change })
export const syncConnector = (id: string) => request<{ known: number; added: number; gone: number }>(path(['connectors', id, 'sync']), { method: 'POST' })
export const listHostKeys = (id: string, page: { cursor: string; limit: number }, signal?: Abort) =>
  request<List<HostKey>>(path(['connectors', id, 'host-keys'], page), { signal })
export const acceptHostKey = (id: string, host: string, fingerprint: string) =>
  request<void>(path(['connectors', id, 'host-keys', 'accept']), { method: 'POST', body: { host, fingerprint } })
