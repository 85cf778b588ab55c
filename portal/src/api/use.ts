// Hooks that load data, keep it fresh and keep the old data on the page while
// newer data is on its way.
import { useCallback, useEffect, useRef, useState } from 'react'
import { subscribe, type Wanted } from './live'
import type { List } from './types'

export interface Loaded<T> {
  data: T | undefined
  error: unknown
  reload: () => void
  /** Replaces the data, with what a change answered. */
  set: (data: T) => void
}

/** Loads something now, again when key changes, and after a change to a topic. */
export function useData<T>(key: string, load: (signal: AbortSignal) => Promise<T>, refreshOn: Wanted[] = [], every?: number): Loaded<T> {
  const [state, setState] = useState<{ key: string; data?: T; error?: unknown }>({ key })
  const latest = useRef(load)
  latest.current = load
  const running = useRef<AbortController>(undefined)

  const reload = useCallback(() => {
    running.current?.abort()
    const abort = new AbortController()
    running.current = abort
    latest.current(abort.signal).then(
      (data) => abort.signal.aborted || setState({ key, data }),
      (error: unknown) => abort.signal.aborted || setState((old) => ({ key, data: old.key === key ? old.data : undefined, error })),
    )
  }, [key])

  const watched = refreshOn.join(' ')
  useEffect(() => {
    reload()
    const stop = subscribe(watched.split(' ') as Wanted[], reload, every)
    return () => {
      stop()
      running.current?.abort()
    }
  }, [reload, watched, every])

  const set = useCallback((data: T) => {
    running.current?.abort() // an answer from before the change must not win
    setState({ key, data })
  }, [key])

  const current = state.key === key ? state : { data: undefined, error: undefined }
  return { data: current.data, error: current.error, reload, set }
}

export interface Paged<T> {
  items: T[]
  total: number
  /** True until the first page is there. */
  loading: boolean
  error: unknown
  more: () => void
  hasMore: boolean
  reload: () => void
}

interface PagedState<T> {
  key: string
  items: T[]
  total: number
  next: string
  loading: boolean
  error?: unknown
}

const pageSize = 100

/**
 * Loads a list page by page. After a change, the pages that were loaded are
 * loaded again, or, for lists that only grow at their head, the first page is
 * joined to them.
 */
export function usePaged<T extends { id: string }>(
  key: string,
  load: (page: { cursor: string; limit: number }, signal: AbortSignal) => Promise<List<T>>,
  refreshOn: Wanted[],
  grows = false,
): Paged<T> {
  const fresh = useCallback((): PagedState<T> => ({ key, items: [], total: 0, next: '', loading: true }), [key])
  const [state, setState] = useState(fresh)
  const latest = useRef(load)
  latest.current = load
  const now = useRef(state)
  now.current = state.key === key ? state : fresh()
  const running = useRef<AbortController>(undefined)

  const run = useCallback((work: (signal: AbortSignal) => Promise<PagedState<T>>) => {
    running.current?.abort()
    const abort = new AbortController()
    running.current = abort
    work(abort.signal).then(
      (next) => abort.signal.aborted || setState(next),
      (error: unknown) => abort.signal.aborted || setState({ ...now.current, loading: false, error }),
    ).finally(() => {
      if (running.current === abort) running.current = undefined
    })
  }, [])

  const reload = useCallback(() => run(async (signal) => {
    const wanted = now.current.items.length
    let page = await latest.current({ cursor: '', limit: pageSize }, signal)
    if (grows && wanted > 0) {
      const known = new Set(now.current.items.map((item) => item.id))
      const added = page.items.filter((item) => !known.has(item.id))
      if (added.length < page.items.length) {
        return { key, items: [...added, ...now.current.items], total: page.total, next: now.current.next, loading: false }
      }
    }
    const items = [...page.items]
    while (items.length < wanted && page.next) {
      page = await latest.current({ cursor: page.next, limit: pageSize }, signal)
      items.push(...page.items)
    }
    return { key, items, total: page.total, next: page.next ?? '', loading: false }
  }), [run, key, grows])

  const more = useCallback(() => {
    const { next, items } = now.current
    if (next === '' || running.current) return
    run(async (signal) => {
      const page = await latest.current({ cursor: next, limit: pageSize }, signal)
      const known = new Set(items.map((item) => item.id))
      const added = page.items.filter((item) => !known.has(item.id))
      return { key, items: [...items, ...added], total: page.total, next: page.next ?? '', loading: false }
    })
  }, [run, key])

  const watched = refreshOn.join(' ')
  useEffect(() => {
    reload()
    const stop = subscribe(watched.split(' ') as Wanted[], reload)
    return () => {
      stop()
      running.current?.abort()
      running.current = undefined
    }
  }, [reload, watched])

  const shown = now.current
  return { items: shown.items, total: shown.total, loading: shown.loading, error: shown.error, more, hasMore: shown.next !== '', reload }
}
