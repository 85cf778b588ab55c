import {
  Button, Checkbox, Field, Input, makeStyles, MessageBar, MessageBarActions, MessageBarBody, MessageBarTitle, SpinButton, Switch, Text, Textarea, tokens,
} from '@fluentui/react-components'
import { useState, type ReactNode } from 'react'
import { useTranslation } from 'react-i18next'
import { ApiError } from '../../../api/client'
import { saveOnboarding, type Onboarding, type OnboardingSettings, type Window } from '../../../api/machines'
import { useMay } from '../../../app/session'
import { useNotify } from '../../../app/toast'
import { useName } from '../../../i18n/names'
import { Moment } from '../../../ui/marks'
import { Panel } from '../../../ui/Panel'
import { useErrorText } from '../../../ui/states'
import { LeaveGuard } from '../LeaveGuard'
import { parseTags, tagLines } from '../machines/MachinePanel'

const useStyles = makeStyles({
  form: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalL },
  list: { listStyleType: 'none', margin: 0, padding: 0 },
  item: { display: 'grid', gridTemplateColumns: 'minmax(0, 1fr) auto', alignItems: 'start', gap: tokens.spacingHorizontalXL, padding: '12px 0', borderTop: `1px solid ${tokens.colorNeutralStroke3}` },
  text: { display: 'flex', flexDirection: 'column', gap: '2px', maxWidth: '80ch' },
  name: { fontWeight: tokens.fontWeightSemibold },
  dim: { color: tokens.colorNeutralForeground3 },
  control: { minWidth: '96px' },
  more: { gridColumn: '1 / -1', display: 'flex', flexWrap: 'wrap', alignItems: 'flex-start', gap: tokens.spacingHorizontalL },
  days: { display: 'flex', flexWrap: 'wrap' },
  tags: { width: '320px', maxWidth: '100%' },
  bar: {
    position: 'sticky', bottom: 0, display: 'flex', flexWrap: 'wrap', alignItems: 'center', gap: tokens.spacingHorizontalM, zIndex: 1,
    padding: '12px 20px', backgroundColor: tokens.colorNeutralBackground1, border: `1px solid ${tokens.colorNeutralStroke2}`, borderRadius: tokens.borderRadiusLarge,
  },
  end: { marginLeft: 'auto', color: tokens.colorNeutralForeground3 },
})

const weekdays = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'] as const
const defaultZone = 'UTC'
const tagExample = 'role=lab'
const fresh = (): Window => ({ days: [], start: '22:00', minutes: 240, timezone: Intl.DateTimeFormat().resolvedOptions().timeZone })

interface Draft extends Omit<OnboardingSettings, 'excludeTags'> {
  exclude: string
}

const draftOf = ({ automatic, concurrency, dryRun, window, observe, excludeTags, allowHostOffboarding, skipSelfTest, keepOffboardedDays }: Onboarding): Draft => (
  { automatic, concurrency, dryRun, window, observe, allowHostOffboarding, skipSelfTest, keepOffboardedDays, exclude: tagLines(excludeTags) }
)

interface Props {
  onboarding: Onboarding
  saved: (onboarding: Onboarding) => void
  reload: () => void
  preview?: ReactNode
}

