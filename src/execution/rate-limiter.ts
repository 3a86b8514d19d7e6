import type { Clock } from '../runtime/clock.ts'
import { bucketOf, type RateLimit, type Tokens } from '../task/topology/rate-limit.ts'

export interface RateLimiterDeps {
  clock: Clock
  /** Takes tokens from the row that all nodes share. */
  take(count: number): Promise<Tokens>
  /** Tokens are there, or the time has come to look for tasks again. */
  onChange(): void
  onError(error: unknown): void
}

export interface RateLimiter {
  /** Uses up one token; false when there is none: then `want` some. */
  spend(): boolean
  /** Asks for tokens for so many tasks that could start now. */
  want(count: number): void
  /** How many tasks are worth holding beyond the running ones: what about one second grants. */
  worthHolding(): number
  /** Instant of the clock at which the next token comes; undefined while none is missed. */
  waitsUntil(): number | undefined
  update(limit: RateLimit): void
  stop(): void
}

/** So long between two questions that found too little, if the bucket does not overflow before: one answer grants several tokens of a quick rate. */
const ASK_EVERY_MS = 100
/** A task is held for a token that comes within this time; for a later one it stays where every node can take it. */
const HOLD_MS = 1_000
const RETRY_MS = 250

/**
 * Keeps a consumer's rate over all nodes: tokens are granted for tasks that can start at once, and those that are not used
 * at once are forgotten, so that none is spent late.
 */
export function createRateLimiter(
  initial: RateLimit,
  { clock, take, onChange, onError }: RateLimiterDeps,
): RateLimiter {
  let { perMs, capacity } = bucketOf(initial)
  let tokens = 0
  let asking = false
  let nextAt: number | undefined
  let cancelTimer = () => {}
  let stopped = false

  async function ask(count: number): Promise<void> {
    asking = true
    const answer = await take(count).catch((error) => {
      onError(error)
      return { granted: 0, retryAfterMs: RETRY_MS }
    })
    asking = false
    if (stopped) return
    tokens = answer.granted
    const waits = answer.granted < count
    nextAt = waits
      ? clock.now() + Math.max(answer.retryAfterMs, Math.min(ASK_EVERY_MS, capacity / perMs / 2))
      : undefined
    onChange()
    tokens = 0
    if (nextAt !== undefined) wakeAt(nextAt)
  }

  /** Before the token comes there is time to fetch the task that it is for. */
  function wakeAt(at: number): void {
    cancelTimer()
    const early = Math.max(0, at - HOLD_MS / 2 - clock.now())
    cancelTimer = clock.after(early, () => {
      onChange()
      cancelTimer = clock.after(Math.max(0, at - clock.now()), () => {
        nextAt = undefined
        onChange()
      })
    })
  }

  return {
    spend() {
      if (tokens === 0) return false
      tokens--
      return true
    },
    want(count) {
      if (asking || stopped || count <= 0 || nextAt !== undefined) return
      void ask(count)
    },
    worthHolding() {
      if (nextAt !== undefined && nextAt - clock.now() > HOLD_MS) return 0
      return Math.max(1, Math.ceil(perMs * HOLD_MS))
    },
    waitsUntil: () => nextAt,
    update(limit) {
      ;({ perMs, capacity } = bucketOf(limit))
      cancelTimer()
      nextAt = undefined
      onChange()
    },
    stop() {
      stopped = true
      cancelTimer()
    },
  }
}
