import { makeStyles, Text, tokens } from '@fluentui/react-components'
import { useTranslation } from 'react-i18next'
import type { Condition, DeviceDetail } from '../../api/types'
import { useCondition } from '../../i18n/condition'
import { useFormat, useName } from '../../i18n/names'
import { Facts } from '../../ui/Facts'
import { RouteLink } from '../../ui/links'
import { Ago, Coverage, Moment, RealTime, SensorHealth, Severity, Status, type Tone } from '../../ui/marks'
import { Panel } from '../../ui/Panel'
import { PlainTable } from '../../ui/PlainTable'

const useStyles = makeStyles({
  cards: { display: 'grid', gridTemplateColumns: 'repeat(auto-fit, minmax(min(440px, 100%), 1fr))', gap: tokens.spacingHorizontalL },
  dim: { color: tokens.colorNeutralForeground3 },
  reason: { display: 'flex', flexDirection: 'column' },
  number: { fontSize: tokens.fontSizeHero700, lineHeight: tokens.lineHeightHero700, fontWeight: tokens.fontWeightSemibold },
})

const provisioning: Record<string, Tone> = { Succeeded: 'good', Creating: 'neutral', Failed: 'bad' }
const conditionTones: Record<string, Tone> = { ok: 'good', starting: 'neutral', off: 'neutral', degraded: 'warn', failed: 'bad' }

export function OverviewTab({ device }: { device: DeviceDetail }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const format = useFormat()
  const say = useCondition()
  const { protection, extension, policy, certificate, health } = device
  const text = (key: string) => (typeof health?.[key] === 'string' ? health[key] as string : '')
  const yes = (value: boolean) => <Status tone={value ? 'good' : 'bad'}>{value ? t('value.yes') : t('value.no')}</Status>
  const conditions = health?.conditions ?? []
  const counted = /^(\d+) blocking, (\d+) watching$/.exec(protection.mode ?? '')
  // The agent's own words are English; the parts that ail say the same in any language.
  const ailing = conditions.filter((c) => extension.provisioningState === 'Failed' && ['failed', 'degraded', 'starting'].includes(c.state))
  const message = ailing.length > 0 && health?.licensed
    ? format.list(ailing.map((c) => t('condition.detail', { reason: name('part', c.part), detail: say.reason(c) || name('conditionState', c.state) })))
    : name('message', extension.message)
  return (
    <>
      <div className={styles.cards}>
        <Panel title={t('device.activeAlerts')} actions={<RouteLink to={`/devices/${device.id}?tab=alerts`}>{t('device.showAlerts')}</RouteLink>}>
          <ActiveAlerts device={device} />
        </Panel>
        <Panel title={t('device.protection')}>
          {device.coverage && device.coverage.state !== '' && <Covered coverage={device.coverage} />}
          <Facts facts={[
            { label: t('device.realTime'), value: <RealTime value={protection.realTime} testid="device-realtime" /> },
            { label: t('device.plan'), value: name('plan', device.plan) },
            { label: t('device.licensed'), value: <span data-testid="device-licensed">{yes(protection.licensed)}</span> },
            { label: t('device.healthy'), value: <span data-testid="device-healthy">{yes(protection.healthy)}</span> },
            { label: t('device.scope'), value: counted ? t('device.scopeCounts', { blocking: counted[1], watching: counted[2] }) : name('scope', protection.mode) },
            { label: t('device.definitions'), value: [text('definitions_version'), name('definitions', text('definitions_status'))].filter((part) => part !== '').join(' · ') },
          ]}
          />
        </Panel>
        <Panel title={t('device.extension')}>
          <Facts facts={[
            { label: t('extension.name'), value: extension.name, testid: 'extension-name' },
            { label: t('extension.version'), value: extension.version, testid: 'extension-version' },
            { label: t('extension.state'), value: <Status tone={provisioning[extension.provisioningState] ?? 'neutral'} testid="extension-state">{name('provisioning', extension.provisioningState)}</Status> },
            { label: t('extension.message'), value: message },
          ]}
          />
        </Panel>
        <Panel title={t('device.policy')}>
          <Facts facts={[
            { label: t('policy.confirmed'), value: policy && (policy.confirmedVersion > 0 ? <Confirmed policy={policy} /> : t('policy.none')), testid: 'policy-confirmed' },
            { label: t('policy.confirmedAt'), value: policy?.confirmedAt && <Ago time={policy.confirmedAt} /> },
            { label: t('policy.error'), value: policy?.error },
            { label: t('policy.certificate'), value: certificate?.notAfter && <Moment time={certificate.notAfter} /> },
          ]}
          />
        </Panel>
      </div>
      <Panel title={t('device.conditions')}>
        {conditions.length === 0 ? <Text className={styles.dim}>{t('device.noConditions')}</Text> : <Conditions items={conditions} />}
      </Panel>
      <Panel title={t('device.facts')}>
        <Facts facts={[
          { label: t('device.sensorHealth'), value: <SensorHealth value={device.sensorHealth} /> },
          { label: t('device.onboarding'), value: name('onboarding', device.onboardingStatus) },
          { label: t('device.environment'), value: <RouteLink to={`/environments/${device.environment.id}`}>{device.environment.name || device.environment.id}</RouteLink> },
          { label: t('device.os'), value: device.osName || [device.osDistribution, device.osVersion].join(' ') },
          { label: t('device.kernel'), value: device.kernel },
          { label: t('device.arch'), value: device.arch },
          { label: t('device.ip'), value: (device.ipAddresses ?? []).join(', ') },
          { label: t('device.agentVersion'), value: device.agentVersion },
          { label: t('device.firstSeen'), value: <Moment time={device.firstSeen} /> },
          { label: t('device.lastSeen'), value: <Moment time={device.lastSeen} /> },
          { label: t('device.exposure'), value: name('exposure', device.exposureLevel) },
          { label: t('device.id'), value: device.id },
        ]}
        />
      </Panel>
    </>
  )
}

