// Small marks beside values. A colour never stands alone: each has a shape or
// a word too.
import { makeStyles, mergeClasses, tokens } from '@fluentui/react-components'
import { ArrowSyncRegular } from '@fluentui/react-icons/svg/arrow-sync'
import { CheckmarkCircleFilled } from '@fluentui/react-icons/svg/checkmark-circle'
import { ClockRegular } from '@fluentui/react-icons/svg/clock'
import { ErrorCircleFilled } from '@fluentui/react-icons/svg/error-circle'
import { InfoRegular } from '@fluentui/react-icons/svg/info'
import { WarningFilled } from '@fluentui/react-icons/svg/warning'
import type { ReactNode } from 'react'
import { useFormat, useName } from '../i18n/names'

export type Tone = 'good' | 'warn' | 'bad' | 'neutral' | 'busy' | 'waiting'

const useStyles = makeStyles({
  status: { display: 'inline-flex', alignItems: 'center', gap: tokens.spacingHorizontalXS, minWidth: 0, maxWidth: '100%' },
  icon: { display: 'inline-flex', flexShrink: 0, fontSize: '16px' },
  text: { overflow: 'hidden', textOverflow: 'ellipsis' },
  good: { color: tokens.colorStatusSuccessForeground1 },
  warn: { color: tokens.colorStatusWarningForeground3 },
  bad: { color: tokens.colorStatusDangerForeground1 },
  neutral: { color: tokens.colorNeutralForeground3 },
  busy: { color: tokens.colorBrandForeground1 },
  waiting: { color: tokens.colorNeutralForeground3 },
  bars: { display: 'inline-flex', gap: '2px', flexShrink: 0 },
  bar: { width: '5px', height: '14px', borderRadius: '1px', backgroundColor: tokens.colorNeutralStroke1 },
  high: { backgroundColor: tokens.colorPaletteRedBackground3 },
  medium: { backgroundColor: tokens.colorPaletteDarkOrangeBackground3 },
  low: { backgroundColor: tokens.colorPaletteMarigoldBackground3 },
  informational: { backgroundColor: tokens.colorPaletteBlueBorderActive },
})

const icons: Record<Tone, ReactNode> = {
  good: <CheckmarkCircleFilled />,
  warn: <WarningFilled />,
  bad: <ErrorCircleFilled />,
  neutral: <InfoRegular />,
  busy: <ArrowSyncRegular />,
  waiting: <ClockRegular />,
}

/** A state with its mark. */
export function Status({ tone, children, testid }: { tone: Tone; children: ReactNode; testid?: string }) {
  const styles = useStyles()
  return (
    <span className={styles.status}>
      <span className={mergeClasses(styles.icon, styles[tone])} aria-hidden>{icons[tone]}</span>
      <span className={styles.text} data-testid={testid}>{children}</span>
    </span>
  )
}

const steps: Record<string, number> = { Informational: 1, Low: 1, Medium: 2, High: 3 }

/** Severity or risk: three bars and the word. */
export function Severity({ value, family = 'severity', testid }: { value: string; family?: 'severity' | 'risk'; testid?: string }) {
  const styles = useStyles()
  const name = useName()
  const filled = steps[value] ?? 0
  const colour = { Informational: styles.informational, Low: styles.low, Medium: styles.medium, High: styles.high }[value]
  return (
    <span className={styles.status}>
      <span className={styles.bars} aria-hidden>
        {[1, 2, 3].map((n) => <span key={n} className={mergeClasses(styles.bar, n <= filled && colour)} />)}
      </span>
      <span className={styles.text} data-testid={testid}>{name(family, value)}</span>
    </span>
  )
}

const healthTones: Record<string, Tone> = { Active: 'good', Inactive: 'neutral', NoSensorData: 'warn', ImpairedCommunication: 'warn', Misconfigured: 'bad' }

export function SensorHealth({ value, testid }: { value: string; testid?: string }) {
  const name = useName()
  return <Status tone={healthTones[value] ?? 'neutral'} testid={testid}>{name('sensorHealth', value)}</Status>
}

const realTimeTones: Record<string, Tone> = { on: 'good', off: 'bad', unavailable: 'bad', passive: 'warn', unknown: 'neutral' }

export function RealTime({ value, testid }: { value: string; testid?: string }) {
  const name = useName()
  return <Status tone={realTimeTones[value] ?? 'neutral'} testid={testid}>{name('realTime', value)}</Status>
}

const coverageTones: Record<string, Tone> = { protected: 'good', watching: 'warn', unprotected: 'bad', unlicensed: 'neutral' }

/** Whether a device is protected; why is one hover away, and on its page. */
export function Coverage({ value, reasons = [], testid }: { value: string; reasons?: string[]; testid?: string }) {
  const name = useName()
  const format = useFormat()
  if (value === '') return null
  return <span title={reasons.length > 0 ? format.list(reasons) : undefined}><Status tone={coverageTones[value] ?? 'neutral'} testid={testid}>{name('coverage', value)}</Status></span>
}

/** A moment, as long ago; the exact time is one hover or one tap away. */
export function Ago({ time }: { time: string | undefined | null }) {
  const format = useFormat()
  const exact = format.time(time)
  return exact === '' ? null : <time dateTime={time ?? undefined} title={exact}>{format.ago(time)}</time>
}

/** A moment, exactly. */
export function Moment({ time }: { time: string | undefined | null }) {
  const format = useFormat()
  const exact = format.time(time)
  return exact === '' ? null : <time dateTime={time ?? undefined} title={time ?? undefined}>{exact}</time>
}
