// Alerts and incidents as people work on them: who has it, what it was, what
// was said about it.
import { path, request } from './client'
import type { AlertDetail, AlertStatus, Evidence, IncidentDetail, IncidentStatus } from './types'

/** What an alert or an incident turned out to be. */
export const classifications = ['NotSet', 'TruePositive', 'InformationalExpectedActivity', 'FalsePositive'] as const

/** What can be said more exactly under each classification. */
export const determinations: Record<string, string[]> = {
  TruePositive: ['MultiStagedAttack', 'MaliciousUserActivity', 'CompromisedUser', 'Malware', 'Phishing', 'UnwantedSoftware', 'Other'],
  InformationalExpectedActivity: ['SecurityTesting', 'LineOfBusinessApplication', 'ConfirmedUserActivity', 'Other'],
  FalsePositive: ['Clean', 'InsufficientData', 'Other'],
}

export interface Comment {
  id: string
  author: string
  at: string
  text: string
}

/** Who changed what, and when. */
export interface Activity {
  id?: string
  at: string
  actor: string
  /** What was changed: the name of a field, or what happened. */
  action: string
  from?: string
  to?: string
  /** The alert that it was done to, when it was not the incident itself. */
  alert?: string
}

export interface GraphNode {
  id: string
  kind: 'device' | 'process' | 'file' | 'user' | 'address' | 'alert'
  label: string
  severity?: string
  href?: string
  fields?: Record<string, string> | null
}

export interface GraphEdge {
  from: string
  to: string
  label?: string
  time?: string
  alert?: string
}

export interface Graph {
  nodes?: GraphNode[] | null
  edges?: GraphEdge[] | null
}

interface Worked {
  assignee?: string
  classification?: string
  determination?: string
  comments?: Comment[] | null
}

export type AlertStory = AlertDetail & Worked & {
  rule?: { id: string; name: string; version: string; about?: string; logic?: string; matched?: Record<string, string> | null }
}

export type IncidentStory = IncidentDetail & Worked & {
  activity?: Activity[] | null
  graph?: Graph | null
  evidence?: (Evidence & { alert?: string; device?: { id: string; name: string } })[] | null
}

/** What a change has done beyond what was asked for. */
export interface Effect {
  kind: 'alerts' | 'incident'
  field: string
  to: string
  count: number
}

interface Changed {
  effects?: Effect[] | null
}

export interface AlertChange {
  /** The values that the change is based on: where another one would be lost, it is refused. */
  was?: Record<string, string>
  status?: AlertStatus
  assignee?: string
  classification?: string
  determination?: string
}

export interface IncidentChange {
  was?: Record<string, string>
  name?: string
  status?: IncidentStatus
  severity?: string
  assignee?: string
  classification?: string
  determination?: string
}

export const getAlertStory = (id: string, signal?: AbortSignal) => request<AlertStory>(path(['alerts', id]), { signal })
export const getIncidentStory = (id: string, signal?: AbortSignal) => request<IncidentStory>(path(['incidents', id]), { signal })
export const changeAlert = (id: string, change: AlertChange) => request<Changed>(path(['alerts', id]), { method: 'PATCH', body: change })
export const changeIncident = (id: string, change: IncidentChange) => request<Changed>(path(['incidents', id]), { method: 'PATCH', body: change })
export const commentOn = (kind: 'alerts' | 'incidents', id: string, text: string) => request<Comment>(path([kind, id, 'comments']), { method: 'POST', body: { text } })

/** Names that work can be given to. */
export const listAssignees = async (signal?: AbortSignal): Promise<string[]> => {
  const list = await request<{ items: (string | { name: string })[] }>(path(['assignees']), { signal })
  return list.items.map((item) => (typeof item === 'string' ? item : item.name))
}
