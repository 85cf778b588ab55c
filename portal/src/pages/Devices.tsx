import { DesktopRegular } from '@fluentui/react-icons/svg/desktop'
import { useTranslation } from 'react-i18next'
import { useNavigate } from 'react-router'
import { listDevices } from '../api/calls'
import type { Device } from '../api/types'
import { usePaged } from '../api/use'
import { useFormat, useName } from '../i18n/names'
import { FilterBar, SearchFilter, SelectFilter, useFilter } from '../ui/Filters'
import { RouteLink } from '../ui/links'
import { Ago, RealTime, SensorHealth, Severity } from '../ui/marks'
import { osOf } from '../ui/os'
import { Page } from '../ui/Page'
import { PagedTable } from '../ui/PagedTable'
import { Empty } from '../ui/states'
import type { Column } from '../ui/Table'

const healths = ['Active', 'Inactive', 'NoSensorData', 'ImpairedCommunication', 'Misconfigured']

export default function Devices() {
  const { t } = useTranslation()
  const name = useName()
  const format = useFormat()
  const navigate = useNavigate()
  const [q, setQ] = useFilter('q')
  const [health, setHealth] = useFilter('health')
  const [environment] = useFilter('environment')
  const list = usePaged(`devices ${q} ${health} ${environment}`, (page, signal) => listDevices({ q, health, environment, ...page }, signal), ['device', 'alert'])

  const columns: Column<Device>[] = [
    { id: 'name', header: t('device.name'), min: 170, grow: 3, cell: (d) => <RouteLink to={`/devices/${d.id}`} title={d.name}>{d.name}</RouteLink> },
    { id: 'os', header: t('device.os'), min: 130, grow: 2, cell: (d) => osOf(d) },
    { id: 'health', header: t('device.sensorHealth'), min: 130, cell: (d) => <SensorHealth value={d.sensorHealth} testid="device-health" /> },
    { id: 'onboarding', header: t('device.onboarding'), min: 110, cell: (d) => name('onboarding', d.onboardingStatus) },
    { id: 'realTime', header: t('device.realTime'), min: 130, cell: (d) => <RealTime value={d.protection.realTime} testid="device-realtime" /> },
    { id: 'risk', header: t('device.risk'), min: 120, cell: (d) => <Severity value={d.riskLevel} family="risk" /> },
    { id: 'alerts', header: t('device.activeAlerts'), min: 80, cell: (d) => format.number(d.activeAlerts) },
    { id: 'ip', header: t('device.ip'), min: 100, grow: 1, cell: (d) => (d.ipAddresses ?? []).join(', ') },
    { id: 'agent', header: t('device.agentVersion'), min: 80, cell: (d) => d.agentVersion },
    { id: 'seen', header: t('device.lastSeen'), min: 90, cell: (d) => <Ago time={d.lastSeen} /> },
  ]
  const filtered = q !== '' || health !== '' || environment !== ''
  return (
    <Page title={t('nav.devices')} fill>
      <FilterBar count={list.loading ? undefined : t('list.count', { count: list.total, number: format.number(list.total) })}>
        <SearchFilter label={t('device.search')} value={q} set={setQ} testid="device-search" />
        <SelectFilter label={t('device.sensorHealth')} value={health} set={setHealth} all={t('list.all')} choices={healths.map((value) => ({ value, label: name('sensorHealth', value) }))} />
        {environment !== '' && <RouteLink to="/devices">{t('device.allEnvironments')}</RouteLink>}
      </FilterBar>
      <PagedTable
        list={list} label={t('nav.devices')} columns={columns} rowTestid="device-row" open={(d) => void navigate(`/devices/${d.id}`)}
        empty={filtered
          ? <Empty icon={<DesktopRegular />} title={t('list.noMatch')}>{t('list.noMatchText')}</Empty>
          : (
            <Empty icon={<DesktopRegular />} title={t('device.none')} action={<RouteLink to="/environments">{t('device.toEnvironments')}</RouteLink>}>
              {t('device.noneText')}
            </Empty>
          )}
      />
    </Page>
  )
}
