// The same change to many machines: a few requests at a time, and an account
// of what did not work.
import { useRef, useState } from 'react'

/** How many requests are under way at once. */
const atOnce = 6

export interface Bulk {
  done: number
  total: number
  /** The first refusal, and how many there were. */
  failed: number
  error: unknown
}

interface Runner {
  /** What is under way, undefined when nothing is. */
  progress: Bulk | undefined
  run: <T>(items: T[], change: (item: T) => Promise<unknown>) => Promise<Bulk>
  stop: () => void
}

export function useBulk(): Runner {
  const [progress, setProgress] = useState<Bulk>()
  const stopped = useRef(false)
  const run: Runner['run'] = async (items, change) => {
    stopped.current = false
    const left = [...items]
    const state: Bulk = { done: 0, total: items.length, failed: 0, error: undefined }
    setProgress({ ...state })
    const work = async () => {
      for (let item = left.shift(); item !== undefined && !stopped.current; item = left.shift()) {
        try {
          await change(item)
        } catch (e) {
          state.failed++
          state.error ??= e
        }
        state.done++
        setProgress({ ...state })
      }
    }
    await Promise.all(Array.from({ length: atOnce }, work))
    setProgress(undefined)
    return state
  }
  return { progress, run, stop: () => { stopped.current = true } }
}
