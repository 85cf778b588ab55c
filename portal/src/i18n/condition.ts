// Says in the reader's language what is the matter with a part of an agent,
// and what to do. An agent that gives no code, or one that is newer than this
// portal, is shown as it speaks.
import { useMemo } from 'react'
import { useTranslation } from 'react-i18next'
import type { Condition } from '../api/types'
import { useFormat, useName } from './names'

export function useCondition(): { reason: (c: Condition) => string; remedy: (c: Condition) => string } {
  const { t } = useTranslation()
  const name = useName()
  const format = useFormat()
  return useMemo(() => ({
    reason: (c) => {
      const known = name('conditionReason', c.code)
      if (!c.code || known === c.code) {
        const plan = /^plan (P\d)$/.exec(c.reason ?? '')
        if (plan) return t('condition.plan', { plan: plan[1] })
        const valid = /^valid until (\S+)$/.exec(c.reason ?? '')
        return valid ? t('condition.valid', { time: format.time(valid[1]) }) : name('message', c.reason)
      }
      return c.detail ? t('condition.detail', { reason: known, detail: c.detail }) : known
    },
    remedy: (c) => {
      const known = name('conditionRemedy', c.code)
      return !c.code || known === c.code ? name('message', c.remedy) : known
    },
  }), [t, name, format])
}
