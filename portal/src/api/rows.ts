// A list of any length, of which only the pages in sight are loaded.
import { useCallback, useEffect, useMemo, useReducer, useRef } from 'react'
import { subscribe, type Wanted } from './live'
import type { List } from './types'

export interface Rows<T> {
  total: number
  /** The row at a place, undefined while it is on its way. */
  at: (index: number) => T | undefined
  /** Says which rows are in sight. */
  see: (first: number, last: number) => void
  /** True until there is something to show. */
  loading: boolean
  /** True while the rows are those of the choice before. */
  stale: boolean
  error: unknown
  reload: () => void
}

type Load<T> = (page: { cursor: string; limit: number }, signal: AbortSignal) => Promise<List<T>>

const pageSize = 100
/** How many pages are kept beside those in sight. */
const kept = 30
/** Rows that only fly past are not asked for. */
const settle = 60
/** A list of thousands is not loaded anew for every device that says something. */
const refreshEvery = 1_000

/** The pages of one list; it lives as long as the page that shows it. */
class Store<T> {
  total = 0
  error: unknown
  /** What is shown belongs to this key. */
  shown: string | undefined
  private wanted = ''
  private load!: Load<T>
  private pages = new Map<number, T[]>()
  private running = new Map<number, AbortController>()
  private first = 0
  private last = 0
  private timer: number | undefined
  private readonly changed: () => void

  constructor(changed: () => void) {
    this.changed = changed
  }

  use(load: Load<T>) {
    this.load = load
  }

  at(index: number): T | undefined {
    return this.pages.get(Math.floor(index / pageSize))?.[index % pageSize]
  }

  open(key: string) {
    if (this.wanted === key && this.shown === key) return
    this.wanted = key
    this.abort()
    this.first = this.last = 0
    this.refresh()
  }

  abort() {
    for (const controller of this.running.values()) controller.abort()
    this.running.clear()
    window.clearTimeout(this.timer)
  }

  see(first: number, last: number) {
    const from = Math.floor(first / pageSize)
    const to = Math.floor(last / pageSize)
    if (from === this.first && to === this.last) return
    this.first = from
    this.last = to
    window.clearTimeout(this.timer)
    this.timer = window.setTimeout(() => this.fill(), settle)
  }

  private fill() {
    if (this.shown !== this.wanted) return
    for (const [page, controller] of this.running) {
      if (page >= this.first && page <= this.last) continue
      controller.abort()
      this.running.delete(page)
    }
    for (let page = this.first; page <= this.last && page * pageSize < this.total; page++) {
      if (!this.pages.has(page) && !this.running.has(page)) void this.fetch(page)
    }
  }

  /** Loads what is in sight anew, and forgets the rest once that is there. */
  refresh() {
    const key = this.wanted
    const pages: number[] = []
    for (let page = this.first; page <= this.last; page++) pages.push(page)
    void Promise.all(pages.map((page) => this.fetch(page, true))).then((ok) => {
      if (key !== this.wanted || !ok.every(Boolean)) return
      for (const page of [...this.pages.keys()]) {
        if (!pages.includes(page)) this.pages.delete(page)
      }
      this.fill()
    })
  }

  private async fetch(page: number, again = false): Promise<boolean> {
    const key = this.wanted
    if (again) this.running.get(page)?.abort()
    const controller = new AbortController()
    this.running.set(page, controller)
    try {
      const list = await this.load({ cursor: page === 0 ? '' : String(page * pageSize), limit: pageSize }, controller.signal)
      if (controller.signal.aborted) return false
      if (this.shown !== key) this.pages.clear()
      this.shown = key
      this.total = list.total
      this.error = undefined
      this.pages.set(page, list.items)
      this.forget()
      this.changed()
      return true
    } catch (error) {
      if (controller.signal.aborted) return false
      if (this.shown !== key) {
        this.pages.clear()
        this.total = 0
        this.shown = key
      }
      this.error = error
      this.changed()
      return false
    } finally {
      if (this.running.get(page) === controller) this.running.delete(page)
    }
  }

  private forget() {
    if (this.pages.size <= kept) return
    const middle = (this.first + this.last) / 2
    const far = [...this.pages.keys()].sort((a, b) => Math.abs(b - middle) - Math.abs(a - middle))
    for (const page of far.slice(0, this.pages.size - kept)) this.pages.delete(page)
  }
}

/** Rows by their place. Another key is another list; the old one stays until the new one is there. */
export function useRows<T>(key: string, load: Load<T>, refreshOn: Wanted[]): Rows<T> {
  const [version, changed] = useReducer((n: number) => n + 1, 0)
  const held = useRef<Store<T>>(undefined)
  held.current ??= new Store<T>(changed)
  const store = held.current
  store.use(load)
  const watched = refreshOn.join(' ')
  useEffect(() => {
    store.open(key)
  }, [store, key])
  useEffect(() => {
    const stop = subscribe(watched.split(' ') as Wanted[], () => store.refresh(), refreshEvery)
    return () => {
      stop()
      store.abort()
    }
  }, [store, watched])
  const see = useCallback((first: number, last: number) => store.see(first, last), [store])
  const reload = useCallback(() => store.refresh(), [store])
  return useMemo(() => ({
    total: store.total, at: (index: number) => store.at(index), see, reload,
    loading: store.shown === undefined, stale: store.shown !== key, error: store.shown === key ? store.error : undefined,
    // version stands for what the store holds.
  }), [store, version, key, see, reload])
}
