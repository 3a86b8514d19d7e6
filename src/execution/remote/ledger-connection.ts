import { type Clock, pause } from '../../runtime/clock.ts'
import { messageOf } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/log.ts'

/** The server refused what a call holds, and would refuse it again. */
export class LedgerRefusal extends Error {
  override readonly name = 'LedgerRefusal'

  constructor(
    message: string,
    /** Of the problem (RFC 9457). */
    readonly code: string,
  ) {
    super(message)
  }
}

/** The server cannot be reached, or cannot answer now: the same again may well go through. */
export class LedgerUnavailable extends Error {
  override readonly name = 'LedgerUnavailable'

  constructor(
    message: string,
    /** Refused for the key's sake: somebody has to see to it. */
    readonly denied: boolean,
    /** What the server asked for, in milliseconds. */
    readonly retryAfterMs: number,
    /** Of the problem (RFC 9457), if it was one. */
    readonly code?: string,
    options?: ErrorOptions,
  ) {
    super(message, options)
  }
}

/** A call is refused for a row that it holds, as `isRefusedRow` of the store. */
export function isRefusedByLedger(error: unknown): boolean {
  return error instanceof LedgerRefusal
}

export interface LedgerConnectionSettings {
  /** Where the API is, without `/api/v1`. */
  url: string
  key: string
  clock: Clock
  log: Logger
  /** Injected by tests that want no chance; 0 to 1. */
  random?: () => number
}

export interface CallOptions {
  timeoutMs?: number
  /** Goes at once and also after `close`: the last word of a process that ends. */
  last?: boolean
}

/** HTTP to the server's worker protocol. */
export interface LedgerConnection {
  /** Posts JSON below /api/v1. Rejects with a LedgerRefusal or a LedgerUnavailable; after a failure calls wait before they go. */
  post<T>(path: string, body: object, options?: CallOptions): Promise<T>
  /** Gets JSON below /api/v1, at once; whether it fails says nothing about other calls. Rejects as `post` does. */
  get<T>(path: string, timeoutMs: number, signal: AbortSignal): Promise<T>
  /** Undefined while the server answers; else since when it does not (RFC 3339), and why. */
  away(): { since: string; reason: string } | undefined
  /** Ends what waits and what is under way; it rejects, as does every further call. */
  close(): void
  closed(): boolean
}

const TIMEOUT_MS = 30_000
/** The pause after the first failure; each one after it is twice as long, up to the longest. */
const FIRST_PAUSE_MS = 200
/** Well below the 15 s after which a silent worker is dead. */
const LONGEST_PAUSE_MS = 5_000
/** A key that is refused is seldom taken soon after. */
const DENIED_PAUSE_MS = 5_000
const TELL_EVERY_MS = 30_000

/** Problems that are about a row of the call. Any other one is no reason to let a task fail. */
const ABOUT_A_ROW = new Set(['unstorable', 'too-large'])
/** Calls that hold rows of several tasks. */
const HOLDS_ROWS = new Set(['/claims', '/outcomes'])
/**
 * So often `validation` is taken for what a server says that is older than this worker: about half a minute with the pauses. Then
 * it counts as about a row, for one that no server takes would hold up all others for ever.
 */
const VALIDATIONS_BORNE = 10
/** How long it counts so after the last one. */
const VALIDATIONS_KEPT_MS = 600_000

