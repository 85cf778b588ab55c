// The state of Komainu.Linux on a machine, in a few words.
import { useEffect, useState } from 'react'
import { useTranslation } from 'react-i18next'
import type { Extension } from '../../../api/machines'
import { useFormat, useName } from '../../../i18n/names'
import { Status, type Tone } from '../../../ui/marks'
import { useReason } from '../../../ui/reasons'

const tones: Record<string, Tone> = { succeeded: 'good', failed: 'bad', creating: 'busy', removing: 'busy', waiting: 'waiting' }

/** Says the state with its step, its reason or what it waits for. */
export function useStateText(): (extension: Extension) => string {
  const { t } = useTranslation()
  const name = useName()
  const reason = useReason()
  return ({ state, step, waits, reason: why, observing }) => {
    const label = name('machineState', state)
    switch (state) {
      case 'succeeded': return observing ? t('machine.observing') : label
      case 'creating': {
        const doing = step === '' ? label : name('deployStep', step)
        return waits === '' ? doing : t('machine.because', { state: doing, why: name('machineWaits', waits) })
      }
      case 'waiting':
        if (waits !== '') return t('machine.because', { state: label, why: name('machineWaits', waits) })
        return why ? t('machine.because', { state: label, why: reason(why).text }) : label
      case 'failed':
      case 'not_applicable':
      case 'none': return why ? t('machine.because', { state: label, why: reason(why).text }) : label
      default: return label
    }
  }
}

export function MachineStatus({ extension, testid }: { extension: Extension; testid?: string }) {
  const text = useStateText()(extension)
  const tone = extension.state === 'succeeded' && extension.observing ? 'warn' : tones[extension.state] ?? 'neutral'
  return (
    <span title={text}>
      <Status tone={tone} testid={testid}>
        {text}
        {extension.state === 'creating' && extension.startedAt && <> <Elapsed since={extension.startedAt} /></>}
      </Status>
    </span>
  )
}

/** Seconds since a moment; they count. */
export function Elapsed({ since }: { since: string }) {
  const { t } = useTranslation()
  const format = useFormat()
  const [now, setNow] = useState(Date.now)
  useEffect(() => {
    const timer = window.setInterval(() => setNow(Date.now()), 1_000)
    return () => window.clearInterval(timer)
  }, [])
  const seconds = Math.max(0, Math.floor((now - Date.parse(since)) / 1000))
  return <>{t('machine.seconds', { count: seconds, number: format.number(seconds) })}</>
}
