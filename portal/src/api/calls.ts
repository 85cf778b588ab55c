// The calls that the pages make, one function each.
import { path, request } from './client'
import type {
  Alert, Capability, DeviceDetail, Environment, EnvironmentKind, Incident, JoinToken, List, PlanSettings, Session, Tier,
} from './types'

export interface Page {
  cursor?: string
  limit?: number
}

type Abort = AbortSignal | undefined

export const getSession = () => request<Session>(path(['session']), { quiet: true })
export const signIn = (name: string, password: string) => request<Session>(path(['session']), { method: 'POST', body: { name, password }, quiet: true })
export const signOut = () => request<void>(path(['session']), { method: 'DELETE', quiet: true })
export const changePassword = (current: string, next: string) =>
  request<Session>(path(['session', 'password']), { method: 'POST', body: { current, new: next }, quiet: true })

export const listEnvironments = (signal?: Abort) => request<List<Environment>>(path(['environments'], { limit: 200 }), { signal })
export const getEnvironment = (id: string, signal?: Abort) => request<Environment>(path(['environments', id]), { signal })
export const createEnvironment = (environment: { name: string; kind: EnvironmentKind; externalId?: string }) =>
  request<Environment>(path(['environments']), { method: 'POST', body: environment })
export const renameEnvironment = (id: string, name: string) => request<Environment>(path(['environments', id]), { method: 'PATCH', body: { name } })
export const deleteEnvironment = (id: string) => request<void>(path(['environments', id]), { method: 'DELETE' })
export const getPlan = (id: string, signal?: Abort) => request<PlanSettings>(path(['environments', id, 'plan']), { signal })
export const putPlan = (id: string, plan: { version: number; servers: boolean; tier: Tier; settings: Record<string, boolean> }) =>
  request<PlanSettings>(path(['environments', id, 'plan']), { method: 'PUT', body: plan })
export const listCapabilities = (signal?: Abort) => request<{ capabilities: Capability[] }>(path(['plans']), { signal })

export const listTokens = (environment: string, signal?: Abort) =>
  request<List<JoinToken>>(path(['environments', environment, 'join-tokens'], { limit: 200 }), { signal })
export const createToken = (environment: string, token: { label: string; expiresInSeconds: number; maxUses: number }) =>
  request<JoinToken>(path(['environments', environment, 'join-tokens']), { method: 'POST', body: token })
export const revokeToken = (environment: string, id: string) =>
  request<void>(path(['environments', environment, 'join-tokens', id]), { method: 'DELETE' })

export const getDevice = (id: string, signal?: Abort) => request<DeviceDetail>(path(['devices', id]), { signal })

export const listAlerts = (query: QueueQuery & { incident?: string } & Page, signal?: Abort) =>
  request<List<Alert>>(path(['alerts'], { ...query }), { signal })

/** What both queues are filtered by; - as assignee stands for nobody. */
export interface QueueQuery {
  status?: string
  severity?: string
  assignee?: string
  device?: string
  q?: string
  sort?: string
  order?: string
}

export const listIncidents = (query: QueueQuery & Page, signal?: Abort) =>
  request<List<Incident>>(path(['incidents'], { ...query }), { signal })
