import { Button, makeStyles, mergeClasses, tokens } from '@fluentui/react-components'
import { CheckmarkRegular } from '@fluentui/react-icons/svg/checkmark'
import { CopyRegular } from '@fluentui/react-icons/svg/copy'
import { useEffect, useState } from 'react'
import { useTranslation } from 'react-i18next'

const useStyles = makeStyles({
  box: { display: 'flex', alignItems: 'flex-start', gap: tokens.spacingHorizontalS, backgroundColor: tokens.colorNeutralBackground3, borderRadius: tokens.borderRadiusMedium, padding: `${tokens.spacingVerticalXS} ${tokens.spacingHorizontalXS} ${tokens.spacingVerticalXS} ${tokens.spacingHorizontalM}` },
  code: { fontFamily: tokens.fontFamilyMonospace, fontSize: tokens.fontSizeBase200, lineHeight: tokens.lineHeightBase300, overflowWrap: 'anywhere', flexGrow: 1, padding: '4px 0', maxHeight: '160px', overflowY: 'auto' },
  block: { whiteSpace: 'pre-wrap', maxHeight: '260px' },
})

/** A text to be copied whole; block keeps its lines. */
export function Copyable({ text, label, testid, block }: { text: string; label: string; testid?: string; block?: boolean }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const [copied, setCopied] = useState(false)
  useEffect(() => {
    if (!copied) return
    const timer = window.setTimeout(() => setCopied(false), 2_000)
    return () => window.clearTimeout(timer)
  }, [copied])
  return (
    <div className={styles.box}>
      <code className={mergeClasses(styles.code, block && styles.block)} data-testid={testid} tabIndex={0}>{text}</code>
      <Button
        appearance="subtle" icon={copied ? <CheckmarkRegular /> : <CopyRegular />} aria-label={t('action.copy', { what: label })}
        onClick={() => void navigator.clipboard.writeText(text).then(() => setCopied(true))}
      />
      <span role="status" style={{ position: 'absolute', left: -10_000 }}>{copied ? t('action.copied') : ''}</span>
    </div>
  )
}
