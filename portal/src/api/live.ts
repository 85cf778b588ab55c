// Tells pages that something changed. The control plane pushes over
// server-sent events; while that stream is down, a clock asks instead.

const topics = ['device', 'alert', 'incident', 'plan', 'policy', 'group', 'notification', 'run', 'machine', 'connector', 'onboarding', 'upgrade'] as const

export type Topic = (typeof topics)[number]

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

/** A topic, or one thing of it as topic:id. */
export type Wanted = Topic | `${Topic}:${string}`

/** Calls f after a change to what is wanted, at most once in so many milliseconds. */
export function subscribe(wanted: Wanted[], f: () => void, every = 250): () => void {
  let timer: number | undefined
  const listener: Listener = (topic, changed) => {
    // A change without an id may be to anything of its topic.
    const hit = (w: Wanted) => w === topic || (w.startsWith(`${topic}:`) && (changed === '' || w === `${topic}:${changed}`))
    if (topic !== 'all' && !wanted.some(hit)) return
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
