import { Button } from '@fluentui/react-components'
import { ArrowDownloadRegular } from '@fluentui/react-icons/svg/arrow-download'
import { ColumnEditRegular } from '@fluentui/react-icons/svg/column-edit'
import { DesktopRegular } from '@fluentui/react-icons/svg/desktop'
import { FilterRegular } from '@fluentui/react-icons/svg/filter'
import { useState } from 'react'
import { useTranslation } from 'react-i18next'
import { useNavigate, useSearchParams } from 'react-router'
import { deviceFilters, getSummary, listDevices, type Count, type DeviceQuery } from '../api/devices'
import { useRows } from '../api/rows'
import { useData } from '../api/use'
import { HeaderMenu } from '../app/HeaderMenu'
import { useNotify } from '../app/toast'
import { useFormat, useName } from '../i18n/names'
import { FilterBar, SearchFilter, SelectFilter, useFilter } from '../ui/Filters'
import { RouteLink } from '../ui/links'
import { Page } from '../ui/Page'
import { RowTable } from '../ui/PagedTable'
import { Empty, useErrorText } from '../ui/states'
import { Views } from '../ui/Views'
import { useChosen } from './devices/chosen'
import { useDeviceColumns } from './devices/columns'

const healths = ['Active', 'Inactive', 'NoSensorData', 'ImpairedCommunication', 'Misconfigured']
const risks = ['High', 'Medium', 'Low', 'Informational', 'None']
const realTimes = ['on', 'off', 'passive', 'unavailable', 'unknown']
const tabs = ['all', 'protected', 'watching', 'unprotected', 'unlicensed', 'offboarded'] as const
const rare = ['reason', 'realTime', 'environment', 'platform', 'distribution', 'agentVersion', 'tag', 'new'] as const

export default function Devices() {
  const { t } = useTranslation()
  const name = useName()
  const format = useFormat()
  const navigate = useNavigate()
  const notify = useNotify()
  const errorText = useErrorText()
  const [parameters, setParameters] = useSearchParams()
  const [q, setQ] = useFilter('q')
  const [health, setHealth] = useFilter('health')
  const [risk, setRisk] = useFilter('risk')
  const [sort, setSort] = useFilter('sort')
  const [saving, setSaving] = useState(false)
  const columns = useDeviceColumns()
  const [shown, choose] = useChosen(columns)
  const { data: summary } = useData('inventory summary', getSummary, ['device', 'alert', 'plan'])

  const query: DeviceQuery = {}
  for (const filter of deviceFilters) query[filter] = parameters.get(filter) ?? ''
  // Devices that are gone have a tab of their own.
  if (query.onboarding === '') query.onboarding = 'Onboarded'
  const key = JSON.stringify(query)
  const rows = useRows(key, (page, signal) => listDevices({ ...query, ...page }, signal), ['device', 'alert', 'plan'])

  const tab = query.onboarding === 'Offboarded' ? 'offboarded' : tabs.find((id) => id === query.coverage) ?? 'all'
  const setTab = (next: string) => setParameters((old) => {
    const to = new URLSearchParams(old)
    for (const id of ['coverage', 'onboarding', 'reason']) to.delete(id)
    if (next === 'offboarded') to.set('onboarding', 'Offboarded')
    else if (next !== 'all') to.set('coverage', next)
    return to
  }, { replace: true })
  const devices = summary?.devices
  const ofTab = (id: string) => (id === 'all' ? devices?.total : id === 'offboarded' ? devices?.offboarded : devices?.coverage.find((c) => c.state === id)?.count)
  const labels: Record<string, string> = { all: t('inventory.all'), offboarded: t('inventory.offboarded') }

  const used = rare.filter((id) => (parameters.get(id) ?? '') !== '')
  const [opened, setOpened] = useState(false)
  const filtered = deviceFilters.some((id) => id !== 'sort' && (parameters.get(id) ?? '') !== '')
  const clear = () => setParameters((old) => {
    const to = new URLSearchParams(old)
    for (const id of deviceFilters) {
      if (id !== 'sort') to.delete(id)
    }
    return to
  }, { replace: true })
  const download = () => {
    setSaving(true)
    import('./devices/csv').then(async ({ devicesAsCsv, save }) => {
      save(`komainu-devices-${new Date().toISOString().slice(0, 10)}.csv`, await devicesAsCsv(query, shown))
    }).catch((e: unknown) => notify('error', t('inventory.exportFailed'), errorText(e))).finally(() => setSaving(false))
  }
  return (
    <Page
      title={t('nav.devices')} fill
      actions={(
        <>
          <HeaderMenu load={() => import('./devices/ColumnMenu')} extra={{ all: columns, chosen: shown, choose }} trigger={<Button appearance="subtle" icon={<ColumnEditRegular />} data-testid="columns">{t('inventory.columns')}</Button>} />
          <Button appearance="subtle" icon={<ArrowDownloadRegular />} disabledFocusable={saving || rows.total === 0} onClick={download} data-testid="export">{saving ? t('inventory.exporting') : t('inventory.export')}</Button>
        </>
      )}
    >
      <Views
        label={t('inventory.coverage')} testid="inventory" current={tab} choose={setTab}
        views={tabs.map((id) => ({ id, label: labels[id] ?? name('coverage', id), count: ofTab(id) }))}
      />
      <FilterBar count={rows.loading ? undefined : t('list.count', { count: rows.total, number: format.number(rows.total) })}>
        <SearchFilter label={t('device.search')} value={q} set={setQ} testid="device-search" />
        <SelectFilter label={t('device.sensorHealth')} value={health} set={setHealth} all={t('list.all')} choices={healths.map((value) => ({ value, label: name('sensorHealth', value) }))} />
        <SelectFilter label={t('device.risk')} value={risk} set={setRisk} all={t('list.all')} choices={risks.map((value) => ({ value, label: name('risk', value) }))} />
        <Button appearance="subtle" icon={<FilterRegular />} aria-expanded={opened || used.length > 0} onClick={() => setOpened(!opened)} data-testid="more-filters">{t('inventory.moreFilters')}</Button>
        {filtered && <Button appearance="transparent" onClick={clear} data-testid="clear-filters">{t('inventory.clear')}</Button>}
      </FilterBar>
      {(opened || used.length > 0) && <MoreFilters devices={devices} coverage={query.coverage ?? ''} environments={summary?.environments ?? []} />}
      <RowTable
        rows={rows} label={t('nav.devices')} columns={shown} rowTestid="device-row" open={(d) => void navigate(`/devices/${d.id}`)}
        order={{ value: sort === '' ? 'name' : sort, set: (value) => setSort(value === 'name' ? '' : value) }}
        empty={filtered
          ? <Empty icon={<DesktopRegular />} title={t('list.noMatch')} action={<Button onClick={clear}>{t('inventory.clear')}</Button>}>{t('list.noMatchText')}</Empty>
          : (
            <Empty icon={<DesktopRegular />} title={t('device.none')} action={<RouteLink to="/start">{t('device.toGuide')}</RouteLink>}>
              {t('device.noneText')}
            </Empty>
          )}
      />
    </Page>
  )
}

