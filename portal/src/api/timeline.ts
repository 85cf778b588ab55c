// A window that moves over a timeline of any length. What is far from the
// sight of the reader is forgotten, so that a million events cost no more
// than a few thousand.
import { useCallback, useEffect, useLayoutEffect, useReducer, useRef, type RefObject } from 'react'
import { path, request } from './client'
import { subscribe } from './live'
import type { DeviceEvent } from './types'

export interface TimelineQuery {
  q?: string
  action?: string
}

interface TimelinePage {
  items: DeviceEvent[]
  /** Where what is older goes on, empty at the end. */
  next: string
  /** Where what is newer goes on; new events arrive there. */
  newer: string
}

export const listTimeline = (device: string, query: TimelineQuery & { from?: string; to?: string; cursor?: string; newer?: string; limit?: number }, signal?: AbortSignal) =>
  request<TimelinePage>(path(['devices', device, 'timeline'], { ...query }), { signal })

const pageSize = 200
/** Pages that are held at a time. */
const held = 12
/** New events that are counted before the count is "more than". */
const most = 1_000
const lookEvery = 1_000

export interface Timeline {
  events: DeviceEvent[]
  loading: boolean
  error: unknown
  /** What is shown begins with the newest event that was there when it was loaded. */
  atHead: boolean
  atEnd: boolean
  /** New events that wait to be shown, and whether there are more of them. */
  waiting: number
  waitingMore: boolean
  older: () => void
  newer: () => void
  /** Shows the newest events, those that wait included. */
  toHead: () => void
  reload: () => void
}

/** The window itself; it lives as long as the tab that shows it. */
class Window {
  pages: TimelinePage[] = []
  events: DeviceEvent[] = []
  loading = true
  error: unknown
  atHead = true
  atEnd = false
  waiting: TimelinePage | undefined
  /** Rows that came in above what is in sight, less those that were taken away there. */
  shift = 0
  /** The first row of a new place has to be in sight. */
  moved = false
  private key = ''
  private device = ''
  private query: TimelineQuery = {}
  private at = ''
  private busy: AbortController | undefined
  private looking: AbortController | undefined
  private readonly changed: () => void

  constructor(changed: () => void) {
    this.changed = changed
  }

  open(device: string, query: TimelineQuery, at: string) {
    const key = JSON.stringify([device, query, at])
    if (this.key === key) return
    this.key = key
    this.device = device
    this.query = query
    this.at = at
    this.reload()
  }

  close() {
    this.key = ''
    this.busy?.abort()
    this.looking?.abort()
    this.busy = this.looking = undefined
  }

  private get(more: Parameters<typeof listTimeline>[1], signal: AbortSignal) {
    return listTimeline(this.device, { ...this.query, limit: pageSize, ...more }, signal)
  }

  /** Does one thing at a time; a thing that is wanted more ends the other. */
  private run(work: (signal: AbortSignal) => Promise<void>, instead = false) {
    if (this.busy && !instead) return
    this.busy?.abort()
    const controller = new AbortController()
    this.busy = controller
    work(controller.signal).then(() => {
      if (!controller.signal.aborted) this.error = undefined
    }, (error: unknown) => {
      if (!controller.signal.aborted) this.error = error
    }).finally(() => {
      if (controller.signal.aborted) return
      this.busy = undefined
      this.loading = false
      this.changed()
    })
  }

  private show(pages: TimelinePage[]) {
    this.pages = pages
    this.events = pages.flatMap((page) => page.items)
  }

  reload() {
    this.looking?.abort()
    this.looking = undefined
    this.waiting = undefined
    this.run(async (signal) => {
      // The time itself belongs to what is shown.
      const to = this.at === '' ? undefined : new Date(Date.parse(this.at) + 1).toISOString()
      let page = await this.get({ to }, signal)
      if (page.items.length === 0 && to) page = await this.get({ newer: 'true', from: this.at }, signal)
      if (signal.aborted) return
      this.atHead = this.at === ''
      this.atEnd = page.next === ''
      this.moved = true
      this.show([page])
    }, true)
  }

  older() {
    const next = this.pages.at(-1)?.next
    if (!next) return
    this.run(async (signal) => {
      const page = await this.get({ cursor: next }, signal)
      if (signal.aborted) return
      const pages = [...this.pages, page]
      if (pages.length > held) {
        this.shift -= pages.shift()!.items.length
        this.atHead = false
        this.waiting = undefined
      }
      this.atEnd = page.next === ''
      this.show(pages)
    })
  }

  newer() {
    const cursor = this.pages[0]?.newer
    if (!cursor || this.atHead) return
    this.run(async (signal) => {
      const page = await this.get({ cursor, newer: 'true' }, signal)
      if (signal.aborted) return
      if (page.items.length < pageSize) this.atHead = true
      if (page.items.length === 0) return
      const pages = [page, ...this.pages]
      if (pages.length > held) {
        pages.pop()
        this.atEnd = false
      }
      this.shift += page.items.length
      this.show(pages)
    })
  }

  /** Asks what has arrived since, and lets it wait: rows do not move under a reader. */
  look() {
    const from = this.waiting?.newer || this.pages[0]?.newer
    if (!this.atHead || this.looking || this.loading || (this.waiting?.items.length ?? 0) >= most) return
    if (!from) {
      if (!this.busy && !this.error) this.reload() // nothing was there at all
      return
    }
    const controller = new AbortController()
    this.looking = controller
    this.get({ cursor: from, newer: 'true' }, controller.signal).then((page) => {
      if (controller.signal.aborted || page.items.length === 0) return
      this.waiting = { items: [...page.items, ...(this.waiting?.items ?? [])], next: this.waiting?.next ?? page.next, newer: page.newer }
      this.changed()
    }, () => undefined).finally(() => {
      if (this.looking === controller) this.looking = undefined
    })
  }

  toHead() {
    const { waiting } = this
    if (!this.atHead || !waiting || waiting.items.length >= most) {
      this.reload()
      return
    }
    this.waiting = undefined
    this.moved = true
    const pages = [waiting, ...this.pages]
    if (pages.length > held) {
      pages.pop()
      this.atEnd = false
    }
    this.show(pages)
    this.changed()
  }
}

/** What happened on a device, up to a time or up to now. */
export function useTimeline(device: string, query: TimelineQuery, at: string, scroller: RefObject<HTMLElement | null>, rowHeight: number): Timeline {
  const [, changed] = useReducer((n: number) => n + 1, 0)
  const kept = useRef<Window>(undefined)
  kept.current ??= new Window(changed)
  const window = kept.current
  const key = JSON.stringify(query)
  useEffect(() => {
    window.open(device, JSON.parse(key) as TimelineQuery, at)
    return () => window.close()
  }, [window, device, key, at])
  useEffect(() => subscribe([`device:${device}`], () => window.look(), lookEvery), [window, device])
  // Before the browser paints: what is in sight stays where it is.
  useLayoutEffect(() => {
    const element = scroller.current
    if (element && window.moved) element.scrollTop = 0
    else if (element && window.shift !== 0) element.scrollTop += window.shift * rowHeight
    window.moved = false
    window.shift = 0
  })
  return {
    events: window.events, loading: window.loading, error: window.error, atHead: window.atHead, atEnd: window.atEnd,
    waiting: window.waiting?.items.length ?? 0, waitingMore: (window.waiting?.items.length ?? 0) >= most,
    older: useCallback(() => window.older(), [window]), newer: useCallback(() => window.newer(), [window]),
    toHead: useCallback(() => window.toHead(), [window]), reload: useCallback(() => window.reload(), [window]),
  }
}
