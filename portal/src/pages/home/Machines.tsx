import { makeStyles, mergeClasses, Text, tokens } from '@fluentui/react-components'
import { useTranslation } from 'react-i18next'
import type { Summary } from '../../api/devices'
import { useFormat } from '../../i18n/names'
import { RouteLink } from '../../ui/links'
import { Panel } from '../../ui/Panel'
import { machinesAt } from '../environment/at'

const useStyles = makeStyles({
  table: { width: '100%', borderCollapse: 'collapse' },
  head: { color: tokens.colorNeutralForeground2, fontSize: tokens.fontSizeBase200, fontWeight: tokens.fontWeightSemibold, textAlign: 'right', padding: '0 0 4px 12px', borderBottom: `1px solid ${tokens.colorNeutralStroke2}` },
  first: { textAlign: 'left', paddingLeft: 0, fontWeight: tokens.fontWeightRegular },
  cell: { textAlign: 'right', padding: '6px 0 6px 12px', borderBottom: `1px solid ${tokens.colorNeutralStroke3}`, overflowWrap: 'anywhere' },
  hint: { color: tokens.colorNeutralForeground3 },
})

/** What the environments know, and how much of it is protected. */
export function Machines({ environments }: { environments: Summary['environments'] }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const format = useFormat()
  const known = environments.filter((e) => (e.machines?.machines ?? 0) > 0)
  const columns = [
    { key: 'machines', label: t('home.known'), state: undefined },
    { key: 'protected', label: t('home.machinesProtected'), state: 'succeeded' },
    { key: 'failed', label: t('home.machinesFailed'), state: 'failed' },
    { key: 'waiting', label: t('home.machinesWaiting'), state: 'waiting' },
  ] as const
  return (
    <Panel title={t('home.machines')} actions={<RouteLink to="/environments">{t('nav.environments')}</RouteLink>}>
      {known.length === 0
        ? <Text className={styles.hint}>{t('home.noMachines')}</Text>
        : (
          <table className={styles.table} aria-label={t('home.machines')} data-testid="home-machines">
            <thead>
              <tr>
                <th scope="col" className={mergeClasses(styles.head, styles.first)}>{t('home.environment')}</th>
                {columns.map((c) => <th key={c.key} scope="col" className={styles.head}>{c.label}</th>)}
              </tr>
            </thead>
            <tbody>
              {known.map((e) => (
                <tr key={e.id}>
                  <th scope="row" className={mergeClasses(styles.cell, styles.first)}><RouteLink to={`/environments/${e.id}`}>{e.name}</RouteLink></th>
                  {columns.map((c) => (
                    <td key={c.key} className={styles.cell}>
                      <RouteLink to={machinesAt(e.id, c.state && { state: c.state })} title={c.label} data-testid={`home-machines-${c.key}`}>{format.number(e.machines?.[c.key] ?? 0)}</RouteLink>
                    </td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        )}
    </Panel>
  )
}
