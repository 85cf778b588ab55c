import { Button, makeStyles, mergeClasses, MessageBar, MessageBarBody, Text, tokens } from '@fluentui/react-components'
import { useState } from 'react'
import { useTranslation } from 'react-i18next'
import { useSearchParams } from 'react-router'
import { getRepository, getUpgrades, haltUpgrades, resumeUpgrades, rollBackUpgrades, type RingProgress, type Upgrades as View } from '../../api/upgrades'
import { useData } from '../../api/use'
import { useMay } from '../../app/session'
import { useNotify } from '../../app/toast'
import { useFormat, useName } from '../../i18n/names'
import { RouteLink } from '../../ui/links'
import { Status, type Tone } from '../../ui/marks'
import { Page } from '../../ui/Page'
import { Panel } from '../../ui/Panel'
import { PlainTable } from '../../ui/PlainTable'
import { ReasonNote } from '../../ui/reasons'
import { Failure, Loading, useErrorText } from '../../ui/states'
import { Confirm } from '../environment/Confirm'
import { RepositoryPanel } from './RepositoryPanel'
import { RingsForm } from './RingsForm'
import { UpgradeDevices } from './UpgradeDevices'

const useStyles = makeStyles({
  head: { display: 'flex', flexWrap: 'wrap', alignItems: 'center', gap: tokens.spacingHorizontalXL },
  acts: { display: 'flex', flexWrap: 'wrap', gap: tokens.spacingHorizontalS },
  dim: { color: tokens.colorNeutralForeground3 },
  bar: { display: 'flex', width: '160px', height: '8px', borderRadius: tokens.borderRadiusMedium, overflow: 'hidden', backgroundColor: tokens.colorNeutralBackground4 },
  done: { backgroundColor: tokens.colorStatusSuccessBackground3 },
  failed: { backgroundColor: tokens.colorStatusDangerBackground3 },
  now: { fontWeight: tokens.fontWeightSemibold },
})

const tones: Record<string, Tone> = { idle: 'neutral', running: 'busy', halted: 'bad', done: 'good' }

type Asking = 'halt' | 'resume' | 'retry' | 'rollback'

/** Which version the agents get, in which order, and how that goes. */
export default function Upgrades() {
  const { t } = useTranslation()
  const upgrades = useData('upgrades', getUpgrades, ['upgrade', 'device'], 1_000)
  const repository = useData('repository', getRepository, ['upgrade'])
  const error = upgrades.error
  const [parameters] = useSearchParams()
  const ring = parameters.get('ring') ?? ''
  const held = parameters.get('held') ?? ''
  return (
    <Page title={t('nav.upgrades')} subtitle={t('upgrade.intro')}>
      {!upgrades.data ? (error ? <Failure error={error} retry={upgrades.reload} /> : <Loading />) : (
        <>
          <Progress view={upgrades.data} set={upgrades.set} reload={upgrades.reload} />
          {(ring !== '' || held !== '') && <UpgradeDevices ring={ring} state={parameters.get('state') ?? ''} held={held} />}
          <RingsForm view={upgrades.data} saved={upgrades.set} reload={upgrades.reload} packages={repository.data?.packages ?? []} />
        </>
      )}
      {repository.data ? <RepositoryPanel repository={repository.data} /> : repository.error ? <Failure error={repository.error} retry={repository.reload} /> : null}
    </Page>
  )
}

