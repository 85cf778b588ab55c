import { makeStyles, mergeClasses, tokens } from '@fluentui/react-components'
import { useTranslation } from 'react-i18next'
import type { Summary } from '../../api/devices'
import { useFormat, useName } from '../../i18n/names'
import { RouteLink } from '../../ui/links'
import { Coverage as Mark } from '../../ui/marks'
import { Panel } from '../../ui/Panel'

const useStyles = makeStyles({
  bar: { display: 'flex', height: '12px', borderRadius: tokens.borderRadiusMedium, overflow: 'hidden', gap: '2px', backgroundColor: tokens.colorNeutralBackground4 },
  protected: { backgroundColor: tokens.colorStatusSuccessBackground3 },
  watching: { backgroundColor: tokens.colorStatusWarningBackground3 },
  unprotected: { backgroundColor: tokens.colorStatusDangerBackground3 },
  unlicensed: { backgroundColor: tokens.colorNeutralForeground4 },
  states: { display: 'grid', gridTemplateColumns: 'repeat(auto-fit, minmax(min(210px, 100%), 1fr))', gap: tokens.spacingHorizontalXXL },
  state: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalXS, minWidth: 0 },
  number: { fontSize: tokens.fontSizeHero800, lineHeight: tokens.lineHeightHero800, fontWeight: tokens.fontWeightSemibold, color: tokens.colorNeutralForeground1, alignSelf: 'flex-start' },
  reasons: { listStyleType: 'none', margin: 0, padding: 0, display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalXXS, fontSize: tokens.fontSizeBase200 },
  reason: { display: 'flex', gap: tokens.spacingHorizontalS, justifyContent: 'space-between', borderTop: `1px solid ${tokens.colorNeutralStroke3}`, paddingTop: tokens.spacingVerticalXXS },
})

/** How many devices are protected, and why the others are not. */
export function Coverage({ devices }: { devices: Summary['devices'] }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const format = useFormat()
  const colours: Record<string, string> = { protected: styles.protected, watching: styles.watching, unprotected: styles.unprotected, unlicensed: styles.unlicensed }
  const texts: Record<string, string> = { protected: t('coverage.protected'), watching: t('coverage.watching'), unprotected: t('coverage.unprotected'), unlicensed: t('coverage.unlicensed') }
  return (
    <Panel
      title={t('coverage.title')}
      actions={<RouteLink to="/devices" data-testid="home-devices">{t('coverage.devices', { count: devices.total, number: format.number(devices.total) })}</RouteLink>}
    >
      <div className={styles.bar} aria-hidden>
        {devices.coverage.filter((c) => c.count > 0).map((c) => <span key={c.state} className={colours[c.state]} style={{ flexGrow: c.count, minWidth: '6px' }} />)}
      </div>
      <div className={styles.states}>
        {devices.coverage.map((c) => (
          <div key={c.state} className={styles.state}>
            <Mark value={c.state} />
            <RouteLink to={`/devices?coverage=${c.state}`} className={styles.number} data-testid={`home-${c.state}`} title={name('coverage', c.state)}>{format.number(c.count)}</RouteLink>
            {c.reasons.length === 0
              ? <span className={mergeClasses(styles.reasons)}>{texts[c.state]}</span>
              : (
                <ul className={styles.reasons}>
                  {c.reasons.map((r) => (
                    <li key={r.value} className={styles.reason}>
                      <span>{name('coverageReason', r.value)}</span>
                      <RouteLink to={`/devices?coverage=${c.state}&reason=${r.value}`} title={name('coverageReason', r.value)} data-testid={`home-reason-${r.value}`}>{format.number(r.count)}</RouteLink>
                    </li>
                  ))}
                </ul>
              )}
          </div>
        ))}
      </div>
    </Panel>
  )
}
