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
}

/** What each cloud asks for. */
export const cloudFields: Record<Exclude<ConnectorKind, 'ssh'>, CloudField[]> = {
  azure: [{ name: 'tenantId' }, { name: 'subscriptionId' }, { name: 'clientId' }, { name: 'clientSecret', secret: true }],
  aws: [{ name: 'region' }, { name: 'roleArn', optional: true }, { name: 'accessKeyId' }, { name: 'secretAccessKey', secret: true }],
  gcp: [{ name: 'projectId' }, { name: 'serviceAccountKey', secret: true, long: true }],
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
      if (!f.secret) cloud[f.name] = String(settings[f.name] ?? '')
    }
  }
  return { name: connector?.name ?? '', ssh, cloud, secret: {} }
}

/** What of the secret is typed. */
const typed = (secret: Secret): Secret => Object.fromEntries(Object.entries(secret).filter(([, value]) => value !== ''))

export const sameDraft = (a: Draft, b: Draft) => JSON.stringify({ ...a, secret: typed(a.secret) }) === JSON.stringify({ ...b, secret: typed(b.secret) })

export function changeOf(kind: ConnectorKind, draft: Draft, base?: Connector): ConnectorChange {
  const secret = typed(draft.secret)
  const change: ConnectorChange = { name: draft.name.trim(), kind, ...(base && { version: base.version }), ...(Object.keys(secret).length > 0 && { secret }) }
  if (kind === 'ssh') return { ...change, ssh: draft.ssh }
  return { ...change, [kind]: Object.fromEntries(Object.entries(draft.cloud).filter(([, value]) => value.trim() !== '')) }
}
