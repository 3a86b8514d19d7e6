import type { Clock } from '../runtime/clock.ts'

/** Beyond the running tasks, a consumer holds at most this many: up to 500 that wait, and what is being claimed and settled (docs/decisions/0012-windows-and-prefetch.md). */
const MAX_BUFFER = 800
/** What it holds beyond the running tasks weighs about this much at most, in UTF-16 code units of payload. */
const MAX_BUFFER_WEIGHT = 16 * 1024 * 1024
/** Ends are counted over at least this long before the rate is believed. */
const WINDOW_MS = 100
/** Weight of the newest window; the rate follows a change within about half a second. */
const NEWEST = 0.3

export interface PrefetchGauge {
  /** Notes that tasks came whose payloads weigh that much together. */
  taken(count: number, weight: number): void
  /** Notes that `count` tasks ended. */
  ended(count: number): void
  /** Tasks per second, lately. */
  rate(): number
  /** How many deliveries to hold: one a slot, and what about one second takes beyond that at the measured rate, at most 800 and 16 MiB. */
  prefetch(concurrency: number): number
}

/** Sizes a consumer's buffer (DESIGN section 3): ample for quick tasks, nothing hoarded with slow ones. */
export function createPrefetchGauge(clock: Clock): PrefetchGauge {
  let rate = 0
  let weightEach = 0
  let count = 0
  let since = clock.now()

  /** Closes the window when it is long enough; a consumer that stands still forgets its rate. */
  function measure(): void {
    const elapsed = clock.now() - since
    if (elapsed < WINDOW_MS) return
    const weight = 1 - (1 - NEWEST) ** (elapsed / WINDOW_MS)
    rate += weight * ((count / elapsed) * 1_000 - rate)
    count = 0
    since = clock.now()
  }

  return {
    taken(tasks, weight) {
      // Grows at once and shrinks slowly: a few small tasks between large ones do not open the door wide.
      weightEach = Math.max(weight / tasks, weightEach + NEWEST * (weight / tasks - weightEach))
    },
    ended(ends) {
      count += ends
      measure()
    },
    rate() {
      measure()
      return rate
    },
    prefetch(concurrency) {
      measure()
      const aSecondOfWork = Math.max(0, Math.floor(rate) - concurrency)
      const affordable = Math.floor(MAX_BUFFER_WEIGHT / Math.max(1, weightEach))
      return concurrency + Math.min(MAX_BUFFER, aSecondOfWork, affordable)
    },
  }
}
