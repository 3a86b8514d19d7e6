import { type Clock, pause } from '../runtime/clock.ts'
import { messageOf } from '../runtime/errors.ts'
import type { Logger } from '../runtime/log.ts'
import { createPeriodic } from '../runtime/periodic.ts'
import type { Service } from '../runtime/service.ts'

export interface ChangeRecorderDeps {
  clock: Clock
  log: Logger
  /** Writes the present state of these tasks as one event batch, after a gap when `gap`. */
  append(ids: string[], gap: boolean): Promise<void>
  prune(): Promise<void>
  /** For how many milliseconds more somebody wants events; 0 when nobody does. */
  wantedMs(): Promise<number>
  /** Told after every batch. */
  onAppended(): void
}

/** Notes which tasks this node changed, for the event feed. */
export interface ChangeRecorder extends Service {
  /** Says that these tasks were changed and committed. Does nothing, and costs a comparison, while nobody listens. */
  touched(ids: Iterable<string>): void
  /** True while somebody listens: what `touched` needs may be gathered. */
  active(): boolean
  /** Records from now on, for `forMs` at least; resolves when the gap before it is written. */
  wanted(forMs: number): Promise<void>
  /** Looks whether events are wanted, at once. */
  look(): void
  /** When there is anything in the list, tasks were changed that nobody named: clients are told to read again. Gives the list. */
  gapAfter<T>(changed: T[]): T[]
}

/** Changes of so long a time share one batch; of several changes of one task the last is told. */
const COALESCE_MS = 100
/** One batch; what is more goes at once in the next. */
const MAX_BATCH = 2_000
/** Beyond this the changes are dropped, and a gap is told. */
const MAX_WAITING = 50_000
/** Behind every notice that events are wanted stands this look. */
const LOOK_MS = 10_000
const RETRY_MS = 500
/** In batches. */
const PRUNE_EVERY = 50

/**
 * Writes the changes of this node's tasks while some node has a client that listens (a lease that those nodes renew),
 * and nothing otherwise. It starts each time with a gap, because what came before was not written.
 */
export function createChangeRecorder(deps: ChangeRecorderDeps): ChangeRecorder {
  const { clock, log } = deps
  let waiting = new Set<string>()
  let until = Number.NEGATIVE_INFINITY
  let recording = false
  let gapPending = false
  /** It is on its way into the ledger. */
  let gapInHand = false
  let gapWaiters: (() => void)[] = []
  let batches = 0
  let stopped = new AbortController()
  stopped.abort()
  let writing: Promise<void> | undefined
  let cancelWrite: (() => void) | undefined

  function active(): boolean {
    if (!recording) return false
    if (clock.now() < until) return true
    recording = false
    waiting = new Set()
    return false
  }

  function begin(forMs: number): void {
    until = Math.max(until, clock.now() + forMs)
    if (recording || stopped.signal.aborted) return
    recording = true
    gapPending = true
    writeIn(0)
  }

  function writeIn(delayMs: number): void {
    if (writing || cancelWrite || stopped.signal.aborted) return
    cancelWrite = clock.after(delayMs, () => {
      cancelWrite = undefined
      writing = writeAll(stopped.signal).finally(() => {
        writing = undefined
        // What came after its last look.
        if (waiting.size > 0 || gapPending) writeIn(0)
      })
    })
  }

  async function writeAll(signal: AbortSignal): Promise<void> {
    while ((waiting.size > 0 || gapPending) && !signal.aborted) {
      const written = await write()
      await pause(clock, !written ? RETRY_MS : waiting.size >= MAX_BATCH ? 0 : COALESCE_MS, signal)
    }
  }

  async function write(): Promise<boolean> {
    const ids = [...waiting].slice(0, MAX_BATCH)
    const gap = gapPending
    for (const id of ids) waiting.delete(id)
    gapPending = false
    gapInHand = gap
    try {
      await deps.append(ids, gap)
      if (gap) tellGapWritten()
      deps.onAppended()
      if (++batches % PRUNE_EVERY === 1) await deps.prune()
      return true
    } catch (error) {
      log.warn({ event: 'events-failed', tasks: ids.length, error: messageOf(error) }, 'Cannot write task events')
      // They may have been written or not: a change that is told twice does no harm.
      for (const id of ids) waiting.add(id)
      gapPending ||= gap
      return false
    } finally {
      gapInHand = false
    }
  }

  function tellGapWritten(): void {
    gapInHand = false
    for (const waiter of gapWaiters) waiter()
    gapWaiters = []
  }

  const looks = createPeriodic({
    name: 'events-wanted',
    description: 'Looks whether somebody listens to events; notices are faster, this is behind them',
    everyMs: LOOK_MS,
    clock,
    async run() {
      const ms = await deps.wantedMs()
      if (ms > 0) begin(ms)
    },
    onError: (error) => log.debug({ event: 'events-failed', error: messageOf(error) }),
  })

  return {
    periodic: [looks],
    active,
    touched(ids) {
      if (!active()) return
      for (const id of ids) waiting.add(id)
      if (waiting.size > MAX_WAITING) {
        waiting = new Set()
        gapPending = true
      }
      writeIn(COALESCE_MS)
    },
    wanted(forMs) {
      begin(forMs)
      if (!gapPending && !gapInHand) return Promise.resolve()
      return new Promise((resolve) => gapWaiters.push(resolve))
    },
    look: () => looks.wake(),
    gapAfter(changed) {
      if (changed.length > 0 && active()) {
        gapPending = true
        writeIn(COALESCE_MS)
      }
      return changed
    },
    async start() {
      stopped = new AbortController()
      looks.start()
    },
    async stop() {
      stopped.abort()
      cancelWrite?.()
      cancelWrite = undefined
      await looks.stop()
      await writing
      if (active() && waiting.size > 0) await write()
      recording = false
      tellGapWritten()
    },
  }
}
