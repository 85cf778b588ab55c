// One machine at the side of the list: why it is as it is, what to do about it,
// and what happened on its way to protection.
import {
  Badge, Button, DrawerBody, DrawerHeader, DrawerHeaderTitle, Field, makeStyles, MessageBar, MessageBarBody, mergeClasses, OverlayDrawer, Select, Subtitle2, Text, Textarea, tokens,
} from '@fluentui/react-components'
import { DismissRegular } from '@fluentui/react-icons/svg/dismiss'
import { useState, type ReactNode } from 'react'
import { useTranslation } from 'react-i18next'
import { ApiError } from '../../../api/client'
import {
  changeMachine, deleteMachine, deployMachine, getMachine, offboardMachine, type JournalLine, type MachineDetail, type PlanChoice,
} from '../../../api/machines'
import type { Tag } from '../../../api/policies'
import { useData } from '../../../api/use'
import { useMay } from '../../../app/session'
import { useNotify } from '../../../app/toast'
import { useFormat, useName } from '../../../i18n/names'
import { Facts } from '../../../ui/Facts'
import { RouteLink } from '../../../ui/links'
import { Ago, Moment, Status, type Tone } from '../../../ui/marks'
import { ReasonNote, useReason } from '../../../ui/reasons'
import { Failure, Loading, useErrorText } from '../../../ui/states'
import { Confirm } from '../Confirm'
import { tagText } from './columns'
import { OffboardDialog, planChoices } from './dialogs'
import { MachineStatus } from './status'

const useStyles = makeStyles({
  body: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalXL, paddingBottom: tokens.spacingVerticalXXL },
  part: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalS },
  heading: { margin: 0 },
  acts: { display: 'flex', flexWrap: 'wrap', gap: tokens.spacingHorizontalS },
  dim: { color: tokens.colorNeutralForeground3 },
  tags: { display: 'flex', flexWrap: 'wrap', gap: tokens.spacingHorizontalXS },
  row: { display: 'flex', alignItems: 'flex-end', gap: tokens.spacingHorizontalS },
  grow: { flexGrow: 1 },
  journal: { listStyleType: 'none', margin: 0, padding: 0 },
  line: { display: 'grid', gridTemplateColumns: '150px minmax(0, 1fr)', gap: tokens.spacingHorizontalM, padding: '6px 0', borderTop: `1px solid ${tokens.colorNeutralStroke3}` },
  said: { display: 'flex', flexDirection: 'column', minWidth: 0, overflowWrap: 'anywhere' },
  small: { fontSize: tokens.fontSizeBase200, lineHeight: tokens.lineHeightBase200 },
  mono: { fontFamily: tokens.fontFamilyMonospace },
})

function Part({ title, children }: { title: string; children: ReactNode }) {
  const styles = useStyles()
  return (
    <section className={styles.part}>
      <Subtitle2 as="h3" className={styles.heading}>{title}</Subtitle2>
      {children}
    </section>
  )
}

export function MachinePanel({ id, close }: { id: string; close: () => void }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const { data, error, reload, set } = useData(`machine ${id}`, (signal) => getMachine(id, signal), [`machine:${id}`, 'plan', 'onboarding'])
  return (
    <OverlayDrawer position="end" size="medium" open onOpenChange={(_, d) => !d.open && close()} data-testid="machine-panel" aria-label={data?.name ?? t('machine.one')}>
      <DrawerHeader>
        <DrawerHeaderTitle action={<Button appearance="subtle" icon={<DismissRegular />} aria-label={t('action.close')} onClick={close} data-testid="machine-close" />}>
          {data?.name ?? t('machine.one')}
        </DrawerHeaderTitle>
      </DrawerHeader>
      <DrawerBody tabIndex={0}>
        {!data ? (error ? <Failure error={error} retry={reload} /> : <Loading />) : <div className={styles.body}><Machine machine={data} set={set} reload={reload} close={close} /></div>}
      </DrawerBody>
    </OverlayDrawer>
  )
}

