import { makeStyles, Text, tokens } from '@fluentui/react-components'
import type { ReactNode } from 'react'
import { useTranslation } from 'react-i18next'
import type { Count, Summary } from '../../api/devices'
import { useFormat } from '../../i18n/names'
import { RouteLink } from '../../ui/links'
import { RealTime, SensorHealth } from '../../ui/marks'
import { Panel } from '../../ui/Panel'

const useStyles = makeStyles({
  part: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalXXS },
  heading: { color: tokens.colorNeutralForeground2, fontSize: tokens.fontSizeBase200, fontWeight: tokens.fontWeightSemibold, margin: 0 },
  rows: { listStyleType: 'none', margin: 0, padding: 0 },
  row: { display: 'flex', justifyContent: 'space-between', alignItems: 'center', padding: '5px 0', borderTop: `1px solid ${tokens.colorNeutralStroke3}` },
  hint: { color: tokens.colorNeutralForeground3 },
})

/** What the agents report of themselves. */
export function Protection({ devices }: { devices: Summary['devices'] }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const format = useFormat()
  const part = (heading: string, filter: string, counts: Count[], mark: (value: string) => ReactNode) => (
    <div className={styles.part}>
      <h3 className={styles.heading}>{heading}</h3>
      <ul className={styles.rows}>
        {counts.map((c) => (
          <li key={c.value} className={styles.row}>
            {mark(c.value)}
            <RouteLink to={`/devices?${filter}=${c.value}`}>{format.number(c.count)}</RouteLink>
          </li>
        ))}
      </ul>
    </div>
  )
  return (
    <Panel title={t('home.protection')}>
      {devices.total === 0 ? <Text className={styles.hint}>{t('device.none')}</Text> : (
        <>
          {part(t('device.realTime'), 'realTime', devices.realTime, (v) => <RealTime value={v} />)}
          {part(t('device.sensorHealth'), 'health', devices.health, (v) => <SensorHealth value={v} />)}
        </>
      )}
    </Panel>
  )
}
