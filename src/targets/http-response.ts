import { STATUS_CODES } from 'node:http'
import { LIMITS, legible, truncate } from '../task/limits.ts'
import type { Outcome, ResponseExcerpt } from '../task/outcome.ts'

/** What decides about a response. `request` names it in errors: method and URL, without what may be secret. */
export interface Answer {
  request: string
  url: URL
  status: number
  location: string | undefined
  retryAfter: string | undefined
  date: string | undefined
  response: ResponseExcerpt
}

/**
 * The outcome table of DESIGN section 7. `success`: the target's own list, by default 200 to 299.
 * `now` is the wall clock in milliseconds, used where the response has no Date.
 */
export function outcomeOf(answer: Answer, success: readonly number[] | undefined, now: number): Outcome {
  const { status, response } = answer
  const succeeded = success ? success.includes(status) : status >= 200 && status <= 299
  if (succeeded) return { kind: 'succeeded', response }
  const reason = STATUS_CODES[status]
  const answered = `${answer.request} answered ${status}${reason ? ` ${reason}` : ''}`
  if (isRetryable(status)) {
    const retryAfterMs = retryAfterOf(answer.retryAfter, parseHttpDate(answer.date) ?? now)
    return { kind: 'failed', retryable: true, error: answered, retryAfterMs, response }
  }
  return { kind: 'failed', retryable: false, error: answered + redirectNote(answer), response }
}

function isRetryable(status: number): boolean {
  return status === 408 || status === 425 || status === 429 || status >= 500
}

function redirectNote({ status, location, url }: Answer): string {
  if (status < 300 || status > 399 || location === undefined) return ''
  const to = URL.parse(location, url.href)
  return `, a redirect to ${to ? shortUrl(to) : 'something that is no URL'}; redirects are not followed, so put the final URL into the target`
}

/** A URL for messages: without query, fragment and userinfo, which may hold secrets; bounded. */
export function shortUrl(url: URL): string {
  return truncate(`${url.protocol}//${url.host}${url.pathname}`, 300)
}

/**
 * Retry-After (RFC 9110, 10.2.3) in milliseconds from `from`, the moment of the response; delay in seconds or an HTTP date.
 * Undefined, so that the queue's backoff counts, when it is absent, malformed, zero or past: a server in trouble that
 * says "at once" would otherwise eat up all attempts in a moment.
 */
function retryAfterOf(value: string | undefined, from: number): number | undefined {
  if (value === undefined) return undefined
  const text = value.trim()
  const at = parseHttpDate(text)
  const ms = /^\d{1,10}$/.test(text) ? Number(text) * 1000 : at === undefined ? 0 : at - from
  return ms > 0 ? ms : undefined
}

const HTTP_DATE =
  /^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d{2} (?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4} \d{2}:\d{2}:\d{2} GMT$/

/** An IMF-fixdate (RFC 9110, 5.6.7) in milliseconds since 1970. The two obsolete forms, with two-digit years and without zone, are not read. */
function parseHttpDate(text: string | undefined): number | undefined {
  if (text === undefined || !HTTP_DATE.test(text)) return undefined
  const ms = Date.parse(text)
  // Engines differ in what they make of `31 Feb`, so only what reads back the same is a date.
  return Number.isNaN(ms) || new Date(ms).toUTCString() !== text ? undefined : ms
}

const MAX_KEPT = LIMITS.responseBytes + 1

/** Keeps the beginning of a response, one byte more than is shown, so that a cut is known as one. */
export class ExcerptReader {
  #chunks: Buffer[] = []
  #kept = 0
  #read = 0

  /** Takes a chunk; returns how many bytes have come so far. */
  add(chunk: Buffer): number {
    if (this.#kept < MAX_KEPT) {
      const part = chunk.length > MAX_KEPT - this.#kept ? chunk.subarray(0, MAX_KEPT - this.#kept) : chunk
      this.#chunks.push(part)
      this.#kept += part.length
    }
    this.#read += chunk.length
    return this.#read
  }

  /** The text: UTF-8 with U+FFFD for what is none (and for NUL, which Postgres cannot store), cut with a mark. */
  text(encoding: string | undefined): string {
    if (this.#kept === 0) return ''
    if (encoding !== undefined && encoding !== 'identity')
      return `[${this.#read} bytes read, encoded as ${truncate(encoding, 64)}]`
    const bytes = this.#chunks.length === 1 ? (this.#chunks[0] as Buffer) : Buffer.concat(this.#chunks)
    return legible(bytes.toString('utf8'), LIMITS.responseBytes)
  }
}
