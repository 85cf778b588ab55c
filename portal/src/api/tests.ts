// Detection tests: harmless things that show that protection works.
import { path, request } from './client'
import type { List } from './types'

export interface DetectionTest {
  id: string
  name: string
  about: string
  command: string
  needs?: string[] | null
}

export interface TestReason {
  id: string
  text: string
  remedy: string
  detail?: string
}

export interface TestStage {
  id: string
  state: 'ok' | 'waiting' | 'missing' | 'skipped'
  at?: string
  detail?: string
}

export interface TestRun {
  id: string
  test: string
  startedAt: string
  outcome: 'running' | 'passed' | 'explained'
  stages: TestStage[]
  reason?: TestReason | null
  warnings?: TestReason[] | null
  device: { id: string; name: string }
  alertId?: string
  incidentId?: string
}

export const listTests = (signal?: AbortSignal) => request<List<DetectionTest>>(path(['detection-tests']), { signal })
export const listRuns = (device: string, signal?: AbortSignal) => request<List<TestRun>>(path(['detection-tests', 'runs'], { device, limit: 20 }), { signal })
export const startTest = (device: string, test: string) => request<TestRun>(path(['devices', device, 'detection-tests']), { method: 'POST', body: { test } })