/** How machines are brought under protection: nothing changes until it is saved. */
export function SettingsForm({ onboarding, saved, reload, preview }: Props) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const notify = useNotify()
  const errorText = useErrorText()
  const may = useMay('plans.manage')
  // What the draft began with: newer settings are taken only while nothing is
  // changed here.
  const [base, setBase] = useState(onboarding)
  const [draft, setDraft] = useState(() => draftOf(onboarding))
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState<unknown>()
  const changed = JSON.stringify(draftOf(base)) !== JSON.stringify(draft)
  if (!changed && !busy && base.version !== onboarding.version) {
    setBase(onboarding)
    setDraft(draftOf(onboarding))
  }
  const off = !may || busy
  const change = (part: Partial<Draft>) => setDraft((old) => ({ ...old, ...part }))
  const window = draft.window
  const changeWindow = (part: Partial<Window>) => window && change({ window: { ...window, ...part } })
  const discard = () => {
    setError(undefined)
    setBase(onboarding)
    setDraft(draftOf(onboarding))
  }
  const save = () => {
    setBusy(true)
    setError(undefined)
    const { exclude, ...settings } = draft
    saveOnboarding(onboarding.environment, { ...settings, excludeTags: parseTags(exclude), version: base.version }).then(
      (next) => {
        saved(next)
        setBase(next)
        setDraft(draftOf(next))
        notify('success', t('onboarding.saved'))
      },
      (e: unknown) => {
        setError(e)
        if (e instanceof ApiError && e.kind === 'conflict') reload()
      },
    ).finally(() => setBusy(false))
  }
  const conflict = error instanceof ApiError && error.kind === 'conflict'
  const onOff = (on: boolean) => (on ? t('value.on') : t('value.off'))
  const setting = (label: string, text: string, control: ReactNode, more?: ReactNode) => (
    <li className={styles.item}>
      <div className={styles.text}>
        <span className={styles.name}>{label}</span>
        <Text size={200} className={styles.dim}>{text}</Text>
      </div>
      {control}
      {more && <div className={styles.more}>{more}</div>}
    </li>
  )
  return (
    <div className={styles.form}>
      {!may && <MessageBar><MessageBarBody>{t('plan.readOnly')}</MessageBarBody></MessageBar>}
      {error !== undefined && (
        <MessageBar intent="error" layout="multiline" role="alert" data-testid={conflict ? 'onboarding-conflict' : 'onboarding-error'}>
          <MessageBarBody>
            <MessageBarTitle>{conflict ? t('onboarding.conflict') : t('onboarding.failed')}</MessageBarTitle>
            {conflict ? t('policies.conflictText') : errorText(error)}
          </MessageBarBody>
          {conflict && (
            <MessageBarActions>
              <Button onClick={() => { setBase(onboarding); setError(undefined) }} data-testid="onboarding-keep">{t('policies.keepMine')}</Button>
              <Button onClick={discard} data-testid="onboarding-theirs">{t('policies.takeTheirs')}</Button>
            </MessageBarActions>
          )}
        </MessageBar>
      )}
      <Panel title={t('onboarding.settings')}>
        <ul className={styles.list}>
          {setting(
            t('onboarding.automatic'), t('onboarding.automaticText'),
            <Switch className={styles.control} checked={draft.automatic} disabled={off} label={onOff(draft.automatic)} aria-label={t('onboarding.automatic')} onChange={(_, d) => change({ automatic: d.checked })} data-testid="onboarding-automatic" />,
          )}
          {setting(
            t('onboarding.dryRun'), t('onboarding.dryRunText'),
            <Switch className={styles.control} checked={draft.dryRun} disabled={off} label={onOff(draft.dryRun)} aria-label={t('onboarding.dryRun')} onChange={(_, d) => change({ dryRun: d.checked })} data-testid="onboarding-dry" />,
          )}
          {setting(
            t('onboarding.concurrency'), t('onboarding.concurrencyText'),
            <SpinButton
              value={draft.concurrency} min={1} max={100} disabled={off} aria-label={t('onboarding.concurrency')} input={{ 'data-testid': 'onboarding-concurrency' } as object} style={{ width: '96px' }}
              onChange={(_, d) => { const n = d.value ?? Number(d.displayValue); if (Number.isInteger(n)) change({ concurrency: Math.min(Math.max(n, 1), 100) }) }}
            />,
          )}
          {setting(
            t('onboarding.window'), t('onboarding.windowText'),
            <Switch className={styles.control} checked={window !== null} disabled={off} label={onOff(window !== null)} aria-label={t('onboarding.window')} onChange={(_, d) => change({ window: d.checked ? base.window ?? fresh() : null })} data-testid="onboarding-window" />,
            window && (
              <>
                <Field label={t('onboarding.days')} hint={t('onboarding.daysHint')}>
                  <div className={styles.days}>
                    {weekdays.map((day) => <Checkbox key={day} label={name('weekday', day)} checked={window.days.includes(day)} disabled={off} onChange={(_, d) => changeWindow({ days: weekdays.filter((x) => (x === day ? d.checked === true : window.days.includes(x))) })} data-testid={`window-${day}`} />)}
                  </div>
                </Field>
                <Field label={t('onboarding.start')}><Input type="time" value={window.start} disabled={off} onChange={(_, d) => changeWindow({ start: d.value })} input={{ 'data-testid': 'window-start' } as object} /></Field>
                <Field label={t('onboarding.minutes')}>
                  <SpinButton value={window.minutes} min={5} max={1440} step={15} disabled={off} style={{ width: '96px' }} onChange={(_, d) => { const n = d.value ?? Number(d.displayValue); if (Number.isInteger(n)) changeWindow({ minutes: Math.min(Math.max(n, 5), 1440) }) }} />
                </Field>
                <Field label={t('onboarding.zone')}><Input value={window.timezone ?? ''} maxLength={64} disabled={off} placeholder={defaultZone} onChange={(_, d) => changeWindow({ timezone: d.value })} input={{ 'data-testid': 'window-zone' } as object} /></Field>
              </>
            ),
          )}
          {setting(
            t('onboarding.observe'), t('onboarding.observeText'),
            <Switch className={styles.control} checked={draft.observe.enabled} disabled={off} label={onOff(draft.observe.enabled)} aria-label={t('onboarding.observe')} onChange={(_, d) => change({ observe: { ...draft.observe, enabled: d.checked } })} data-testid="onboarding-observe" />,
            draft.observe.enabled && (
              <Field label={t('onboarding.hours')}>
                <SpinButton
                  value={draft.observe.hours} min={1} max={8760} disabled={off} style={{ width: '96px' }} input={{ 'data-testid': 'onboarding-hours' } as object}
                  onChange={(_, d) => { const n = d.value ?? Number(d.displayValue); if (Number.isInteger(n)) change({ observe: { ...draft.observe, hours: Math.min(Math.max(n, 1), 8760) } }) }}
                />
              </Field>
            ),
          )}
          {setting(
            t('onboarding.selfTest'), t('onboarding.selfTestText'),
            <Switch className={styles.control} checked={!draft.skipSelfTest} disabled={off} label={onOff(!draft.skipSelfTest)} aria-label={t('onboarding.selfTest')} onChange={(_, d) => change({ skipSelfTest: !d.checked })} data-testid="onboarding-self-test" />,
          )}
          {setting(
            t('onboarding.exclude'), t('onboarding.excludeText'),
            <Textarea className={styles.tags} value={draft.exclude} rows={2} disabled={off} aria-label={t('onboarding.exclude')} placeholder={tagExample} onChange={(_, d) => change({ exclude: d.value })} textarea={{ 'data-testid': 'onboarding-exclude' } as object} />,
          )}
          {setting(
            t('onboarding.leave'), t('onboarding.leaveText'),
            <Switch className={styles.control} checked={draft.allowHostOffboarding} disabled={off} label={onOff(draft.allowHostOffboarding)} aria-label={t('onboarding.leave')} onChange={(_, d) => change({ allowHostOffboarding: d.checked })} data-testid="onboarding-leave" />,
          )}
          {setting(
            t('onboarding.keep'), t('onboarding.keepText'),
            <SpinButton
              value={draft.keepOffboardedDays} min={0} max={3650} step={30} disabled={off} aria-label={t('onboarding.keep')} input={{ 'data-testid': 'onboarding-keep-days' } as object} style={{ width: '96px' }}
              onChange={(_, d) => { const n = d.value ?? Number(d.displayValue); if (Number.isInteger(n)) change({ keepOffboardedDays: Math.min(Math.max(n, 0), 3650) }) }}
            />,
          )}
        </ul>
      </Panel>
      <div className={styles.bar}>
        <Button appearance="primary" disabledFocusable={!may || !changed || busy} onClick={() => changed && save()} data-testid="onboarding-save">{t('action.save')}</Button>
        <Button disabled={!changed || busy} onClick={discard} data-testid="onboarding-discard">{t('action.discard')}</Button>
        {preview}
        {changed && <Text>{t('plan.unsaved')}</Text>}
        {base.updatedBy && <Text size={200} className={styles.end}>{t('plan.lastSaved', { name: base.updatedBy })} <Moment time={base.updatedAt} /></Text>}
      </div>
      <LeaveGuard when={changed && !busy} />
    </div>
  )
}
