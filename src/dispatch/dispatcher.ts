import type { Clock } from '../runtime/clock.ts'
import { messageOf } from '../runtime/errors.ts'
import type { Logger } from '../runtime/log.ts'
import { createPeriodic } from '../runtime/periodic.ts'
import type { Service } from '../runtime/service.ts'

/** How claimed tasks get to workers: straight to this node's, or through RabbitMQ. */
export interface HandOver {
  /** How many tasks of a queue it would take now; 0: there is no reason to claim. */
  room(queue: string): number
  /**
   * One claim and its hand-over. `more`: it got all it asked for; `drained`: the line has no more that are due; a number: the
   * broker holds enough, look again in so many milliseconds. Aborting `signal` ends what waits.
   */
  handOver(queue: string, signal: AbortSignal): Promise<'more' | 'drained' | number>
  /** Calls `listener` whenever a queue may take more; without a queue, whenever any may. */
  onRoom(listener: (queue: string | undefined) => void): void
}

export interface DispatcherDeps {
  /** What its poll is called among a node's periodic work. */
  poll?: { name: string; description: string }
  handOver: HandOver
  clock: Clock
  log: Logger
  /** False while this node may start nothing new (PROTOCOL 5). */
  mayStart(): boolean
  /** Queues whose tasks this node hands over. */
  dispatchedQueues(): string[]
  /** Milliseconds until each queue's next task is due, for those within `withinMs`. */
  nextDue(queues: string[], withinMs: number): Promise<Map<string, number>>
}

export interface Dispatcher extends Service {
  /** Says that a queue has work, now or in `delayMs`. */
  wake(queue: string, delayMs?: number): void
}

/** Behind every signal stands this poll; it also looks ahead for tasks that come due before the next one has answered. */
const POLL_MS = 5_000
const LOOK_AHEAD_MS = POLL_MS + 1_000
/** Tasks that come due within one tick share one claim; it ends up to this much late, never early. */
const TICK_MS = 10
const QUEUES_POLL = {
  name: 'dispatch-poll',
  description: 'Looks which queues have tasks that are due or soon will be; signals are faster, this is behind them',
}
/** Claims under way at once: enough to overlap a commit with the next claim, few enough to leave the pool to others. */
const LANES = 3

/**
 * Moves due tasks from Postgres to the workers, as many as they take: it claims on a signal (a submit, a retry's time,
 * room at a consumer), never in a loop without one.
 */
export function createDispatcher({ handOver, clock, log, ...deps }: DispatcherDeps): Dispatcher {
  const ready = new Set<string>()
  /** Queues whose last claim found nothing more: room alone is no reason to claim again, news of work is. */
  const drained = new Set<string>()
  const busy = new Set<string>()
  const lanes = new Set<Promise<void>>()
  const timers = new Map<string, () => void>()
  let stopped = new AbortController()
  stopped.abort()

  handOver.onRoom((queue) => {
    for (const one of queue === undefined ? deps.dispatchedQueues() : [queue]) if (!drained.has(one)) signal(one)
  })

  function wake(queue: string, delayMs = 0): void {
    if (stopped.signal.aborted || delayMs > LOOK_AHEAD_MS) return
    if (delayMs > 0) {
      const at = (Math.floor((clock.now() + delayMs) / TICK_MS) + 1) * TICK_MS
      later(`${at} ${queue}`, at - clock.now(), () => wake(queue))
      return
    }
    drained.delete(queue)
    signal(queue)
  }

  /** One timer a key. */
  function later(key: string, delayMs: number, run: () => void): void {
    if (timers.has(key) || stopped.signal.aborted) return
    const cancel = clock.after(delayMs, () => {
      timers.delete(key)
      run()
    })
    timers.set(key, cancel)
  }

  function signal(queue: string): void {
    ready.add(queue)
    fillLanes()
  }

  function fillLanes(): void {
    for (const queue of ready) {
      if (lanes.size >= LANES || stopped.signal.aborted) return
      if (busy.has(queue)) continue
      ready.delete(queue)
      if (handOver.room(queue) === 0 || !deps.mayStart()) continue
      busy.add(queue)
      const lane = dispatch(queue)
        .catch((error) => log.error({ event: 'dispatch-failed', queue, err: error }, 'Cannot hand over claimed tasks'))
        .finally(() => {
          busy.delete(queue)
          lanes.delete(lane)
          fillLanes()
        })
      lanes.add(lane)
    }
  }

  /** One claim and its hand-over; comes back for more when it got all it asked for. */
  async function dispatch(queue: string): Promise<void> {
    // Room that opens in this very turn (a settled batch) is claimed as one.
    await new Promise((resolve) => setImmediate(resolve))
    if (handOver.room(queue) === 0) return
    const next = await handOver.handOver(queue, stopped.signal)
    if (next === 'more') ready.add(queue)
    else if (next === 'drained') {
      if (!ready.has(queue)) drained.add(queue)
    } else later(`full ${queue}`, next, () => signal(queue))
  }

  const poll = createPeriodic({
    ...(deps.poll ?? QUEUES_POLL),
    everyMs: POLL_MS,
    clock,
    async run() {
      const queues = deps.dispatchedQueues()
      if (queues.length === 0) return
      for (const [queue, delayMs] of await deps.nextDue(queues, LOOK_AHEAD_MS)) wake(queue, delayMs)
    },
    onError: (error) => log.debug({ event: 'dispatch-poll-failed', error: messageOf(error) }),
  })

  return {
    periodic: [poll],
    wake,
    async start() {
      stopped = new AbortController()
      poll.start()
    },
    async stop() {
      stopped.abort()
      const polled = poll.stop()
      ready.clear()
      drained.clear()
      for (const cancel of timers.values()) cancel()
      timers.clear()
      await polled
      await Promise.all(lanes)
    },
  }
}
