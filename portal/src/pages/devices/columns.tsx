import { useTranslation } from 'react-i18next'
import type { Device } from '../../api/types'
import { useFormat, useName } from '../../i18n/names'
import { RouteLink } from '../../ui/links'
import { Ago, Coverage, RealTime, SensorHealth, Severity } from '../../ui/marks'
import { osOf } from '../../ui/os'
import type { Column } from '../../ui/Table'

export interface DeviceColumn extends Column<Device> {
  /** Shown unless somebody chose otherwise. */
  usual?: boolean
  /** What the column is in a file. */
  text: (device: Device) => string
}

/** Every column that the inventory can show. */
export function useDeviceColumns(): DeviceColumn[] {
  const { t } = useTranslation()
  const name = useName()
  const format = useFormat()
  const reasons = (d: Device) => (d.coverage?.reasons ?? []).map((r) => name('coverageReason', r))
  return [
    { id: 'name', header: t('device.name'), min: 170, grow: 3, usual: true, sort: 'name', cell: (d) => <RouteLink to={`/devices/${d.id}`} title={d.name}>{d.name}</RouteLink>, text: (d) => d.name },
    { id: 'coverage', header: t('inventory.coverage'), min: 130, usual: true, cell: (d) => d.coverage && <Coverage value={d.coverage.state} reasons={reasons(d)} testid="device-coverage" />, text: (d) => name('coverage', d.coverage?.state) },
    { id: 'reasons', header: t('inventory.reasons'), min: 160, grow: 1, cell: (d) => <span title={format.list(reasons(d))}>{format.list(reasons(d))}</span>, text: (d) => format.list(reasons(d)) },
    { id: 'health', header: t('device.sensorHealth'), min: 140, grow: 1, usual: true, sort: 'health', cell: (d) => <SensorHealth value={d.sensorHealth} testid="device-health" />, text: (d) => name('sensorHealth', d.sensorHealth) },
    { id: 'risk', header: t('device.risk'), min: 140, usual: true, sort: 'risk', cell: (d) => <Severity value={d.riskLevel} family="risk" />, text: (d) => name('risk', d.riskLevel) },
    { id: 'alerts', header: t('device.activeAlerts'), min: 95, usual: true, cell: (d) => format.number(d.activeAlerts), text: (d) => String(d.activeAlerts) },
    { id: 'realTime', header: t('device.realTime'), min: 130, cell: (d) => <RealTime value={d.protection.realTime} testid="device-realtime" />, text: (d) => name('realTime', d.protection.realTime) },
    { id: 'os', header: t('device.os'), min: 130, grow: 2, usual: true, cell: (d) => osOf(d), text: osOf },
    { id: 'ip', header: t('device.ip'), min: 110, grow: 1, usual: true, cell: (d) => (d.ipAddresses ?? []).join(', '), text: (d) => (d.ipAddresses ?? []).join(' ') },
    { id: 'tags', header: t('inventory.tags'), min: 90, grow: 1, usual: true, cell: (d) => <span title={(d.tags ?? []).join(', ')}>{(d.tags ?? []).join(', ')}</span>, text: (d) => (d.tags ?? []).join(' ') },
    { id: 'seen', header: t('device.lastSeen'), min: 100, usual: true, sort: 'lastSeen', cell: (d) => <Ago time={d.lastSeen} />, text: (d) => d.lastSeen },
    { id: 'environment', header: t('device.environment'), min: 140, grow: 1, cell: (d) => d.environment.name, text: (d) => d.environment.name },
    { id: 'plan', header: t('device.plan'), min: 60, cell: (d) => name('plan', d.plan), text: (d) => d.plan },
    { id: 'onboarding', header: t('device.onboarding'), min: 110, cell: (d) => name('onboarding', d.onboardingStatus), text: (d) => name('onboarding', d.onboardingStatus) },
    { id: 'platform', header: t('inventory.platform'), min: 90, cell: (d) => d.osPlatform, text: (d) => d.osPlatform },
    { id: 'distribution', header: t('inventory.distribution'), min: 100, cell: (d) => d.osDistribution, text: (d) => d.osDistribution },
    { id: 'osVersion', header: t('inventory.osVersion'), min: 100, cell: (d) => d.osVersion, text: (d) => d.osVersion },
    { id: 'kernel', header: t('device.kernel'), min: 130, cell: (d) => d.kernel, text: (d) => d.kernel },
    { id: 'arch', header: t('device.arch'), min: 90, cell: (d) => d.arch, text: (d) => d.arch },
    { id: 'agent', header: t('device.agentVersion'), min: 100, sort: 'agentVersion', cell: (d) => d.agentVersion, text: (d) => d.agentVersion },
    { id: 'firstSeen', header: t('device.firstSeen'), min: 110, sort: 'firstSeen', cell: (d) => <Ago time={d.firstSeen} />, text: (d) => d.firstSeen },
    { id: 'exposure', header: t('device.exposure'), min: 130, cell: (d) => name('exposure', d.exposureLevel), text: (d) => name('exposure', d.exposureLevel) },
    { id: 'id', header: t('device.id'), min: 170, cell: (d) => d.id, text: (d) => d.id },
  ]
}