function ActiveAlerts({ device }: { device: DeviceDetail }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const format = useFormat()
  return (
    <>
      <span className={styles.number} data-testid="device-alerts">{format.number(device.activeAlerts)}</span>
      <Facts facts={[{ label: t('device.risk'), value: <Severity value={device.riskLevel} family="risk" /> }]} />
    </>
  )
}

/** Whether the device is protected; if not, why, and what to do. */
function Covered({ coverage }: { coverage: NonNullable<DeviceDetail['coverage']> }) {
  const styles = useStyles()
  const name = useName()
  const remedy = (reason: string) => {
    const text = name('coverageRemedy', reason)
    return text === reason ? '' : text
  }
  return (
    <>
      <Coverage value={coverage.state} testid="device-covered" />
      {(coverage.reasons ?? []).map((r) => (
        <div key={r} className={styles.reason}>
          <Text>{name('coverageReason', r)}</Text>
          {remedy(r) !== '' && <Text size={200} className={styles.dim}>{remedy(r)}</Text>}
        </div>
      ))}
    </>
  )
}

function Confirmed({ policy }: { policy: NonNullable<DeviceDetail['policy']> }) {
  const { t } = useTranslation()
  const current = policy.confirmedVersion >= policy.version
  return (
    <Status tone={current ? 'good' : 'warn'}>
      {current ? t('policy.current', { version: policy.confirmedVersion }) : t('policy.behind', { version: policy.confirmedVersion, latest: policy.version })}
    </Status>
  )
}

/** The state of every part of the agent, with the reason and the remedy. */
function Conditions({ items }: { items: Condition[] }) {
  const { t } = useTranslation()
  const name = useName()
  const say = useCondition()
  return (
    <PlainTable
      label={t('device.conditions')} items={items} rowId={(c) => c.part} rowTestid="condition-row"
      columns={[
        { id: 'part', header: t('condition.part'), cell: (c) => name('part', c.part) },
        { id: 'state', header: t('condition.state'), tight: true, cell: (c) => <Status tone={conditionTones[c.state] ?? 'neutral'}>{name('conditionState', c.state)}</Status> },
        { id: 'since', header: t('condition.since'), tight: true, cell: (c) => <Ago time={c.since} /> },
        { id: 'reason', header: t('condition.reason'), cell: (c) => say.reason(c) },
        { id: 'remedy', header: t('condition.remedy'), cell: (c) => say.remedy(c) },
      ]}
    />
  )
}
