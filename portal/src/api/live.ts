// Tells pages that something changed. The control plane pushes over
// server-sent events; while that stream is down, a clock asks instead.

export type Topic = 'device' | 'alert' | 'incident' | 'plan' | 'policy' | 'group' | 'notification' | 'run'

const topics: Topic[] = ['device', 'alert', 'incident', 'plan', 'policy', 'group', 'notification', 'run']
const pollEvery = 5_000
const tryAgainAfter = 30_000

type Listener = (topic: Topic | 'all', id: string) => void

const listeners = new Set<Listener>()
let stream: EventSource | undefined
let poll: number | undefined
let again: number | undefined

function tell(topic: Topic | 'all', id: string) {
  for (const listener of listeners) listener(topic, id)
}

function startPolling() {
  poll ??= window.setInterval(() => {
    if (!document.hidden) tell('all', '')
  }, pollEvery)
}

function stopPolling() {
  window.clearInterval(poll)
  poll = undefined
}

function open() {
  const source = new EventSource('/api/v1/stream')
  stream = source
  source.onopen = () => {
    const missed = poll !== undefined
    stopPolling()
    if (missed) tell('all', '')
  }
  source.onerror = () => {
    startPolling()
    // The browser tries again by itself unless the answer was no stream at all.
    if (source.readyState === EventSource.CLOSED) {
      window.clearTimeout(again)
      again = window.setTimeout(open, tryAgainAfter)
    }
  }
  for (const topic of topics) {
    source.addEventListener(topic, (message) => tell(topic, idOf((message as MessageEvent<string>).data)))
  }
}

function idOf(data: string): string {
  try {
    return String((JSON.parse(data) as { id?: unknown }).id ?? '')
  } catch {
    return ''
  }
}

/** Opens the stream until the returned function is called. */
export function connect(): () => void {
  open()
  return () => {
    stream?.close()
    stream = undefined
    window.clearTimeout(again)
    stopPolling()
  }
}

interface Pace {
  /** Only changes to this one; a change without an id may be to it. */
  id?: string
  /** The least time between two calls, in milliseconds. */
  every?: number
}

/** Calls f after a change to one of these topics, at most every quarter second. */
export function subscribe(wanted: Topic[], f: () => void, { id = '', every = 250 }: Pace = {}): () => void {
  let timer: number | undefined
  const listener: Listener = (topic, changed) => {
    if (topic !== 'all' && !wanted.includes(topic)) return
    if (id !== '' && changed !== '' && changed !== id) return
    timer ??= window.setTimeout(() => {
      timer = undefined
      f()
    }, every)
  }
  listeners.add(listener)
  return () => {
    listeners.delete(listener)
    window.clearTimeout(timer)
  }
}
