// Why a machine is not protected, in the reader's language. A reason that the
// catalogue does not know is shown as it came.
import { makeStyles, MessageBar, MessageBarBody, tokens } from '@fluentui/react-components'
import { useCallback, type ReactNode } from 'react'
import { useTranslation } from 'react-i18next'
import type { Reason } from '../api/machines'
import { useName } from '../i18n/names'

const useStyles = makeStyles({
  lines: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalXXS },
  detail: { fontFamily: tokens.fontFamilyMonospace, fontSize: tokens.fontSizeBase200, overflowWrap: 'anywhere', whiteSpace: 'pre-wrap' },
})

const sentence = (text: string) => text.charAt(0).toUpperCase() + text.slice(1)

/** The words of a reason: why, and what to do. */
export function useReason(): (reason: Pick<Reason, 'id' | 'text' | 'remedy'>) => { text: string; remedy: string } {
  const name = useName()
  return useCallback((reason) => {
    const text = name('deployReason', reason.id)
    const remedy = name('deployRemedy', reason.id)
    return { text: text === reason.id ? sentence(reason.text) : text, remedy: remedy === reason.id ? sentence(reason.remedy) : remedy }
  }, [name])
}

/** Why something is not as it should be, and what to do about it. */
export function ReasonNote({ reason, intent, children }: { reason: Reason; intent: 'error' | 'warning' | 'info'; children?: ReactNode }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const words = useReason()(reason)
  return (
    <MessageBar intent={intent} layout="multiline" data-testid="reason" data-reason={reason.id}>
      <MessageBarBody>
        <div className={styles.lines}>
          <strong>{words.text}</strong>
          {reason.detail && <span className={styles.detail}>{reason.detail}</span>}
          {words.remedy && <span>{t('reason.remedy', { remedy: words.remedy })}</span>}
          {children}
        </div>
      </MessageBarBody>
    </MessageBar>
  )
}
