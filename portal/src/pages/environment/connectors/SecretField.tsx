import { Button, Field, Input, makeStyles, Textarea, tokens } from '@fluentui/react-components'
import { useState } from 'react'
import { useTranslation } from 'react-i18next'
import { Status } from '../../../ui/marks'

const useStyles = makeStyles({
  set: { display: 'flex', alignItems: 'center', gap: tokens.spacingHorizontalM, minHeight: '32px' },
  mono: { fontFamily: tokens.fontFamilyMonospace },
})

interface Props {
  label: string
  hint?: string
  /** One is stored. It is not shown; what is typed replaces it. */
  stored: boolean
  /** The stored one is not used for a test of what is typed. */
  again?: boolean
  value: string
  set: (value: string) => void
  disabled: boolean
  long?: boolean
  testid: string
}

/** A secret: it goes in, and never comes back. */
export function SecretField({ label, hint, stored, again, value, set, disabled, long, testid }: Props) {
  const styles = useStyles()
  const { t } = useTranslation()
  const [replacing, setReplacing] = useState(false)
  if (stored && !replacing) {
    return (
      <Field label={label} hint={again ? { children: t('connector.secretAgain'), 'data-testid': `${testid}-again` } as object : undefined}>
        {/* A field gives its label to an only child, which is no control here. */}
        {() => (
          <div className={styles.set}>
            <Status tone="good" testid={`${testid}-stored`}>{t('connector.secretStored')}</Status>
            <Button size="small" disabled={disabled} aria-label={t('connector.replaceWhat', { what: label })} onClick={() => setReplacing(true)} data-testid={`${testid}-replace`}>{t('connector.replace')}</Button>
          </div>
        )}
      </Field>
    )
  }
  return (
    <Field label={label} hint={stored ? t(again ? 'connector.secretAgain' : 'connector.replaceHint') : hint}>
      {long
        ? <Textarea value={value} rows={5} disabled={disabled} spellCheck={false} autoComplete="off" onChange={(_, d) => set(d.value)} textarea={{ 'data-testid': testid, className: styles.mono } as object} />
        : <Input type="password" autoComplete="new-password" value={value} disabled={disabled} onChange={(_, d) => set(d.value)} input={{ 'data-testid': testid } as object} />}
    </Field>
  )
}