interface Props {
  machine: MachineDetail
  set: (machine: MachineDetail) => void
  reload: () => void
  close: () => void
}

type Asking = 'offboard' | 'despite' | 'take' | 'delete'

function Machine({ machine: m, set, reload, close }: Props) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const format = useFormat()
  const notify = useNotify()
  const errorText = useErrorText()
  const mayDeploy = useMay('devices.manage')
  const mayAudit = useMay('audit.read')
  const [busy, setBusy] = useState(false)
  const [asking, setAsking] = useState<Asking>()
  const { extension: x } = m
  const act = (call: Promise<MachineDetail | undefined | void>, done: string) => {
    setAsking(undefined)
    setBusy(true)
    call.then(
      (next) => {
        if (next) set(next)
        else close()
        notify('success', done)
      },
      (e: unknown) => {
        notify('error', t('machine.failed'), errorText(e))
        reload()
      },
    ).finally(() => setBusy(false))
  }
  const working = x.state === 'creating' || (x.state === 'removing' && !x.nextAttemptAt)
  const pushed = x.reason?.id === 'credential_missing' // from a workstation, not from here
  const taken = x.reason?.id === 'enrolled_elsewhere' || x.reason?.id === 'enrolled_twice'
  const forgettable = (!m.device || m.offboarded) && (!m.connector || m.gone)
  const words = {
    despite: { title: t('machine.despiteTitle', { name: m.name }), text: t('machine.despiteText'), act: t('machine.despite') },
    take: { title: t('machine.takeTitle', { name: m.name }), text: t('machine.takeText'), act: t('machine.take') },
    delete: { title: t('machine.deleteTitle', { name: m.name }), text: t('machine.deleteText'), act: t('machine.delete') },
  }
  const confirm = {
    despite: () => act(deployMachine(m.id, { despiteConflict: true }), t('machine.deploying', { count: 1, number: format.number(1) })),
    take: () => act(deployMachine(m.id, { takeOver: true }), t('machine.deploying', { count: 1, number: format.number(1) })),
    delete: () => act(deleteMachine(m.id), t('machine.deleted', { name: m.name })),
  }
  return (
    <>
      <div className={styles.part}>
        <MachineStatus extension={x} testid="panel-state" />
        {m.gone && <MessageBar intent="warning" layout="multiline"><MessageBarBody>{t('machine.goneText')}</MessageBarBody></MessageBar>}
        {x.observing && <MessageBar intent="warning" layout="multiline"><MessageBarBody>{t('machine.observingText', { time: format.time(x.observeUntil) })}</MessageBarBody></MessageBar>}
        {x.reason && (
          <ReasonNote reason={x.reason} intent={x.state === 'failed' || x.reason.id === 'remove_failed' ? 'error' : m.offboardedByHost ? 'warning' : 'info'}>
            {x.reason.id.startsWith('host_key') && m.connector && <RouteLink to={`/environments/${m.environment.id}/connectors/${m.connector.id}`} data-testid="machine-host-keys">{t('machine.toHostKeys')}</RouteLink>}
            {(x.state === 'failed' || x.state === 'removing') && x.nextAttemptAt && <Text size={200}>{t('machine.again', { count: x.attempt, number: format.number(x.attempt), time: format.time(x.nextAttemptAt) })}</Text>}
          </ReasonNote>
        )}
        {mayDeploy && (
          <div className={styles.acts}>
            {!pushed && (
              <Button appearance="primary" disabledFocusable={busy || working} onClick={() => act(deployMachine(m.id), t('machine.deploying', { count: 1, number: format.number(1) }))} data-testid="machine-deploy">
                {x.state === 'failed' ? t('machine.retry') : t('machine.deploy')}
              </Button>
            )}
            {x.reason?.id === 'conflicting_agent' && <Button disabled={busy} onClick={() => setAsking('despite')} data-testid="machine-despite">{t('machine.despite')}</Button>}
            {taken && <Button disabled={busy} onClick={() => setAsking('take')} data-testid="machine-take">{t('machine.take')}</Button>}
            {!m.offboarded && <Button disabled={busy} onClick={() => setAsking('offboard')} data-testid="machine-offboard">{t('machine.offboard')}</Button>}
            {forgettable && <Button disabled={busy} onClick={() => setAsking('delete')} data-testid="machine-delete">{t('machine.delete')}</Button>}
          </div>
        )}
      </div>
      <Part title={x.name}>
        <Facts facts={[
          { label: t('machine.protectedSince'), value: x.protectedAt && <Moment time={x.protectedAt} /> },
          { label: t('machine.took'), value: x.seconds > 0 && t('machine.tookSeconds', { number: format.number(Math.round(x.seconds * 10) / 10) }) },
          { label: t('machine.agentVersion'), value: x.agentVersion },
          { label: t('machine.selfTest'), value: x.selfTestRun && m.device && <RouteLink to={`/devices/${m.device.id}?tab=tests`} data-testid="machine-test">{t('machine.selfTestRun')}</RouteLink> },
          { label: t('machine.alert'), value: x.alert && <RouteLink to={`/alerts/${x.alert}`} data-testid="machine-alert">{t('machine.alertOpen')}</RouteLink> },
          { label: t('machine.device'), value: m.device && <RouteLink to={`/devices/${m.device.id}`} data-testid="machine-device">{m.device.name}</RouteLink> },
        ]}
        />
        <Journal lines={m.journal} />
      </Part>
      <Part title={t('machine.plan')}><PlanOf machine={m} set={set} reload={reload} /></Part>
      <Part title={t('machine.tags')}><Tags key={m.version} machine={m} set={set} reload={reload} /></Part>
      <Part title={t('machine.facts')}>
        <Facts facts={[
          { label: t('machine.address'), value: m.address },
          { label: t('machine.os'), value: m.os },
          { label: t('machine.arch'), value: m.arch },
          { label: t('machine.source'), value: name('machineSource', m.source) },
          { label: t('machine.connector'), value: m.connector && <RouteLink to={`/environments/${m.environment.id}/connectors/${m.connector.id}`}>{m.connector.name || m.connector.id}</RouteLink> },
          { label: t('machine.externalId'), value: m.externalId !== m.address && m.externalId },
          { label: t('machine.firstSeen'), value: <Ago time={m.firstSeen} /> },
          { label: t('machine.lastSeen'), value: <Ago time={m.lastSeen} /> },
          { label: t('machine.changes'), value: mayAudit && <RouteLink to={`/settings/audit?target=${m.id}`} data-testid="machine-audit">{t('machine.changesOpen')}</RouteLink> },
        ]}
        />
      </Part>
      {asking === 'offboard' && <OffboardDialog names={[m.name]} offboard={(why) => act(offboardMachine(m.id, why), t('machine.offboarding', { count: 1, number: format.number(1) }))} close={() => setAsking(undefined)} />}
      {asking && asking !== 'offboard' && <Confirm {...words[asking]} confirm={confirm[asking]} close={() => setAsking(undefined)} />}
    </>
  )
}

