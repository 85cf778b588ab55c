import { makeStyles, Text, tokens } from '@fluentui/react-components'
import { useTranslation } from 'react-i18next'
import { getDevice } from '../../api/calls'
import type { IncidentStory } from '../../api/incidents'
import { useData } from '../../api/use'
import { useFormat } from '../../i18n/names'
import { RouteLink } from '../../ui/links'
import { Coverage, SensorHealth, Severity } from '../../ui/marks'
import { osOf } from '../../ui/os'
import { Panel } from '../../ui/Panel'
import { PlainTable } from '../../ui/PlainTable'

const useStyles = makeStyles({ dim: { color: tokens.colorNeutralForeground3 } })

/** So many devices are looked up; an incident of more is about something else. */
const most = 20

/** What was hit: devices as they are now, and accounts. */
export function Assets({ incident }: { incident: IncidentStory }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const format = useFormat()
  const refs = (incident.devices ?? []).slice(0, most)
  const devices = useData(
    `assets ${refs.map((d) => d.id).join(' ')}`, (signal) => Promise.all(refs.map((d) => getDevice(d.id, signal).catch(() => undefined))),
    refs.map((d) => `device:${d.id}` as const), 1_000,
  )
  const rows = refs.map((ref, i) => ({ ref, device: devices.data?.[i] }))
  const users = (incident.graph?.nodes ?? []).filter((n) => n.kind === 'user')
  const alertsOf = (id: string) => (incident.alertItems ?? []).filter((a) => a.device.id === id).length
  return (
    <>
      <Panel title={t('incident.devices')}>
        <PlainTable
          label={t('incident.devices')} items={rows} rowId={(r) => r.ref.id} rowTestid="asset-device"
          columns={[
            { id: 'name', header: t('device.name'), cell: (r) => <RouteLink to={`/devices/${r.ref.id}`} data-testid="incident-device">{r.ref.name}</RouteLink> },
            { id: 'alerts', header: t('incident.alerts'), tight: true, cell: (r) => format.number(alertsOf(r.ref.id)) },
            { id: 'risk', header: t('device.risk'), tight: true, cell: (r) => r.device && <Severity value={r.device.riskLevel} family="risk" /> },
            { id: 'coverage', header: t('inventory.coverage'), tight: true, cell: (r) => r.device?.coverage && <Coverage value={r.device.coverage.state} /> },
            { id: 'health', header: t('device.sensorHealth'), tight: true, cell: (r) => r.device && <SensorHealth value={r.device.sensorHealth} /> },
            { id: 'os', header: t('device.os'), cell: (r) => r.device && osOf(r.device) },
          ]}
        />
      </Panel>
      <Panel title={t('incident.users')}>
        {users.length === 0 ? <Text className={styles.dim}>{t('incident.noUsers')}</Text> : (
          <PlainTable label={t('incident.users')} items={users} rowId={(u) => u.id} rowTestid="asset-user" columns={[{ id: 'name', header: t('device.name'), cell: (u) => u.label }]} />
        )}
      </Panel>
    </>
  )
}
