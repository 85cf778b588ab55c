import { Button, Field, makeStyles, MessageBar, MessageBarBody, Text, Textarea, tokens } from '@fluentui/react-components'
import { useState, type FormEvent } from 'react'
import { useTranslation } from 'react-i18next'
import type { Comment } from '../api/incidents'
import { useMay } from '../app/session'
import { Ago } from './marks'
import { Panel } from './Panel'
import { useErrorText } from './states'

const useStyles = makeStyles({
  list: { listStyleType: 'none', margin: 0, padding: 0, display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalM },
  head: { display: 'flex', gap: tokens.spacingHorizontalS, alignItems: 'baseline' },
  dim: { color: tokens.colorNeutralForeground3, fontSize: tokens.fontSizeBase200 },
  text: { whiteSpace: 'pre-wrap', overflowWrap: 'anywhere' },
  form: { display: 'flex', flexDirection: 'column', alignItems: 'flex-start', gap: tokens.spacingVerticalS },
})

/** What people said, oldest first, and a place to say more. */
export function Comments({ items, add }: { items: Comment[]; add: (text: string) => Promise<unknown> }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const may = useMay('alerts.triage')
  const errorText = useErrorText()
  const [text, setText] = useState('')
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState<unknown>()
  const submit = (event: FormEvent) => {
    event.preventDefault()
    if (busy || text.trim() === '') return
    setBusy(true)
    setError(undefined)
    add(text.trim()).then(() => setText(''), setError).finally(() => setBusy(false))
  }
  return (
    <Panel title={t('comment.title')}>
      {items.length === 0 && <Text className={styles.dim}>{t('comment.none')}</Text>}
      <ul className={styles.list}>
        {items.map((c) => (
          <li key={c.id} data-testid="comment">
            <div className={styles.head}><Text weight="semibold">{c.author}</Text><span className={styles.dim}><Ago time={c.at} /></span></div>
            <div className={styles.text}>{c.text}</div>
          </li>
        ))}
      </ul>
      {may && (
        <form className={styles.form} onSubmit={submit}>
          {error !== undefined && <MessageBar intent="error" layout="multiline" role="alert"><MessageBarBody>{errorText(error)}</MessageBarBody></MessageBar>}
          <Field label={t('comment.add')} style={{ width: '100%' }}>
            <Textarea value={text} rows={2} maxLength={4000} onChange={(_, d) => setText(d.value)} textarea={{ 'data-testid': 'comment-text' } as object} />
          </Field>
          <Button type="submit" size="small" disabledFocusable={busy || text.trim() === ''} data-testid="comment-add">{t('comment.send')}</Button>
        </form>
      )}
    </Panel>
  )
}
