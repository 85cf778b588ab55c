import { Label, makeStyles, Select, tokens } from '@fluentui/react-components'
import { useId, useState } from 'react'
import { useTranslation } from 'react-i18next'
import { useNotify } from '../app/toast'
import { useMay } from '../app/session'
import type { Effect } from '../api/incidents'
import { useEffectsText } from './effects'
import { useErrorText } from './states'

const useStyles = makeStyles({ box: { display: 'flex', alignItems: 'center', gap: tokens.spacingHorizontalS } })

interface Props<S extends string> {
  value: S
  values: S[]
  nameOf: (value: S) => string
  /** Sends the choice to the control plane. */
  change: (value: S) => Promise<{ effects?: Effect[] | null }>
  testid: string
}

/** The status of an alert or an incident, and the way to change it. */
export function StatusSelect<S extends string>({ value, values, nameOf, change, testid }: Props<S>) {
  const styles = useStyles()
  const { t } = useTranslation()
  const id = useId()
  const notify = useNotify()
  const errorText = useErrorText()
  const effectsText = useEffectsText()
  const may = useMay('alerts.triage')
  const [chosen, setChosen] = useState<S>()
  const choose = (next: S) => {
    setChosen(next)
    change(next).then(
      (done) => notify('success', t('triage.saved', { status: nameOf(next) }), effectsText(done.effects)),
      (error: unknown) => notify('error', t('triage.failed'), errorText(error)),
    ).finally(() => setChosen(undefined))
  }
  return (
    <div className={styles.box}>
      <Label htmlFor={id}>{t('triage.status')}</Label>
      <Select
        id={id} value={chosen ?? value} disabled={!may || chosen !== undefined} data-testid={testid}
        onChange={(_, d) => choose(d.value as S)}
      >
        {values.map((v) => <option key={v} value={v}>{nameOf(v)}</option>)}
      </Select>
    </div>
  )
}
