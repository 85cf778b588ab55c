// Users, API tokens, the audit log and notifications.
import { path, request } from './client'
import type { List } from './types'

export type Role = 'reader' | 'operator' | 'admin'

export interface User {
  id: string
  name: string
  role: Role
  mustChangePassword: boolean
  createdAt: string
  lastSignIn?: string
  /** Only in the answer to a creation or a reset. */
  oneTimePassword?: string
}

export interface ApiToken {
  id: string
  label: string
  role: Role
  createdAt: string
  createdBy: string
  expiresAt: string
  lastUsed?: string
  /** The secret, only in the answer to its creation. */
  token?: string
}

export interface AuditEntry {
  id: string
  time: string
  actor: { kind: 'user' | 'token' | 'system'; id: string; name: string; address: string }
  action: string
  target: { id: string; name: string }
  detail: unknown
}

export type NotificationKind = 'webhook' | 'smtp' | 'syslog'

/** What a kind needs to reach its receiver; the other fields are left out. */
export interface Target {
  url?: string
  host?: string
  port?: number
  security?: string
  username?: string
  from?: string
  to?: string[]
  protocol?: string
  facility?: string
  ca?: string
}

export interface Notification {
  id: string
  name: string
  kind: NotificationKind
  enabled: boolean
  minSeverity: string
  includeTests: boolean
  on: string[]
  target: Target
  secretSet: boolean
  version: number
  lastDelivery: { at: string; ok: boolean; detail: string } | null
  pending: number
  failed: number
  failedDetail: string
  dropped: number
}

export interface NotificationChange {
  name: string
  kind: NotificationKind
  enabled: boolean
  minSeverity: string
  includeTests: boolean
  on: string[]
  target: Target
  /** Left out: as it is. */
  secret?: string
  version?: number
}

type Abort = AbortSignal | undefined

export const listUsers = (signal?: Abort) => request<List<User>>(path(['users'], { limit: 500 }), { signal })
export const createUser = (user: { name: string; role: Role }) => request<User>(path(['users']), { method: 'POST', body: user })
export const changeUser = (id: string, change: { role?: Role; resetPassword?: boolean }) => request<User>(path(['users', id]), { method: 'PATCH', body: change })
export const deleteUser = (id: string) => request<void>(path(['users', id]), { method: 'DELETE' })

export const listApiTokens = (signal?: Abort) => request<List<ApiToken>>(path(['tokens'], { limit: 500 }), { signal })
export const createApiToken = (token: { label: string; role: Role; expiresInSeconds: number }) => request<ApiToken>(path(['tokens']), { method: 'POST', body: token })
export const deleteApiToken = (id: string) => request<void>(path(['tokens', id]), { method: 'DELETE' })

export const listAudit = (query: { action?: string; actor?: string; target?: string; cursor?: string; limit?: number }, signal?: Abort) =>
  request<List<AuditEntry>>(path(['audit'], query), { signal })

export const listNotifications = (signal?: Abort) => request<List<Notification>>(path(['notifications'], { limit: 200 }), { signal })
export const createNotification = (change: NotificationChange) => request<Notification>(path(['notifications']), { method: 'POST', body: change })
export const saveNotification = (id: string, change: NotificationChange) => request<Notification>(path(['notifications', id]), { method: 'PUT', body: change })
export const deleteNotification = (id: string) => request<void>(path(['notifications', id]), { method: 'DELETE' })
export const testNotification = (id: string) => request<{ ok: boolean; detail: string; durationMs: number }>(path(['notifications', id, 'test']), { method: 'POST' })
