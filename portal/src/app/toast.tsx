// Short messages at the top right. They live in a region that screen readers
// follow and leave by themselves.
import { Button, makeStyles, MessageBar, MessageBarActions, MessageBarBody, MessageBarTitle, tokens } from '@fluentui/react-components'
import { DismissRegular } from '@fluentui/react-icons/svg/dismiss'
import { createContext, useCallback, useContext, useMemo, useRef, useState, type ReactNode } from 'react'
import { useTranslation } from 'react-i18next'

interface Message {
  id: number
  intent: 'success' | 'error' | 'info'
  title: string
  text?: string
}

type Notify = (intent: Message['intent'], title: string, text?: string) => void

const Context = createContext<Notify | undefined>(undefined)

const shownFor = { success: 6_000, info: 6_000, error: 12_000 }

const useStyles = makeStyles({
  region: {
    position: 'fixed',
    top: '56px',
    right: tokens.spacingHorizontalL,
    zIndex: 1_000_000,
    display: 'flex',
    flexDirection: 'column',
    gap: tokens.spacingVerticalS,
    width: 'min(400px, calc(100vw - 32px))',
  },
  message: { boxShadow: tokens.shadow16 },
  title: { display: 'block' },
})

export function ToastProvider({ children }: { children: ReactNode }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const [messages, setMessages] = useState<Message[]>([])
  const last = useRef(0)

  const dismiss = useCallback((id: number) => setMessages((old) => old.filter((m) => m.id !== id)), [])
  const notify = useCallback<Notify>((intent, title, text) => {
    const id = ++last.current
    setMessages((old) => [...old.slice(-2), { id, intent, title, text }])
    window.setTimeout(() => dismiss(id), shownFor[intent])
  }, [dismiss])

  const list = useMemo(() => messages.map((m) => (
    <MessageBar key={m.id} className={styles.message} intent={m.intent} layout="multiline" data-testid="toast">
      <MessageBarBody>
        <MessageBarTitle className={styles.title}>{m.title}</MessageBarTitle>
        {m.text}
      </MessageBarBody>
      <MessageBarActions
        containerAction={<Button appearance="transparent" icon={<DismissRegular />} aria-label={t('action.dismiss')} onClick={() => dismiss(m.id)} />}
      />
    </MessageBar>
  )), [messages, styles, t, dismiss])

  return (
    <Context value={notify}>
      {children}
      <div className={styles.region} role="status" aria-live="polite">{list}</div>
    </Context>
  )
}

export function useNotify(): Notify {
  const notify = useContext(Context)
  if (!notify) throw new Error('useNotify outside of ToastProvider')
  return notify
}
