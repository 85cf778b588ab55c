import { Button, makeStyles, mergeClasses, MessageBar, MessageBarActions, MessageBarBody, Text, tokens } from '@fluentui/react-components'
import { useState } from 'react'
import { useTranslation } from 'react-i18next'
import type { Machine, MachineState, Onboarding } from '../../../api/machines'
import { useFormat, useName } from '../../../i18n/names'
import { Columns } from '../../../ui/Columns'
import { RouteLink } from '../../../ui/links'
import { Panel } from '../../../ui/Panel'
import { PlainTable } from '../../../ui/PlainTable'
import { useReason } from '../../../ui/reasons'
import { machinesAt } from '../at'
import { Elapsed } from '../machines/status'
import { PreviewDialog } from './PreviewDialog'
import { SettingsForm } from './SettingsForm'

const useStyles = makeStyles({
  page: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalL },
  bar: { display: 'flex', height: '12px', borderRadius: tokens.borderRadiusMedium, overflow: 'hidden', gap: '2px', backgroundColor: tokens.colorNeutralBackground4 },
  protected: { backgroundColor: tokens.colorStatusSuccessBackground3 },
  creating: { backgroundColor: tokens.colorBrandBackground },
  waiting: { backgroundColor: tokens.colorBrandStroke2 },
  failed: { backgroundColor: tokens.colorStatusDangerBackground3 },
  other: { backgroundColor: tokens.colorNeutralForeground4 },
  states: { display: 'grid', gridTemplateColumns: 'repeat(auto-fit, minmax(120px, 1fr))', gap: tokens.spacingHorizontalL },
  state: { display: 'flex', flexDirection: 'column', alignItems: 'flex-start' },
  label: { display: 'inline-flex', alignItems: 'center', gap: tokens.spacingHorizontalXS, color: tokens.colorNeutralForeground2 },
  dot: { width: '10px', height: '10px', borderRadius: '2px', flexShrink: 0 },
  number: { fontSize: tokens.fontSizeHero700, lineHeight: tokens.lineHeightHero700, fontWeight: tokens.fontWeightSemibold, color: tokens.colorNeutralForeground1 },
  dim: { color: tokens.colorNeutralForeground3 },
  why: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalXXS, minWidth: 0 },
  name: { fontWeight: tokens.fontWeightSemibold },
})

interface Props {
  environment: string
  planOff: boolean
  onboarding: Onboarding
  set: (onboarding: Onboarding) => void
  reload: () => void
}

/** How machines are brought under protection, and how far they are. */
export default function OnboardingTab({ environment, planOff, onboarding, set, reload }: Props) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const [previewing, setPreviewing] = useState(false)
  const preview = <Button onClick={() => setPreviewing(true)} data-testid="preview">{t('onboarding.preview')}</Button>
  return (
    <div className={styles.page}>
      {planOff && (
        <MessageBar intent="warning" layout="multiline">
          <MessageBarBody>{t('onboarding.planOff')}</MessageBarBody>
          <MessageBarActions>{preview}</MessageBarActions>
        </MessageBar>
      )}
      <Progress environment={environment} onboarding={onboarding} />
      <Columns
        main={<Reasons environment={environment} onboarding={onboarding} />}
        side={(
          <Panel title={t('onboarding.working')}>
            {onboarding.working.length === 0
              ? <Text className={styles.dim}>{t('onboarding.noneWorking')}</Text>
              : (
                <PlainTable<Machine>
                  label={t('onboarding.working')} items={onboarding.working} rowId={(m) => m.id} rowTestid="working-row"
                  columns={[
                    { id: 'name', header: t('machine.name'), cell: (m) => <RouteLink to={machinesAt(environment, { machine: m.id })}>{m.name}</RouteLink> },
                    { id: 'step', header: t('onboarding.step'), tight: true, cell: (m) => (m.extension.state === 'removing' ? name('machineState', 'removing') : name('deployStep', m.extension.step)) },
                    { id: 'seconds', header: t('onboarding.since'), tight: true, cell: (m) => <Elapsed since={m.extension.startedAt ?? m.extension.since} /> },
                  ]}
                />
              )}
          </Panel>
        )}
      />
      <SettingsForm onboarding={onboarding} saved={set} reload={reload} preview={planOff ? undefined : preview} />
      {previewing && <PreviewDialog environment={environment} close={() => setPreviewing(false)} />}
    </div>
  )
}

const parts: { key: 'protected' | 'creating' | 'waiting' | 'failed' | 'not_applicable' | 'none'; state: MachineState }[] = [
  { key: 'protected', state: 'succeeded' }, { key: 'creating', state: 'creating' }, { key: 'waiting', state: 'waiting' },
  { key: 'failed', state: 'failed' }, { key: 'not_applicable', state: 'not_applicable' }, { key: 'none', state: 'none' },
]

/** The machines by the state of their extension. */
function Progress({ environment, onboarding }: { environment: string; onboarding: Onboarding }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const format = useFormat()
  const { counts } = onboarding
  const colour: Record<string, string> = { protected: styles.protected, creating: styles.creating, waiting: styles.waiting, failed: styles.failed }
  return (
    <Panel
      title={t('onboarding.progress')}
      actions={<RouteLink to={machinesAt(environment)} data-testid="count-machines">{t('environment.countMachines', { count: counts.machines, number: format.number(counts.machines) })}</RouteLink>}
    >
      <div className={styles.bar} aria-hidden>
        {parts.filter((p) => counts[p.key] > 0).map((p) => <span key={p.key} className={colour[p.key] ?? styles.other} style={{ flexGrow: counts[p.key], minWidth: '6px' }} />)}
      </div>
      <div className={styles.states}>
        {parts.map((p) => (
          <div key={p.key} className={styles.state}>
            <span className={styles.label}><span className={mergeClasses(styles.dot, colour[p.key] ?? styles.other)} aria-hidden />{name('machineState', p.state)}</span>
            <RouteLink to={machinesAt(environment, { state: p.state })} className={styles.number} title={name('machineState', p.state)} data-testid={`count-${p.state}`}>{format.number(counts[p.key])}</RouteLink>
          </div>
        ))}
      </div>
    </Panel>
  )
}

/** Why machines are not protected, grouped, with what to do. */
function Reasons({ environment, onboarding }: { environment: string; onboarding: Onboarding }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const format = useFormat()
  const words = useReason()
  return (
    <Panel title={t('onboarding.reasons')}>
      {onboarding.reasons.length === 0
        ? <Text className={styles.dim}>{t('onboarding.noReasons')}</Text>
        : (
          <PlainTable
            label={t('onboarding.reasons')} items={onboarding.reasons} rowId={(r) => `${r.id} ${r.state}`} rowTestid="reason-row"
            columns={[
              {
                id: 'why', header: t('machine.reason'), cell: (r) => {
                  const { text, remedy } = words(r)
                  return <span className={styles.why}><span className={styles.name}>{text}</span>{remedy !== '' && <Text size={200} className={styles.dim}>{remedy}</Text>}</span>
                },
              },
              { id: 'state', header: t('machine.state'), tight: true, cell: (r) => name('machineState', r.state) },
              {
                id: 'count', header: t('environment.machines'), tight: true,
                cell: (r) => <RouteLink to={machinesAt(environment, { state: r.state, reason: r.id })} title={words(r).text} data-testid={`reason-count-${r.id}`}>{format.number(r.count)}</RouteLink>,
              },
            ]}
          />
        )}
    </Panel>
  )
}
