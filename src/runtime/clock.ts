/** Local time for timers and time-outs. What is stored or compared across nodes uses Postgres's clock instead. */
export interface Clock {
  /** Monotonic milliseconds since an arbitrary start. */
  now(): number
  /** Calls `run` once after `delayMs`; the returned function cancels it. */
  after(delayMs: number, run: () => void): () => void
}

/** The longest delay that timers take; longer ones would fire at once. */
const MAX_TIMER_MS = 2_147_483_647

export const realClock: Clock = {
  now: () => performance.now(),
  after(delayMs, run) {
    const timer = setTimeout(run, Math.min(Math.max(0, delayMs), MAX_TIMER_MS))
    return () => clearTimeout(timer)
  },
}

/** A clock that stands still until `advance` is called; for tests. */
export class ManualClock implements Clock {
  #now = 0
  #timers: { at: number; run: () => void }[] = []

  now(): number {
    return this.#now
  }

  after(delayMs: number, run: () => void): () => void {
    const timer = { at: this.#now + Math.max(0, delayMs), run }
    this.#timers.push(timer)
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer)
    }
  }

  /** Moves time forward by `ms`, running what comes due in order. */
  advance(ms: number): void {
    const end = this.#now + ms
    for (;;) {
      const due = this.#timers.filter((timer) => timer.at <= end).sort((a, b) => a.at - b.at)[0]
      if (!due) break
      this.#timers = this.#timers.filter((timer) => timer !== due)
      this.#now = due.at
      due.run()
    }
    this.#now = end
  }
}

/** What `work` comes to, or `late` when that takes longer than `ms`; the work itself goes on. Rejects as it does. */
export async function within<T, L>(clock: Clock, ms: number, work: Promise<T>, late: L): Promise<T | L> {
  const ended = new AbortController()
  try {
    return await Promise.race([work, pause(clock, ms, ended.signal).then(() => late)])
  } finally {
    ended.abort()
  }
}

/** False when `work` takes longer than `ms`; it goes on. Rejects as it does. */
export function endsWithin(clock: Clock, ms: number, work: Promise<unknown>): Promise<boolean> {
  const ended = work.then(() => true)
  return within(clock, ms, ended, false)
}

/** Resolves after `delayMs`, or at once when `signal` aborts. */
export function pause(clock: Clock, delayMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve()
    const end = () => {
      cancel()
      signal?.removeEventListener('abort', end)
      resolve()
    }
    const cancel = clock.after(delayMs, end)
    signal?.addEventListener('abort', end, { once: true })
  })
}
