/** What is kept of an HTTP response in its attempt. */
export interface ResponseExcerpt {
  status: number
  /** At most the first 4 KiB, as text. */
  body: string
}

/**
 * How an attempt ended. The set is closed: every target's end is one of these.
 * `returned` is a give-back: nothing ran, only the attempt's number is spent.
 */
export type Outcome =
  | { kind: 'succeeded'; result?: string | undefined; response?: ResponseExcerpt | undefined }
  | {
      kind: 'failed'
      retryable: boolean
      error: string
      /** What the target asked for (Retry-After); used instead of the backoff. */
      retryAfterMs?: number | undefined
      response?: ResponseExcerpt | undefined
    }
  | { kind: 'snoozed'; delayMs: number }
  | { kind: 'cancelled'; error?: string | undefined }
  | { kind: 'lost'; error: string; started: boolean }
  | { kind: 'returned' }

export type OutcomeKind = Outcome['kind']

export function failed(error: string, retryable: boolean): Outcome {
  return { kind: 'failed', retryable, error }
}
