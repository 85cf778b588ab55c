import { makeStyles, Text, tokens } from '@fluentui/react-components'
import { useTranslation } from 'react-i18next'
import type { Open } from '../../api/devices'
import { useFormat, useName } from '../../i18n/names'
import { RouteLink } from '../../ui/links'
import { Severity } from '../../ui/marks'
import { Panel } from '../../ui/Panel'

const severities = ['High', 'Medium', 'Low', 'Informational']

const useStyles = makeStyles({
  total: { display: 'flex', alignItems: 'baseline', gap: tokens.spacingHorizontalM },
  number: { fontSize: tokens.fontSizeHero800, lineHeight: tokens.lineHeightHero800, fontWeight: tokens.fontWeightSemibold, color: tokens.colorNeutralForeground1 },
  rows: { listStyleType: 'none', margin: 0, padding: 0 },
  row: { display: 'flex', justifyContent: 'space-between', alignItems: 'center', padding: '6px 0', borderTop: `1px solid ${tokens.colorNeutralStroke3}` },
  hint: { color: tokens.colorNeutralForeground3 },
})

/** What waits for somebody, by severity. */
export function OpenIncidents({ open }: { open: Open }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const format = useFormat()
  return (
    <Panel title={t('home.openIncidents')}>
      <div className={styles.total}>
        <RouteLink to="/incidents?status=Open" className={styles.number} data-testid="home-incidents" title={t('home.openIncidents')}>{format.number(open.total)}</RouteLink>
        <Text className={styles.hint}>{open.total === 0 ? t('home.noIncidents') : t('home.unassigned', { count: open.unassigned, number: format.number(open.unassigned) })}</Text>
      </div>
      <ul className={styles.rows}>
        {severities.map((s) => (
          <li key={s} className={styles.row}>
            <Severity value={s} />
            <RouteLink to={`/incidents?status=Open&severity=${s}`} title={name('severity', s)} data-testid={`home-severity-${s}`}>{format.number(open.bySeverity[s] ?? 0)}</RouteLink>
          </li>
        ))}
      </ul>
    </Panel>
  )
}
