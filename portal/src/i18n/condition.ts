// Says in the reader's language what is the matter with a part of an agent,
// and what to do. An agent that gives no code, or one that is newer than this
// portal, is shown as it speaks.
import { useMemo } from 'react'
import { useTranslation } from 'react-i18next'
import type { Condition } from '../api/types'
import { useName } from './names'

export function useCondition(): { reason: (c: Condition) => string; remedy: (c: Condition) => string } {
  const { t } = useTranslation()
  const name = useName()
  return useMemo(() => ({
    reason: (c) => {
      const known = name('conditionReason', c.code)
      if (!c.code || known === c.code) return name('message', c.reason)
      return c.detail ? t('condition.detail', { reason: known, detail: c.detail }) : known
    },
    remedy: (c) => {
      const known = name('conditionRemedy', c.code)
      return !c.code || known === c.code ? name('message', c.remedy) : known
    },
  }), [t, name])
}
