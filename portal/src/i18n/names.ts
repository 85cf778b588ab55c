// Names of values that come from the API. A value that is not in the
// catalogue is shown as it is: a newer control plane may know more.
import { useMemo } from 'react'
import { useTranslation } from 'react-i18next'
import type { i18n as I18n } from 'i18next'
import type { Catalogue } from './index'

type Families = Catalogue['names']
export type Family = keyof Families

export type Name = (family: Family, value: string | undefined | null) => string

/** Looks values up in the catalogue of the current language. */
function namer(i18n: I18n): Name {
  const bundle = i18n.getResourceBundle(i18n.language, 'translation') as Catalogue | undefined
  return (family, value) => {
    if (value === undefined || value === null || value === '') return ''
    const names = bundle?.names[family] as Record<string, string> | undefined
    return (names && Object.hasOwn(names, value) ? names[value] : undefined) ?? value
  }
}

export function useName(): Name {
  const { i18n } = useTranslation()
  return useMemo(() => namer(i18n), [i18n, i18n.language])
}

const scope = /^(.+) on (one endpoint|multiple endpoints)$/
const stages = /^Multi-stage incident involving (.+)$/
const malware = /^'(.+)' malware was (detected|prevented|blocked|quarantined)$/

/** Puts the titles of alerts and incidents into the reader's language. */
export function useTitle(): (title: string) => string {
  const { t } = useTranslation()
  const name = useName()
  const format = useFormat()
  return useMemo(() => {
    const translate = (title: string): string => {
      const scoped = scope.exec(title)
      if (scoped) {
        const inner = translate(scoped[1]!)
        return scoped[2] === 'one endpoint' ? t('title.oneEndpoint', { title: inner }) : t('title.manyEndpoints', { title: inner })
      }
      const staged = stages.exec(title)
      if (staged) return t('title.stages', { categories: format.list(staged[1]!.split(' & ').map((c) => name('category', c))) })
      const found = malware.exec(title)
      if (found) return t('title.malware', { threat: found[1], outcome: name('outcome', found[2]) })
      return name('title', title)
    }
    return translate
  }, [t, name, format])
}

/** Formats times, durations and numbers in the reader's language. */
export function useFormat() {
  const { i18n } = useTranslation()
  return useMemo(() => {
    const language = i18n.language
    const full = new Intl.DateTimeFormat(language, { dateStyle: 'medium', timeStyle: 'medium' })
    const clock = new Intl.DateTimeFormat(language, { timeStyle: 'medium' })
    const exact = new Intl.DateTimeFormat(language, {
      year: 'numeric', month: '2-digit', day: '2-digit', hour: '2-digit', minute: '2-digit', second: '2-digit', fractionalSecondDigits: 3, hourCycle: 'h23',
    })
    const day = new Intl.DateTimeFormat(language, { month: 'short', day: 'numeric' })
    const hour = new Intl.DateTimeFormat(language, { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' })
    const number = new Intl.NumberFormat(language)
    const relative = new Intl.RelativeTimeFormat(language, { numeric: 'auto' })
    const list = new Intl.ListFormat(language, { type: language === 'ja' ? 'conjunction' : 'unit' })
    const valid = (time: string | undefined | null) => {
      const at = time ? new Date(time) : undefined
      // The zero time of the API's language means "never".
      return at && !Number.isNaN(at.getTime()) && at.getFullYear() > 1 ? at : undefined
    }
    return {
      time: (time: string | undefined | null) => {
        const at = valid(time)
        return at ? full.format(at) : ''
      },
      /** The time of day alone. */
      clock: (time: string | undefined | null) => {
        const at = valid(time)
        return at ? clock.format(at) : ''
      },
      /** The day alone, or the hour: for the axis of a chart. */
      brief: (time: string | undefined | null, hours: boolean) => {
        const at = valid(time)
        return at ? (hours ? hour : day).format(at) : ''
      },
      /** To the millisecond, for rows whose order matters. */
      exact: (time: string | undefined | null) => {
        const at = valid(time)
        return at ? exact.format(at) : ''
      },
      ago: (time: string | undefined | null) => {
        const at = valid(time)
        if (!at) return ''
        const seconds = Math.round((at.getTime() - Date.now()) / 1000)
        const steps: [Intl.RelativeTimeFormatUnit, number][] = [['day', 86_400], ['hour', 3_600], ['minute', 60]]
        for (const [unit, size] of steps) {
          if (Math.abs(seconds) >= size) return relative.format(Math.trunc(seconds / size), unit)
        }
        return relative.format(0, 'minute')
      },
      number: (n: number) => number.format(n),
      list: (items: string[]) => list.format(items),
    }
  }, [i18n, i18n.language])
}
