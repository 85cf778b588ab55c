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

/** Sends one request and returns its JSON. */
export async function request<T>(url: string, options: Options = {}): Promise<T> {
  let answer: Response
  try {
    answer = await fetch(url, {
      method: options.method ?? 'GET',
      headers: options.body === undefined ? { Accept: 'application/json' } : { Accept: 'application/json', 'Content-Type': 'application/json' },
      body: options.body === undefined ? undefined : JSON.stringify(options.body),
      signal: options.signal,
      credentials: 'same-origin',
    })
  } catch (e) {
    if (options.signal?.aborted) throw e
    throw new ApiError('unreachable', 0, String(e), '')
  }
  const text = await answer.text()
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
