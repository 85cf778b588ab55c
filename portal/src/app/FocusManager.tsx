import { useFocusFinders } from '@fluentui/react-components'
import { useEffect } from 'react'

const dialogs = '[role=dialog], [role=alertdialog]'

/**
 * Keeps Fluent's focus management alive between dialogs, and gives the focus
 * back when one has closed. Fluent's lives as long as something uses it:
 * without this it would go together with a dialog, before it has let screen
 * readers see the page again.
 */
export default function FocusManager() {
  useFocusFinders()
  useEffect(() => {
    let last: Element | null = null // what had the focus outside of dialogs
    let timer = 0
    const remember = (e: FocusEvent) => {
      if (e.target instanceof HTMLElement && e.target.closest(dialogs) === null) last = e.target
    }
    const giveBack = () => {
      if (document.activeElement !== document.body && document.activeElement !== null || document.querySelector(dialogs) !== null) return
      // What opened the dialog may have gone with what the dialog did.
      const target = last?.isConnected ? last : document.getElementById('content')
      if (target instanceof HTMLElement) target.focus({ preventScroll: true })
    }
    // Dialogs stand beside the page, in the body. Fluent may be about to give
    // the focus back itself.
    const observer = new MutationObserver((records) => {
      if (!records.some((r) => r.removedNodes.length > 0)) return
      window.clearTimeout(timer)
      timer = window.setTimeout(giveBack, 100)
    })
    observer.observe(document.body, { childList: true })
    document.addEventListener('focusin', remember)
    return () => {
      observer.disconnect()
      document.removeEventListener('focusin', remember)
      window.clearTimeout(timer)
    }
  }, [])
  return null
}
