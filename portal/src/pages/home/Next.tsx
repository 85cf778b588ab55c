import { makeStyles, Text, tokens } from '@fluentui/react-components'
import { CheckmarkCircleFilled } from '@fluentui/react-icons/svg/checkmark-circle'
import { ChevronRightRegular } from '@fluentui/react-icons/svg/chevron-right'
import { useTranslation } from 'react-i18next'
import type { Summary } from '../../api/devices'
import { useFormat, useName } from '../../i18n/names'
import { RouteLink } from '../../ui/links'
import { Panel } from '../../ui/Panel'

const useStyles = makeStyles({
  list: { listStyleType: 'none', margin: 0, padding: 0, display: 'flex', flexDirection: 'column' },
  item: { display: 'grid', gridTemplateColumns: '16px minmax(0, 1fr)', gap: tokens.spacingHorizontalS, padding: '8px 0', borderTop: `1px solid ${tokens.colorNeutralStroke3}` },
  icon: { fontSize: '16px', lineHeight: tokens.lineHeightBase300, color: tokens.colorNeutralForeground3 },
  text: { display: 'flex', flexDirection: 'column', alignItems: 'flex-start', minWidth: 0 },
  hint: { color: tokens.colorNeutralForeground3 },
  good: { display: 'flex', alignItems: 'center', gap: tokens.spacingHorizontalS },
  mark: { color: tokens.colorStatusSuccessForeground1, display: 'flex', fontSize: '20px' },
})

/** How many things are said at a time. */
const most = 5

interface Task {
  to: string
  title: string
  text?: string
}

/** What to do next, what matters most first. */
export function Next({ summary }: { summary: Summary }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const format = useFormat()
  const { devices, incidents, environments } = summary
  const tasks: Task[] = []
  const high = incidents.bySeverity.High ?? 0
  if (high > 0) tasks.push({ to: '/incidents?status=Open&severity=High', title: t('next.high', { count: high, number: format.number(high) }), text: t('next.highText') })
  for (const e of environments) {
    if (e.plan === 'off') tasks.push({ to: `/environments/${e.id}`, title: t('next.plan', { name: e.name }), text: t('next.planText') })
  }
  if (devices.total === 0) tasks.push({ to: '/start', title: t('next.enrol'), text: t('next.enrolText') })
  for (const c of devices.coverage.filter((c) => c.state === 'unprotected' || c.state === 'watching')) {
    for (const r of c.reasons) {
      tasks.push({
        to: `/devices?coverage=${c.state}&reason=${r.value}`, text: name('coverageRemedy', r.value),
        title: t('next.devices', { count: r.count, number: format.number(r.count), reason: name('coverageReason', r.value) }),
      })
    }
  }
  if (incidents.unassigned > 0) tasks.push({ to: '/incidents?status=Open&assignee=-', title: t('next.unassigned', { count: incidents.unassigned, number: format.number(incidents.unassigned) }) })
  return (
    <Panel title={t('home.next')}>
      {tasks.length === 0
        ? <div className={styles.good}><span className={styles.mark} aria-hidden><CheckmarkCircleFilled /></span><Text>{t('next.nothing')}</Text></div>
        : (
          <ul className={styles.list}>
            {tasks.slice(0, most).map((task) => (
              <li key={task.to + task.title} className={styles.item}>
                <span className={styles.icon} aria-hidden><ChevronRightRegular /></span>
                <span className={styles.text}>
                  <RouteLink to={task.to} data-testid="home-task">{task.title}</RouteLink>
                  {task.text && <Text size={200} className={styles.hint}>{task.text}</Text>}
                </span>
              </li>
            ))}
          </ul>
        )}
    </Panel>
  )
}
