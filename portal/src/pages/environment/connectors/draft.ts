// What a person is about to save of a connector. Secrets go in and never come
// back: what is not typed stays as it is.
import type { CloudSettings, Connector, ConnectorChange, ConnectorKind, Secret, SSH } from '../../../api/connectors'

export interface Draft {
  name: string
  ssh: SSH
  cloud: Record<string, string>
  secret: Secret
}

export interface CloudField {
  name: string
  /** Goes in and never comes back. */
  secret?: boolean
  optional?: boolean
  /** More than a line. */
  long?: boolean
  /** Several, separated by commas. */
  list?: boolean
  /** There is a hint for it. */
  hint?: boolean
  example?: string
  /** The name of its words, where another cloud has a field of the same name. */
  words?: string
}

/** What each cloud asks for. */
export const cloudFields: Record<Exclude<ConnectorKind, 'ssh'>, CloudField[]> = {
  azure: [
    { name: 'tenantId', example: '00000000-0000-0000-0000-000000000000' }, { name: 'subscriptionId', example: '00000000-0000-0000-0000-000000000000' },
    { name: 'clientId', optional: true, hint: true }, { name: 'clientSecret', secret: true }, { name: 'resourceGroups', optional: true, list: true, hint: true },
    { name: 'certificates', words: 'azureCertificates', optional: true, long: true, hint: true, example: '-----BEGIN CERTIFICATE-----' },
  ],
  aws: [
    { name: 'regions', list: true, hint: true, example: 'eu-central-1, us-east-1' }, { name: 'accessKeyId', optional: true, hint: true, example: 'AKIAIOSFODNN7EXAMPLE' },
    { name: 'secretAccessKey', secret: true }, { name: 'roleArn', optional: true, hint: true, example: 'arn:aws:iam::123456789012:role/komainu' }, { name: 'externalId', optional: true, hint: true },
    { name: 'certificates', optional: true, long: true, hint: true, example: '-----BEGIN CERTIFICATE-----' },
  ],
  gcp: [{ name: 'projectId', example: 'example-works-123456' }, { name: 'zones', optional: true, list: true, hint: true, example: 'europe-west3-a, europe-west3-b' }, { name: 'serviceAccountKey', secret: true, long: true, hint: true }],
}

const settingsOf = (kind: ConnectorKind, connector?: Connector): CloudSettings => (kind === 'ssh' ? {} : connector?.[kind] ?? {})

export function draftOf(kind: ConnectorKind, connector?: Connector): Draft {
  const s = connector?.ssh
  const ssh: SSH = {
    hosts: s?.hosts ?? '', user: s?.user ?? 'root', port: s?.port || 22, jump: s?.jump ?? '', sudo: s?.sudo ?? 'none', credential: s?.credential ?? 'push', hostKeys: s?.hostKeys ?? 'first_use',
    knownHosts: s?.knownHosts ?? '',
  }
  const cloud: Record<string, string> = {}
  if (kind !== 'ssh') {
    const settings = settingsOf(kind, connector)
    for (const f of cloudFields[kind]) {
      const value = settings[f.name] ?? ''
      if (!f.secret) cloud[f.name] = Array.isArray(value) ? value.join(', ') : String(value)
    }
  }
  return { name: connector?.name ?? '', ssh, cloud, secret: {} }
}

/**
 * Whether a draft may lead where the saved connector does not. A test then
 * wants stored secrets again; the control plane has the last word on it.
 */
export function elsewhere(draft: Draft, base?: Connector): boolean {
  if (!base?.ssh) return false
  const was = draftOf('ssh', base).ssh
  const is = draft.ssh
  return (['hosts', 'user', 'port', 'jump', 'hostKeys'] as const).some((k) => is[k] !== was[k]) || (is.hostKeys === 'listed' && is.knownHosts !== was.knownHosts)
}

/** What of the secret is typed. */
const typed = (secret: Secret): Secret => Object.fromEntries(Object.entries(secret).filter(([, value]) => value !== ''))

export const sameDraft = (a: Draft, b: Draft) => JSON.stringify({ ...a, secret: typed(a.secret) }) === JSON.stringify({ ...b, secret: typed(b.secret) })

export function changeOf(kind: ConnectorKind, draft: Draft, base?: Connector): ConnectorChange {
  const secret = typed(draft.secret)
  const change: ConnectorChange = { name: draft.name.trim(), kind, ...(base && { version: base.version }), ...(Object.keys(secret).length > 0 && { secret }) }
  if (kind === 'ssh') return { ...change, ssh: draft.ssh }
  const settings: CloudSettings = {}
  for (const f of cloudFields[kind]) {
    const value = (draft.cloud[f.name] ?? '').trim()
    if (!f.secret && value !== '') settings[f.name] = f.list ? value.split(/[\s,]+/).filter(Boolean) : value
  }
  return { ...change, [kind]: settings }
}

/** Whether something is missing that a connector cannot do without. */
export function lacks(kind: ConnectorKind, draft: Draft): boolean {
  if (draft.name.trim() === '') return true
  if (kind === 'ssh') return draft.ssh.hosts.trim() === ''
  return cloudFields[kind].some((f) => !f.secret && !f.optional && (draft.cloud[f.name] ?? '').trim() === '')
}
