import { type Clock, pause, realClock } from '../runtime/clock.ts'
import { parseDuration } from '../runtime/duration.ts'
import type { RunTarget } from '../task/attempt/attempt.ts'
import { LIMITS } from '../task/limits.ts'
import { failed, type Outcome } from '../task/outcome.ts'
import type { NoopTarget } from '../task/target/target.ts'

const SUCCEEDED: Outcome = { kind: 'succeeded' }

/**
 * Imitates work: logs the payload if it is asked to, waits (or until the signal aborts), then fails with the target's
 * shares. `random` gives numbers in [0, 1).
 */
export function createNoopTarget({
  clock = realClock,
  random = Math.random,
}: {
  clock?: Clock
  random?: () => number
} = {}): RunTarget {
  return async ({ target, payload }, context) => {
    if (target.type !== 'noop') throw new TypeError(`The noop target was given a target of type ${target.type}`)
    const { failRate = 0, deadRate = 0 } = target
    if (target.log) context.log(textOf(payload))
    const delayMs = delayOf(target, payload, random)
    if (delayMs > 0) {
      await pause(clock, delayMs, context.signal)
      if (context.signal.aborted) return failed('noop was aborted', true)
    }
    if (failRate === 0 && deadRate === 0) return SUCCEEDED
    const dice = random()
    if (dice < deadRate) return failed('noop failed for good, as its deadRate asks', false)
    if (dice < deadRate + failRate) return failed('noop failed, as its failRate asks', true)
    return SUCCEEDED
  }
}

/** In milliseconds; no attempt may take longer than LIMITS says, and a timer cannot. */
function delayOf({ delay, delayPerDot }: NoopTarget, payload: string, random: () => number): number {
  if (delay === undefined && delayPerDot === undefined) return 0
  const perDot = delayPerDot === undefined ? 0 : ms(delayPerDot) * (textOf(payload).split('.').length - 1)
  return Math.min(baseOf(delay, random) + perDot, LIMITS.maxTimeoutMs)
}

function baseOf(delay: NoopTarget['delay'], random: () => number): number {
  if (typeof delay !== 'object') return ms(delay)
  return Math.round(ms(delay.min) + random() * (ms(delay.max) - ms(delay.min)))
}

function ms(duration: string | undefined): number {
  return duration === undefined ? 0 : (parseDuration(duration) ?? 0)
}

/** The payload as a reader sees it: a text without its quotes, also that of a message that was no JSON; else its JSON. */
function textOf(payload: string): string {
  const value: unknown = JSON.parse(payload)
  if (typeof value === 'string') return value
  if (typeof value !== 'object' || value === null) return payload
  const { raw, ...others } = value as { raw?: unknown }
  return typeof raw === 'string' && Object.keys(others).length === 0 ? raw : payload
}
