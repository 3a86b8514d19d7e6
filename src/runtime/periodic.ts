import { type Clock, pause } from './clock.ts'
import { messageOf } from './errors.ts'
import type { Service } from './service.ts'

export interface PeriodicOptions {
  /** Unique on a node. */
  name: string
  /** What it does, in a sentence. */
  description: string
  everyMs: number
  clock: Clock
  /**
   * One run. Milliseconds that it returns replace the pause until the next one when they are fewer. What it throws is told to
   * `onError`.
   */
  // biome-ignore lint/suspicious/noConfusingVoidType: a run that says nothing is the usual one
  run(signal: AbortSignal): Promise<number | void>
  onError(error: unknown): void
  /** Pause after a run that failed; as after any other by default. */
  retryMs?: number
  /** The first run comes after a pause, not at once. */
  later?: boolean
}

/** How periodic work stands. Instants are those of its `Clock`. */
export interface PeriodicState {
  name: string
  description: string
  everyMs: number
  running: boolean
  /** Runs that ended since the start. */
  runs: number
  lastAt: number | undefined
  /** Undefined while it is stopped. */
  nextAt: number | undefined
  /** Of the last run; undefined when it went well. */
  lastError: string | undefined
}

/** Work that is done again and again, never twice at once, with a pause after each run. */
export interface Periodic {
  state(): PeriodicState
  start(): void
  /** Ends the pause; a run that goes on is followed by another at once. */
  wake(): void
  /** Resolves when it runs no more. */
  stop(): Promise<void>
}

export function createPeriodic(options: PeriodicOptions): Periodic {
  const { name, description, everyMs, clock, run, onError, retryMs = everyMs, later = false } = options
  let stopped = new AbortController()
  let woken = new AbortController()
  let working: Promise<void> = Promise.resolve()
  let running = false
  let runs = 0
  let lastAt: number | undefined
  let nextAt: number | undefined
  let lastError: string | undefined

  /** Gives the pause until the next run. */
  async function runOnce(signal: AbortSignal): Promise<number> {
    running = true
    lastAt = clock.now()
    try {
      const sooner = await run(signal)
      lastError = undefined
      return Math.min(sooner ?? everyMs, everyMs)
    } catch (error) {
      lastError = messageOf(error)
      onError(error)
      return retryMs
    } finally {
      running = false
      runs++
    }
  }

  async function wait(ms: number): Promise<void> {
    nextAt = clock.now() + ms
    await pause(clock, ms, woken.signal)
    nextAt = undefined
  }

  async function work(signal: AbortSignal): Promise<void> {
    if (later) await wait(everyMs)
    while (!signal.aborted) {
      woken = new AbortController()
      const pauseMs = await runOnce(signal)
      if (!signal.aborted) await wait(pauseMs)
    }
  }

  return {
    state: () => ({ name, description, everyMs, running, runs, lastAt, nextAt, lastError }),
    start() {
      stopped = new AbortController()
      woken = new AbortController()
      working = work(stopped.signal)
    },
    wake: () => woken.abort(),
    async stop() {
      stopped.abort()
      woken.abort()
      await working
    },
  }
}

/** A service that does this alone. */
export function serviceOf(periodic: Periodic): Required<Service> {
  return { periodic: [periodic], start: async () => periodic.start(), stop: () => periodic.stop() }
}

/** When what is due is in other hands. */
const CONTENDED_MS = 50

/** The pause of a run until what is due in `delayMs`; undefined: nothing is, and it takes its usual one. */
export function pauseUntilDue(delayMs: number | undefined): number | undefined {
  if (delayMs === undefined) return undefined
  // A timer may fire a little early, and then nothing is due yet.
  return delayMs === 0 ? CONTENDED_MS : Math.ceil(delayMs) + 1
}