/** Saves a change of a machine; one that came too late is said and what is there now is loaded. */
function useSave({ machine, set, reload }: Omit<Props, 'close'>) {
  const { t } = useTranslation()
  const notify = useNotify()
  const errorText = useErrorText()
  const [busy, setBusy] = useState(false)
  const save = (change: { plan?: PlanChoice; tags?: Tag[] }) => {
    setBusy(true)
    changeMachine(machine.id, { version: machine.version, ...change }).then(
      (next) => {
        set(next)
        notify('success', t('machine.saved', { name: next.name }))
      },
      (e: unknown) => {
        const conflict = e instanceof ApiError && e.kind === 'conflict'
        notify('error', conflict ? t('machine.conflict') : t('machine.failed'), conflict ? undefined : errorText(e))
        reload()
      },
    ).finally(() => setBusy(false))
  }
  return { busy, save }
}

function PlanOf(props: Omit<Props, 'close'>) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const may = useMay('plans.manage')
  const { busy, save } = useSave(props)
  const { plan, excludedBy } = props.machine
  const from = plan.from === 'tag' ? t('machine.planExcluded', { tag: excludedBy }) : name('planFrom', plan.from)
  return (
    <Field label={t('machine.planSetting')} hint={t('machine.planEffective', { plan: name('plan', plan.effective), from })}>
      <Select value={plan.setting} disabled={!may || busy} onChange={(_, d) => save({ plan: d.value as PlanChoice })} data-testid="machine-plan" className={styles.grow}>
        {planChoices.map((p) => <option key={p} value={p}>{name('planSetting', p)}</option>)}
      </Select>
    </Field>
  )
}

