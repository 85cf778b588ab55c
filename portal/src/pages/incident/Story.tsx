import { Button, makeStyles, mergeClasses, tokens } from '@fluentui/react-components'
import { PauseRegular } from '@fluentui/react-icons/svg/pause'
import { PlayRegular } from '@fluentui/react-icons/svg/play'
import { lazy, Suspense, useEffect, useMemo, useState } from 'react'
import { useTranslation } from 'react-i18next'
import type { GraphNode, IncidentStory } from '../../api/incidents'
import { useFormat, useName, useTitle } from '../../i18n/names'
import { useSummary } from '../../i18n/summary'
import { Facts } from '../../ui/Facts'
import { RouteLink } from '../../ui/links'
import { Moment, Severity } from '../../ui/marks'
import { Panel } from '../../ui/Panel'
import { Loading } from '../../ui/states'

const StoryGraph = lazy(() => import('./StoryGraph'))

const useStyles = makeStyles({
  grid: {
    display: 'grid', gridTemplateColumns: '300px minmax(0, 1fr) 300px', gap: tokens.spacingHorizontalL, alignItems: 'stretch', flexGrow: 1, minHeight: '480px',
    '@media (max-width: 1300px)': { gridTemplateColumns: 'minmax(0, 1fr) 300px' }, '@media (max-width: 900px)': { gridTemplateColumns: 'minmax(0, 1fr)' },
  },
  list: { '@media (max-width: 1300px)': { gridColumn: '1 / -1' } },
  alerts: { listStyleType: 'none', margin: 0, padding: 0, display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalXS },
  alert: {
    width: '100%', textAlign: 'left', font: 'inherit', color: 'inherit', background: 'none', cursor: 'pointer', display: 'flex', flexDirection: 'column', gap: '2px',
    border: 0, borderLeft: '3px solid transparent', borderRadius: tokens.borderRadiusMedium, padding: '8px 10px',
    ':hover': { backgroundColor: tokens.colorSubtleBackgroundHover }, ':focus-visible': { outline: `2px solid ${tokens.colorStrokeFocus2}`, outlineOffset: '-2px' },
  },
  current: { backgroundColor: tokens.colorNeutralBackground1Selected, borderLeftColor: tokens.colorCompoundBrandStroke },
  title: { fontWeight: tokens.fontWeightSemibold, overflowWrap: 'anywhere' },
  dim: { color: tokens.colorNeutralForeground3, fontSize: tokens.fontSizeBase200 },
  line: { display: 'flex', flexWrap: 'wrap', gap: tokens.spacingHorizontalM },
  wide: { overflowWrap: 'anywhere' },
})

/** How long each alert stands while the story is played. */
const beat = 1_600

/** What happened: the alerts in the order of time, how everything hangs together, and what is chosen. */
export function Story({ incident }: { incident: IncidentStory }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const title = useTitle()
  const format = useFormat()
  const [chosen, setChosen] = useState('')
  const [step, setStep] = useState(-1)
  const [playing, setPlaying] = useState(false)
  const alerts = useMemo(() => [...(incident.alertItems ?? [])].sort((a, b) => Date.parse(a.firstActivity) - Date.parse(b.firstActivity)), [incident.alertItems])
  useEffect(() => {
    if (!playing) return
    if (step >= alerts.length - 1) {
      const rest = window.setTimeout(() => setPlaying(false), beat)
      return () => window.clearTimeout(rest)
    }
    const timer = window.setTimeout(() => setStep((s) => s + 1), step < 0 ? 0 : beat)
    return () => window.clearTimeout(timer)
  }, [playing, step, alerts.length])
  const nodes = incident.graph?.nodes ?? []
  const of = (alert: string) => nodes.find((n) => n.kind === 'alert' && (n.id === alert || n.href?.endsWith(`/${alert}`) || n.id.endsWith(`:${alert}`)))
  const current = playing ? alerts[step] : undefined
  const node = current ? of(current.id) : nodes.find((n) => n.id === chosen)
  const alert = current ?? alerts.find((a) => of(a.id)?.id === chosen || a.id === chosen)
  return (
    <div className={styles.grid}>
      <Panel
        title={t('story.alerts')} className={styles.list}
        actions={alerts.length > 1 && (
          <Button
            size="small" icon={playing ? <PauseRegular /> : <PlayRegular />} data-testid="story-play"
            onClick={() => {
              if (!playing) setStep(-1)
              setPlaying(!playing)
            }}
          >
            {playing ? t('story.stop') : t('story.play')}
          </Button>
        )}
      >
        <ol className={styles.alerts}>
          {alerts.map((a) => (
            <li key={a.id}>
              <button
                type="button" className={mergeClasses(styles.alert, alert?.id === a.id && styles.current)} aria-pressed={alert?.id === a.id} data-testid="story-alert"
                onClick={() => {
                  setPlaying(false)
                  setChosen(of(a.id)?.id ?? a.id)
                }}
              >
                <span className={styles.dim}>{format.time(a.firstActivity)}</span>
                <span className={styles.title}>{title(a.title)}</span>
                <span className={styles.line}><Severity value={a.severity} /><span className={styles.dim}>{name('alertStatus', a.status)}</span></span>
              </button>
            </li>
          ))}
        </ol>
      </Panel>
      <Suspense fallback={<Loading />}>
        {incident.graph && nodes.length > 0
          ? <StoryGraph graph={incident.graph} selected={node?.id ?? ''} select={(n) => { setPlaying(false); setChosen(n.id) }} until={current ? current.lastActivity : ''} />
          : <Panel title={t('graph.label')}><span className={styles.dim}>{t('graph.none')}</span></Panel>}
      </Suspense>
      <Panel title={alert ? t('alert.one') : node ? name('nodeKind', node.kind) : t('story.details')}>
        {alert ? <AlertPane alert={alert} /> : node ? <EntityPane node={node} /> : <span className={styles.dim}>{t('story.choose')}</span>}
      </Panel>
    </div>
  )
}

function AlertPane({ alert }: { alert: NonNullable<IncidentStory['alertItems']>[number] }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const title = useTitle()
  const summary = useSummary()
  return (
    <>
      <RouteLink to={`/alerts/${alert.id}`} data-testid="story-open">{title(alert.title)}</RouteLink>
      <span className={styles.wide}>{summary(alert.summary)}</span>
      <Facts
        narrow
        facts={[
          { label: t('alert.severity'), value: <Severity value={alert.severity} /> },
          { label: t('alert.status'), value: name('alertStatus', alert.status) },
          { label: t('alert.state'), value: name('threatState', alert.state) },
          { label: t('alert.category'), value: name('category', alert.category) },
          { label: t('alert.device'), value: <RouteLink to={`/devices/${alert.device.id}`}>{alert.device.name}</RouteLink> },
          { label: t('alert.firstActivity'), value: <Moment time={alert.firstActivity} /> },
          { label: t('alert.lastActivity'), value: <Moment time={alert.lastActivity} /> },
        ]}
      />
    </>
  )
}

function EntityPane({ node }: { node: GraphNode }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const fields = Object.entries(node.fields ?? {}).filter(([, value]) => value !== '')
  return (
    <>
      <strong className={styles.wide} data-testid="entity-label">{node.label}</strong>
      <Facts narrow facts={fields.map(([key, value]) => ({ label: name('eventField', key), value: key === 'verdict' ? name('verdict', value) : key === 'state' ? name('remediation', value) : key === 'sensitive' ? name('sensitivity', value) : String(value) }))} />
      {node.href && <RouteLink to={node.href}>{t('story.open')}</RouteLink>}
    </>
  )
}
