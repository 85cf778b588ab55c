import { Button, makeStyles, MessageBar, MessageBarBody, Text, tokens } from '@fluentui/react-components'
import { useState } from 'react'
import { useTranslation } from 'react-i18next'
import { listRuns, listTests, startTest, type DetectionTest, type TestReason, type TestRun } from '../../api/tests'
import { useData } from '../../api/use'
import { useMay } from '../../app/session'
import { useFormat, useName } from '../../i18n/names'
import { RouteLink } from '../../ui/links'
import { Ago, Status, type Tone } from '../../ui/marks'
import { Panel } from '../../ui/Panel'
import { PlainTable } from '../../ui/PlainTable'
import { Failure, Loading, useErrorText } from '../../ui/states'

const useStyles = makeStyles({
  stages: { listStyleType: 'none', margin: 0, padding: 0, display: 'grid', gridTemplateColumns: 'repeat(auto-fit, minmax(130px, 1fr))', gap: tokens.spacingHorizontalM },
  stage: { display: 'flex', flexDirection: 'column', borderTop: `3px solid ${tokens.colorNeutralStroke2}`, paddingTop: tokens.spacingVerticalXS, minWidth: 0 },
  dim: { color: tokens.colorNeutralForeground3, fontSize: tokens.fontSizeBase200, overflowWrap: 'anywhere' },
  head: { display: 'flex', flexWrap: 'wrap', gap: tokens.spacingHorizontalL, alignItems: 'baseline' },
  run: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalM, paddingBottom: tokens.spacingVerticalM, borderBottom: `1px solid ${tokens.colorNeutralStroke3}` },
  about: { display: 'flex', flexDirection: 'column' },
  remedy: { display: 'block' },
})

const stageTones: Record<string, Tone> = { ok: 'good', waiting: 'neutral', missing: 'bad', skipped: 'neutral' }
const outcomeTones: Record<string, Tone> = { running: 'neutral', passed: 'good', explained: 'bad' }

/** Which detection tests there are, and how far each run came; when nothing fired, why. */
export default function TestsTab({ device, connected }: { device: string; connected: boolean }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const may = useMay('tests.run')
  const errorText = useErrorText()
  const tests = useData('detection tests', listTests)
  const runs = useData(`detection tests of ${device}`, (signal) => listRuns(device, signal), ['run'])
  const [busy, setBusy] = useState('')
  const [error, setError] = useState<unknown>()
  if (!tests.data || !runs.data) {
    const failed = tests.error ?? runs.error
    return failed ? <Failure error={failed} retry={() => { tests.reload(); runs.reload() }} /> : <Loading />
  }
  const start = (test: DetectionTest) => {
    setBusy(test.id)
    setError(undefined)
    startTest(device, test.id).then(runs.reload, setError).finally(() => setBusy(''))
  }
  return (
    <>
      {error !== undefined && <MessageBar intent="error" layout="multiline" role="alert"><MessageBarBody>{errorText(error)}</MessageBarBody></MessageBar>}
      {runs.data.items.length > 0 && (
        <Panel title={t('tests.runs')}>
          {runs.data.items.slice(0, 5).map((run) => <Run key={run.id} run={run} />)}
        </Panel>
      )}
      <Panel title={t('tests.title')}>
        <Text className={styles.dim}>{connected ? t('tests.intro') : t('tests.offline')}</Text>
        <PlainTable
          label={t('tests.title')} items={tests.data.items} rowId={(test) => test.id} rowTestid="test-row"
          columns={[
            { id: 'name', header: t('tests.name'), cell: (test) => <div className={styles.about}><strong>{known(name('testName', test.id), test.id, test.name)}</strong><span className={styles.dim}>{known(name('testAbout', test.id), test.id, test.about)}</span></div> },
            { id: 'command', header: t('tests.command'), tight: true, cell: (test) => <code className={styles.dim}>{test.command}</code> },
            { id: 'run', header: t('tests.action'), tight: true, cell: (test) => <Button size="small" disabled={!may || !connected} disabledFocusable={busy !== ''} onClick={() => start(test)} data-testid={`test-run-${test.id}`}>{t('tests.run')}</Button> },
          ]}
        />
      </Panel>
    </>
  )
}

/** What the catalogue says, or what came from the API when it says nothing. */
const known = (text: string, id: string, came: string) => (text === id ? came : text)

function Run({ run }: { run: TestRun }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const format = useFormat()
  return (
    <div className={styles.run} data-testid="test-result" data-outcome={run.outcome}>
      <div className={styles.head}>
        <Text weight="semibold">{known(name('testName', run.test), run.test, run.test)}</Text>
        <Status tone={outcomeTones[run.outcome] ?? 'neutral'}>{name('testOutcome', run.outcome)}</Status>
        <span className={styles.dim}><Ago time={run.startedAt} /></span>
        {run.alertId && <RouteLink to={`/alerts/${run.alertId}`}>{t('tests.alert')}</RouteLink>}
      </div>
      {[run.reason, ...(run.warnings ?? [])].filter((r): r is TestReason => Boolean(r)).map((r) => (
        <MessageBar key={r.id} intent={r === run.reason ? 'error' : 'warning'} layout="multiline">
          <MessageBarBody>
            <strong>{reasonOf(r, name('testReason', r.id))}</strong>
            <span className={styles.remedy}>{known(name('testRemedy', r.id), r.id, r.remedy)}</span>
          </MessageBarBody>
        </MessageBar>
      ))}
      <ol className={styles.stages}>
        {run.stages.map((stage) => (
          <li key={stage.id} className={styles.stage} data-testid={`test-stage-${stage.id}`} data-state={stage.state}>
            <Status tone={stageTones[stage.state] ?? 'neutral'}>{name('testStage', stage.id)}</Status>
            <span className={styles.dim}>{stage.state === 'ok' ? format.clock(stage.at) : name('testState', stage.state)}</span>
          </li>
        ))}
      </ol>
    </div>
  )
}

function reasonOf(r: TestReason, text: string): string {
  if (text === r.id) return r.text
  return r.detail ? `${text}: ${r.detail}` : text
}