export function createLedgerConnection(settings: LedgerConnectionSettings): LedgerConnection {
  const { key, clock, log, random = Math.random } = settings
  const base = `${settings.url.replace(/\/+$/, '')}/api/v1`
  const closed = new AbortController()
  let failures = 0
  let opensAt = Number.NEGATIVE_INFINITY
  let toldAt = Number.NEGATIVE_INFINITY
  let away: { since: string; reason: string; denied: boolean; at: number } | undefined
  const validations = new Map<string, { count: number; at: number }>()

  /** What a call failed with, as a refusal of a row when the server has found too many like it invalid. */
  function judged(path: string, error: unknown): unknown {
    if (!(error instanceof LedgerUnavailable) || error.code !== 'validation' || !HOLDS_ROWS.has(path)) return error
    const now = clock.now()
    const before = validations.get(path)
    const count = before && now - before.at < VALIDATIONS_KEPT_MS ? before.count + 1 : 1
    validations.set(path, { count, at: now })
    return count > VALIDATIONS_BORNE ? new LedgerRefusal(error.message, error.code) : error
  }

  function failed(error: LedgerUnavailable, failuresBefore: number): void {
    // Calls that failed together are one failure.
    if (failures === failuresBefore) failures++
    const now = clock.now()
    const longest = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** Math.min(failures, 10))
    // Half of it by chance, so that many workers do not come back as one.
    const backoff = longest * (0.5 + random() / 2)
    const asked = Math.min(error.retryAfterMs, LONGEST_PAUSE_MS)
    opensAt = now + (error.denied ? DENIED_PAUSE_MS : Math.max(backoff, asked))
    if (closed.signal.aborted) return
    const isNews = away === undefined || (error.denied && !away.denied)
    away ??= { since: new Date().toISOString(), reason: '', denied: false, at: now }
    away.reason = error.message
    away.denied = error.denied
    if (!isNews && now - toldAt < TELL_EVERY_MS) return
    toldAt = now
    if (error.denied) log.error({ event: 'ledger-denied', url: base, error: error.message }, DENIED)
    else log.warn({ event: 'ledger-away', url: base, error: error.message }, AWAY)
  }

  /** What was sent before the last failure proves nothing: it may have been answered before. */
  function answered(failuresBefore: number): void {
    if (failures !== failuresBefore) return
    failures = 0
    opensAt = Number.NEGATIVE_INFINITY
    if (!away) return
    log.info({ event: 'ledger-back', url: base, awayMs: Math.round(clock.now() - away.at) }, 'The server answers again')
    away = undefined
  }

  async function post<T>(path: string, body: object, { timeoutMs = TIMEOUT_MS, last = false }: CallOptions = {}) {
    while (!last && clock.now() < opensAt && !closed.signal.aborted) {
      await pause(clock, opensAt - clock.now(), closed.signal)
    }
    const failuresBefore = failures
    try {
      const answer = await exchange('POST', path, JSON.stringify(body), timeoutMs, last ? [] : [closed.signal])
      answered(failuresBefore)
      return answer as T
    } catch (caught) {
      const error = judged(path, caught)
      if (error instanceof LedgerUnavailable) failed(error, failuresBefore)
      else answered(failuresBefore)
      throw error
    }
  }

  /** One request and its answer, within its time. Rejects with a LedgerRefusal or a LedgerUnavailable. */
  async function exchange(method: string, path: string, body: string | null, timeoutMs: number, ends: AbortSignal[]) {
    if (ends.some(({ aborted }) => aborted)) throw new LedgerUnavailable('the worker ends', false, 0)
    const ended = new AbortController()
    const end = () => ended.abort(new Error('the worker ends'))
    const cancelTimer = clock.after(timeoutMs, () => ended.abort(new Error(`no answer within ${timeoutMs} ms`)))
    for (const signal of ends) signal.addEventListener('abort', end, { once: true })
    try {
      return await request(method, base + path, key, body, ended.signal)
    } finally {
      cancelTimer()
      for (const signal of ends) signal.removeEventListener('abort', end)
    }
  }

  return {
    post,
    get: async <T>(path: string, timeoutMs: number, signal: AbortSignal) =>
      (await exchange('GET', path, null, timeoutMs, [closed.signal, signal])) as T,
    away: () => away && { since: away.since, reason: away.reason },
    close: () => closed.abort(),
    closed: () => closed.signal.aborted,
  }
}

const AWAY = 'The server does not take what this worker has to tell; keeps its work and tries again'
const DENIED = 'The server refuses this key: LONGSHORE_KEY must be a key with the scope "work"; tries again'

async function request(
  method: string,
  url: string,
  key: string,
  body: string | null,
  signal: AbortSignal,
): Promise<unknown> {
  let response: Response
  let text: string
  try {
    response = await fetch(url, {
      method,
      redirect: 'manual',
      headers: { authorization: `Bearer ${key}`, ...(body !== null && { 'content-type': 'application/json' }) },
      body,
      signal,
    })
    text = await response.text()
  } catch (error) {
    const why = signal.aborted ? messageOf(signal.reason) : messageOf(error)
    throw new LedgerUnavailable(`${url}: ${why}`, false, 0, undefined, { cause: error })
  }
  const type = response.headers.get('content-type') ?? ''
  if (response.status === 200 && type.startsWith('application/json')) return parsed(url, text)
  throw failureOf(url, response, type.startsWith('application/problem+json') ? text : undefined)
}

function parsed(url: string, text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new LedgerUnavailable(`${url} answered with broken JSON`, false, 0, undefined, { cause: error })
  }
}

function failureOf(url: string, { status, headers }: Response, problem: string | undefined): Error {
  const retryAfterMs = 1_000 * (Number(headers.get('retry-after')) || 0)
  if (problem === undefined) {
    return new LedgerUnavailable(`${url} answered ${status}, but not as Longshore does`, false, retryAfterMs)
  }
  const { detail = '', code = '' } = parsed(url, problem) as { detail?: string; code?: string }
  if (ABOUT_A_ROW.has(code)) return new LedgerRefusal(detail, code)
  const denied = status === 401 || status === 403
  return new LedgerUnavailable(`${url} answered ${status} ${code}: ${detail}`, denied, retryAfterMs, code)
}
