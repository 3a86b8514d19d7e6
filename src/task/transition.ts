import { LIMITS, legible } from './limits.ts'
import type { Outcome } from './outcome.ts'
import { backoffMs, type RetryPolicy } from './retry-policy.ts'
import type { Status } from './status.ts'

/** What a task has behind it when an attempt of it ends. */
export interface Standing {
  failures: number
  maxAttempts: number
  /** Starts in a row that ended with their node or thread. */
  lostStarts: number
}

/** What the end of an attempt makes of a task. */
export interface Transition extends Standing {
  status: Exclude<Status, 'queued' | 'running'>
  /** Milliseconds until it is due again; 0 for final statuses. */
  delayMs: number
  error: string | null
}

/**
 * The state machine: what an outcome makes of a running task. Pure; `random` gives numbers in [0, 1).
 * Only failures count against `maxAttempts`; a snooze, a give-back and a loss spend a number only (PROTOCOL 1, 6).
 */
export function transition(task: Standing, outcome: Outcome, retry: RetryPolicy, random: () => number): Transition {
  const { failures, maxAttempts } = task
  const settled = { failures, maxAttempts, lostStarts: 0, delayMs: 0, error: null }
  switch (outcome.kind) {
    case 'succeeded':
      return { ...settled, status: 'succeeded' }
    case 'cancelled':
      return {
        ...settled,
        status: 'cancelled',
        error: outcome.error === undefined ? null : legible(outcome.error, LIMITS.errorBytes),
      }
    case 'snoozed':
      return { ...settled, status: 'pending', delayMs: outcome.delayMs }
    case 'returned':
      return { ...settled, status: 'pending', lostStarts: task.lostStarts }
    case 'lost': {
      const lostStarts = task.lostStarts + (outcome.started ? 1 : 0)
      if (lostStarts < LIMITS.lostStarts) return { ...settled, status: 'pending', lostStarts }
      return {
        ...settled,
        status: 'dead',
        lostStarts,
        error: legible(`lost ${lostStarts} times in a row: ${outcome.error}`, LIMITS.errorBytes),
      }
    }
    case 'failed': {
      const failed = { ...settled, failures: failures + 1, error: legible(outcome.error, LIMITS.errorBytes) }
      if (!outcome.retryable || failed.failures >= maxAttempts) return { ...failed, status: 'dead' }
      const asked = outcome.retryAfterMs
      const delayMs =
        asked === undefined || Number.isNaN(asked)
          ? backoffMs(retry.backoff, failed.failures, random)
          : Math.round(Math.min(Math.max(0, asked), LIMITS.retryAfterMs))
      return { ...failed, status: 'retrying', delayMs }
    }
    default:
      return outcome satisfies never
  }
}
