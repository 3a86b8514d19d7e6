import { type Clock, pause, realClock } from '../runtime/clock.ts'
import { parseDuration } from '../runtime/duration.ts'
import type { RunTarget } from '../task/attempt.ts'
import type { Outcome } from '../task/outcome.ts'

const SUCCEEDED: Outcome = { kind: 'succeeded' }

/** Imitates work: waits `delay` (or until the signal aborts), then fails with the target's shares. `random` gives numbers in [0, 1). */
export function createNoopTarget({
  clock = realClock,
  random = Math.random,
}: {
  clock?: Clock
  random?: () => number
} = {}): RunTarget {
  return async ({ target }, context) => {
    if (target.type !== 'noop') throw new TypeError(`The noop target was given a target of type ${target.type}`)
    const { delay, failRate = 0, deadRate = 0 } = target
    const delayMs = delay === undefined ? 0 : (parseDuration(delay) ?? 0)
    if (delayMs > 0) {
      await pause(clock, delayMs, context.signal)
      if (context.signal.aborted) return { kind: 'failed', retryable: true, error: 'noop was aborted' }
    }
    if (failRate === 0 && deadRate === 0) return SUCCEEDED
    const dice = random()
    if (dice < deadRate)
      return { kind: 'failed', retryable: false, error: 'noop failed for good, as its deadRate asks' }
    if (dice < deadRate + failRate)
      return { kind: 'failed', retryable: true, error: 'noop failed, as its failRate asks' }
    return SUCCEEDED
  }
}