function Progress({ view, set, reload }: { view: View; set: (view: View) => void; reload: () => void }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const format = useFormat()
  const notify = useNotify()
  const errorText = useErrorText()
  const may = useMay('plans.manage')
  const [asking, setAsking] = useState<Asking>()
  const [busy, setBusy] = useState(false)
  const calls = { halt: haltUpgrades, resume: resumeUpgrades, retry: resumeUpgrades, rollback: rollBackUpgrades }
  const words = {
    halt: { title: t('upgrade.haltTitle'), text: t('upgrade.haltText'), act: t('upgrade.halt') },
    resume: { title: t('upgrade.resumeTitle'), text: t('upgrade.resumeText'), act: t('upgrade.resume') },
    retry: { title: t('upgrade.retryTitle'), text: t('upgrade.retryText'), act: t('upgrade.retry') },
    rollback: { title: t('upgrade.rollbackTitle'), text: t('upgrade.rollbackText'), act: t('upgrade.rollback') },
  }
  const act = (what: Asking) => {
    setAsking(undefined)
    setBusy(true)
    calls[what]().then((next) => (next ? set(next) : reload()), (e: unknown) => {
      notify('error', t('upgrade.failed'), errorText(e))
      reload()
    }).finally(() => setBusy(false))
  }
  const target = view.target === 'newest' ? t('upgrade.newest') : view.target
  const ms = (n: number) => t('upgrade.ms', { number: format.number(n) })
  const number = (ring: string, state: string, n: number, tone?: Tone) => {
    const text = n > 0 && tone ? <Status tone={tone}>{format.number(n)}</Status> : format.number(n)
    return n > 0 ? <RouteLink to={`/upgrades?ring=${ring}&state=${state}`} data-testid={`upgrade-${ring}-${state || 'all'}`}>{text}</RouteLink> : text
  }
  return (
    <Panel
      title={t('upgrade.now')}
      actions={may && (
        <div className={styles.acts}>
          {view.state === 'running' && <Button disabled={busy} onClick={() => setAsking('halt')} data-testid="upgrade-halt">{t('upgrade.halt')}</Button>}
          {view.state === 'halted' && <Button appearance="primary" disabled={busy} onClick={() => setAsking('resume')} data-testid="upgrade-resume">{t('upgrade.resume')}</Button>}
          {(view.state === 'running' || view.state === 'done') && view.progress.some((p) => p.failed > 0) && <Button disabled={busy} onClick={() => setAsking('retry')} data-testid="upgrade-retry">{t('upgrade.retry')}</Button>}
          {view.state !== 'idle' && <Button disabled={busy} onClick={() => setAsking('rollback')} data-testid="upgrade-rollback">{t('upgrade.rollback')}</Button>}
        </div>
      )}
    >
      <div className={styles.head}>
        <Status tone={tones[view.state] ?? 'neutral'} testid="upgrade-state">{name('upgradeState', view.state)}</Status>
        <Text>{t('upgrade.to', { version: target })}</Text>
        {view.current !== '' && view.state !== 'done' && <Text>{t('upgrade.inRing', { ring: name('ring', view.current) })}</Text>}
        {view.target !== 'newest' && <RouteLink to={`/devices?agentVersion=${encodeURIComponent(view.target)}`}>{t('upgrade.devicesAt', { version: view.target })}</RouteLink>}
      </div>
      {view.halted && <ReasonNote reason={view.halted} intent={view.halted.id === 'upgrade_replaced' ? 'warning' : 'error'} />}
      {view.state === 'halted' && !view.halted && <MessageBar intent="warning"><MessageBarBody>{t('upgrade.haltedByHand')}</MessageBarBody></MessageBar>}
      <PlainTable<RingProgress>
        label={t('upgrade.progress')} items={view.progress} rowId={(p) => p.ring} rowTestid="ring-progress"
        columns={[
          { id: 'ring', header: t('upgrade.ring'), cell: (p) => <span className={mergeClasses(p.ring === view.current && styles.now)}>{name('ring', p.ring)}</span> },
          { id: 'bar', header: t('upgrade.progress'), tight: true, cell: (p) => (
            <div className={styles.bar} role="img" aria-label={t('upgrade.doneOf', { done: format.number(p.done), devices: format.number(p.devices) })}>
              <span className={styles.done} style={{ flexGrow: p.done }} /><span className={styles.failed} style={{ flexGrow: p.failed }} /><span style={{ flexGrow: Math.max(p.devices - p.done - p.failed, 0) }} />
            </div>
          ) },
          { id: 'devices', header: t('upgrade.devices'), tight: true, cell: (p) => number(p.ring, '', p.devices) },
          { id: 'done', header: t('upgrade.done'), tight: true, cell: (p) => number(p.ring, 'done', p.done) },
          { id: 'waiting', header: t('upgrade.waiting'), tight: true, cell: (p) => number(p.ring, 'waiting', p.waiting) },
          { id: 'failed', header: t('upgrade.failedDevices'), tight: true, cell: (p) => number(p.ring, 'failed', p.failed, 'bad') },
          { id: 'median', header: t('upgrade.gapMedian'), tight: true, cell: (p) => (p.gapMs && p.done > 0 ? ms(p.gapMs.median) : <span className={styles.dim}>–</span>) },
          { id: 'worst', header: t('upgrade.gapWorst'), tight: true, cell: (p) => (p.gapMs && p.done > 0 ? ms(p.gapMs.worst) : <span className={styles.dim}>–</span>) },
        ]}
      />
      {view.held.map((h) => (
        <ReasonNote key={h.reason.id} reason={h.reason} intent="info"><RouteLink to={`/upgrades?held=${encodeURIComponent(h.reason.id)}`} data-testid="upgrade-held">{t('upgrade.held', { count: h.devices, number: format.number(h.devices) })}</RouteLink></ReasonNote>
      ))}
      <Text size={200} className={styles.dim}>{t('upgrade.gapText')}</Text>
      {asking && <Confirm {...words[asking]} confirm={() => act(asking)} close={() => setAsking(undefined)} />}
    </Panel>
  )
}