/** Filters whose choices are what there is. */
function MoreFilters({ devices, coverage, environments }: {
  devices: { coverage: { state: string; reasons: Count[] }[]; platforms: Count[]; distributions: Count[]; agentVersions: Count[]; tags: Count[] } | undefined
  coverage: string
  environments: { id: string; name: string }[]
}) {
  const { t } = useTranslation()
  const name = useName()
  const format = useFormat()
  const [reason, setReason] = useFilter('reason')
  const [realTime, setRealTime] = useFilter('realTime')
  const [environment, setEnvironment] = useFilter('environment')
  const [platform, setPlatform] = useFilter('platform')
  const [distribution, setDistribution] = useFilter('distribution')
  const [agentVersion, setAgentVersion] = useFilter('agentVersion')
  const [tag, setTag] = useFilter('tag')
  const [recent, setRecent] = useFilter('new')
  const counted = (list: Count[] | undefined, value: string) => {
    const choices = (list ?? []).map((c) => ({ value: c.value, label: t('inventory.counted', { value: c.value, number: format.number(c.count) }) }))
    // What the address asks for is a choice, also when no device has it now.
    return value !== '' && !choices.some((c) => c.value === value) ? [...choices, { value, label: value }] : choices
  }
  const reasons = [...new Set((devices?.coverage ?? []).filter((c) => coverage === '' || c.state === coverage).flatMap((c) => c.reasons.map((r) => r.value)))]
  if (reason !== '' && !reasons.includes(reason)) reasons.push(reason)
  const all = t('list.all')
  return (
    <FilterBar>
      <SelectFilter label={t('inventory.reasons')} value={reason} set={setReason} all={all} choices={reasons.map((value) => ({ value, label: name('coverageReason', value) }))} />
      <SelectFilter label={t('device.realTime')} value={realTime} set={setRealTime} all={all} choices={realTimes.map((value) => ({ value, label: name('realTime', value) }))} />
      {(environments.length > 1 || environment !== '') && <SelectFilter label={t('device.environment')} value={environment} set={setEnvironment} all={all} choices={environments.map((e) => ({ value: e.id, label: e.name }))} />}
      <SelectFilter label={t('inventory.platform')} value={platform} set={setPlatform} all={all} choices={counted(devices?.platforms, platform)} />
      <SelectFilter label={t('inventory.distribution')} value={distribution} set={setDistribution} all={all} choices={counted(devices?.distributions, distribution)} />
      <SelectFilter label={t('device.agentVersion')} value={agentVersion} set={setAgentVersion} all={all} choices={counted(devices?.agentVersions, agentVersion)} />
      <SelectFilter label={t('inventory.tags')} value={tag} set={setTag} all={all} choices={counted(devices?.tags, tag)} />
      <SelectFilter label={t('device.firstSeen')} value={recent} set={setRecent} all={all} choices={[{ value: 'true', label: t('inventory.newlySeen') }]} />
    </FilterBar>
  )
}
