import { useCallback } from 'react'
import { useTranslation } from 'react-i18next'
import type { Effect } from '../api/incidents'
import { useFormat, useName } from '../i18n/names'

/** Says what a change has done beyond what was asked for. */
export function useEffectsText(): (effects: Effect[] | undefined | null) => string {
  const { t } = useTranslation()
  const name = useName()
  const format = useFormat()
  return useCallback((effects) => (effects ?? []).map((e) => {
    if (e.kind === 'incident') return t('manage.effectIncident', { status: name('incidentStatus', e.to) })
    if (e.field === 'status') return t('manage.effectResolved', { count: e.count, number: format.number(e.count) })
    return t('manage.effectClassified', { count: e.count, number: format.number(e.count), classification: name('classification', e.to) })
  }).join(' '), [t, name, format])
}
