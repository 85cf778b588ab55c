import { makeStyles, Text, tokens } from '@fluentui/react-components'
import { useTranslation } from 'react-i18next'
import { listUpgradeDevices, type UpgradeDevice } from '../../api/upgrades'
import { useData } from '../../api/use'
import { useFormat, useName } from '../../i18n/names'
import { RouteLink } from '../../ui/links'
import { Panel } from '../../ui/Panel'
import { PlainTable } from '../../ui/PlainTable'
import { useReason } from '../../ui/reasons'
import { Failure, Loading } from '../../ui/states'

const useStyles = makeStyles({ dim: { color: tokens.colorNeutralForeground3 } })

/** As many as somebody reads; the number of all is said. */
const shown = 200

/** The devices that a number counts: of a ring, or those that wait for a reason. */
export function UpgradeDevices({ ring, state, held }: { ring: string; state: string; held: string }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const format = useFormat()
  const reason = useReason()({ id: held, text: held, remedy: '' })
  const title = held === '' ? t('upgrade.devicesOf', { ring: name('ring', ring) }) : t('upgrade.devicesHeld', { reason: reason.text })
  const devices = useData(`upgrade devices ${ring} ${state} ${held}`, (signal) => listUpgradeDevices({ ring, state, held, limit: shown }, signal), ['upgrade', 'device'], 1_000)
  const why = (d: UpgradeDevice) => (d.reason ? [name('deployReason', d.reason.id), d.reason.detail].filter(Boolean).join(': ') : d.waits === '' ? '' : name('upgradeWaits', d.waits))
  return (
    <Panel title={title} actions={<RouteLink to="/upgrades">{t('action.close')}</RouteLink>}>
      {!devices.data ? (devices.error ? <Failure error={devices.error} retry={devices.reload} /> : <Loading />) : (
        <>
          <PlainTable<UpgradeDevice>
            label={title} items={devices.data.items} rowId={(d) => d.device.id} rowTestid="upgrade-device"
            columns={[
              { id: 'device', header: t('upgrade.device'), cell: (d) => <RouteLink to={`/devices/${encodeURIComponent(d.device.id)}`}>{d.device.name}</RouteLink> },
              { id: 'state', header: t('upgrade.now'), tight: true, cell: (d) => name('upgradeDeviceState', d.state) },
              { id: 'from', header: t('upgrade.from'), tight: true, cell: (d) => d.from },
              { id: 'to', header: t('upgrade.into'), tight: true, cell: (d) => d.to },
              { id: 'gap', header: t('upgrade.gap'), tight: true, cell: (d) => (d.gapMs === null ? <span className={styles.dim}>–</span> : t('upgrade.ms', { number: format.number(d.gapMs) })) },
              { id: 'why', header: t('upgrade.why'), cell: why },
            ]}
          />
          <Text size={200} className={styles.dim}>{t('upgrade.shownOf', { shown: format.number(devices.data.items.length), total: format.number(devices.data.total) })}</Text>
        </>
      )}
    </Panel>
  )
}