/** Reads NAME=VALUE lines. */
export const parseTags = (text: string): Tag[] => text.split('\n').map((line) => line.trim()).filter((line) => line !== '').map((line) => {
  const at = line.indexOf('=')
  return at < 0 ? { key: line, value: '' } : { key: line.slice(0, at).trim(), value: line.slice(at + 1).trim() }
})

export const tagLines = (tags: Tag[]) => tags.map((tag) => `${tag.key}=${tag.value}`).join('\n')

function Tags(props: Omit<Props, 'close'>) {
  const styles = useStyles()
  const { t } = useTranslation()
  const may = useMay('plans.manage')
  const { machine: m } = props
  const { busy, save } = useSave(props)
  const [text, setText] = useState(() => tagLines(m.ownTags))
  const given = m.tags.filter((tag) => !m.ownTags.some((own) => own.key === tag.key))
  const changed = tagText(parseTags(text)) !== tagText(m.ownTags)
  return (
    <>
      {given.length > 0 && (
        <div className={styles.part}>
          <Text size={200} className={styles.dim}>{t('machine.inventoryTags')}</Text>
          <div className={styles.tags}>{given.map((tag) => <Badge key={tag.key} appearance="outline">{`${tag.key}=${tag.value}`}</Badge>)}</div>
        </div>
      )}
      <div className={styles.row}>
        <Field label={t('machine.ownTags')} hint={t('machine.tagsHint')} className={styles.grow}>
          <Textarea value={text} rows={2} disabled={!may || busy} onChange={(_, d) => setText(d.value)} textarea={{ 'data-testid': 'machine-tags' } as object} />
        </Field>
      </div>
      {changed && <div className={styles.acts}><Button disabledFocusable={busy} onClick={() => save({ tags: parseTags(text) })} data-testid="machine-tags-save">{t('machine.saveTags')}</Button></div>}
    </>
  )
}

const lineTones: Record<string, Tone> = { ok: 'good', failed: 'bad', info: 'neutral' }
const untried = ' (not verified: releases are not tried on this distribution)'

/** What happened, the newest first. */
function Journal({ lines }: { lines: JournalLine[] }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const reason = useReason()
  const said = (line: JournalLine) => {
    if (line.reason) return reason(line.reason).text
    if (line.text.endsWith(untried)) return t('machine.untried', { system: line.text.slice(0, -untried.length) })
    return name('journal', line.text)
  }
  if (lines.length === 0) return <Text className={styles.dim}>{t('machine.noJournal')}</Text>
  return (
    <ol className={styles.journal} reversed aria-label={t('machine.journal')}>
      {lines.toReversed().map((line, i) => (
        <li key={`${line.at} ${i}`} className={styles.line} data-testid="journal-line" data-state={line.state}>
          <span className={mergeClasses(styles.small, styles.dim)}><Moment time={line.at} /></span>
          <span className={styles.said}>
            <Status tone={lineTones[line.state] ?? 'neutral'}>{name('deployStep', line.step)}</Status>
            <span className={styles.small}>{said(line)}</span>
            {line.reason?.detail && <span className={mergeClasses(styles.small, styles.mono)}>{line.reason.detail}</span>}
          </span>
        </li>
      ))}
    </ol>
  )
}
