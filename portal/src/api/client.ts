// One door to the API: every call goes through request, so that errors and the
// end of a session look the same everywhere.

/** What the API says when it refuses. */
export class ApiError extends Error {
  readonly kind: string
  readonly status: number
  /** Names this refusal in the log of the control plane. */
  readonly id: string

  constructor(kind: string, status: number, message: string, id: string) {
    super(message)
    this.kind = kind
    this.status = status
    this.id = id
  }
}

let onSignedOut: () => void = () => {}

/** Says what to do when the API answers that nobody is signed in. */
export function whenSignedOut(f: () => void) {
  onSignedOut = f
}

type Query = Record<string, string | number | undefined>

/** Builds a path below /api/v1; empty parameters are left out. */
export function path(parts: string[], query: Query = {}): string {
  const search = new URLSearchParams()
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== '') search.set(name, String(value))
  }
  const tail = search.size > 0 ? `?${search}` : ''
  return `/api/v1/${parts.map(encodeURIComponent).join('/')}${tail}`
}

interface Options {
  method?: string
  body?: unknown
  signal?: AbortSignal
  /** The caller handles 401 itself. */
  quiet?: boolean
}

const again = 300

/**
 * Fetches, and once more what only reads: a browser drops every request that
 * is under way when an address comes or goes, as it does with a VPN or with
 * containers on the same computer.
 */
async function answered(url: string, options: Options): Promise<{ answer: Response; text: string }> {
  const method = options.method ?? 'GET'
  for (let left = method === 'GET' ? 1 : 0; ; left--) {
    try {
      const answer = await fetch(url, {
        method,
        headers: options.body === undefined ? { Accept: 'application/json' } : { Accept: 'application/json', 'Content-Type': 'application/json' },
        body: options.body === undefined ? undefined : JSON.stringify(options.body),
        signal: options.signal,
        credentials: 'same-origin',
      })
      return { answer, text: await answer.text() }
    } catch (e) {
      if (options.signal?.aborted) throw e
      if (left === 0) throw new ApiError('unreachable', 0, String(e), '')
    }
    await new Promise((go) => window.setTimeout(go, again))
  }
}

/** Sends one request and returns its JSON. */
export async function request<T>(url: string, options: Options = {}): Promise<T> {
  const { answer, text } = await answered(url, options)
  const json = parse(text)
  if (answer.ok) return json as T
  if (answer.status === 401 && !options.quiet) onSignedOut()
  const problem = (json ?? {}) as { kind?: string; message?: string; id?: string }
  throw new ApiError(problem.kind ?? `http_${answer.status}`, answer.status, problem.message ?? answer.statusText, problem.id ?? '')
}

function parse(text: string): unknown {
  if (text === '') return undefined
  try {
    return JSON.parse(text)
  } catch {
    return undefined // a proxy in between may answer in HTML
  }
}
