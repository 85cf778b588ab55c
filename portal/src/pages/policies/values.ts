// Settings and their values in words.
import { useTranslation } from 'react-i18next'
import type { Assignment, Tag } from '../../api/policies'
import { useFormat, useName } from '../../i18n/names'

export interface Exclusion {
  type: string
  value: string
  scope: string
}

export interface Schedule {
  kind: string
  path?: string
  days?: string[]
  at: string
  randomizeMinutes?: number
}

/** Says who gets a policy. */
export function useAssigned(): (assignment: Assignment) => string {
  const { t } = useTranslation()
  return (a) => {
    if (a.kind === 'all') return t('policies.toAll')
    const name = a.name || a.id || ''
    return a.kind === 'group' ? t('policies.toGroup', { name }) : t('policies.toEnvironment', { name })
  }
}

/** Puts a setting's value into lines of words. */
export function useValue(): (setting: string, value: unknown) => string[] {
  const { t } = useTranslation()
  const name = useName()
  const format = useFormat()
  const one = (setting: string, value: unknown): string => {
    if (typeof value === 'boolean') return value ? t('value.on') : t('value.off')
    if (typeof value === 'number') return format.number(value)
    if (typeof value === 'string') return name('policyValue', value)
    if (setting === 'exclusions') {
      const e = value as Exclusion
      return `${name('exclusionType', e.type)} ${e.value} (${name('exclusionScope', e.scope)})`
    }
    if (setting === 'tags') {
      const tag = value as Tag
      return `${tag.key}=${tag.value}`
    }
    if (setting === 'scanSchedule') {
      const s = value as Schedule
      const days = s.days && s.days.length > 0 ? format.list(s.days.map((d) => name('weekday', d))) : t('policies.daily')
      return t('policies.scheduled', { kind: name('scanKind', s.kind), days, time: s.at })
    }
    return JSON.stringify(value)
  }
  return (setting, value) => {
    if (value === null || value === undefined) return [t('policies.nothing')]
    if (Array.isArray(value)) return value.length === 0 ? [t('policies.nothing')] : value.map((v) => one(setting, v))
    if (setting === 'threatTypeSettings') return Object.entries(value as Record<string, string>).map(([threat, action]) => `${name('threatType', threat)}: ${name('policyValue', action)}`)
    return [one(setting, value)]
  }
}
