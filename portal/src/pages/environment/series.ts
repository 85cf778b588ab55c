import { tokens } from '@fluentui/react-components'
import { useTranslation } from 'react-i18next'
import type { CoveragePoint, MachineQuery } from '../../api/machines'
import { useName } from '../../i18n/names'

export interface Series {
  key: Exclude<keyof CoveragePoint, 'at'>
  label: string
  colour: string
  /** Lines differ by more than their colour. */
  dash?: string
  query: MachineQuery
}

/** The lines of the chart. */
export function useSeries(): Series[] {
  const { t } = useTranslation()
  const name = useName()
  return [
    { key: 'machines', label: t('environment.machines'), colour: tokens.colorNeutralForeground3, query: {} },
    { key: 'protected', label: name('machineState', 'succeeded'), colour: tokens.colorStatusSuccessForeground1, query: { state: 'succeeded' } },
    { key: 'failed', label: name('machineState', 'failed'), colour: tokens.colorStatusDangerForeground1, dash: '6 3', query: { state: 'failed' } },
    { key: 'notApplicable', label: name('machineState', 'not_applicable'), colour: tokens.colorNeutralForeground4, dash: '2 3', query: { state: 'not_applicable' } },
  ]
}
