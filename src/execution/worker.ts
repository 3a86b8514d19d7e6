import type { DeliveryEnd } from '../broker/broker.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Executor } from '../task/executor.ts'
import type { NodeState } from '../task/ledger.ts'
import { LIMITS } from '../task/limits.ts'
import type { Outcome } from '../task/outcome.ts'
import { affinityOf, type Target } from '../task/target/target.ts'
import { attemptOf, type ClaimedTask } from '../task/task.ts'
import type { RateLimit, Tokens } from '../task/topology/rate-limit.ts'
import type { ConsumerOrder } from '../task/topology/topology.ts'
import type { Intake } from './intake.ts'
import { createPrefetchGauge } from './prefetch.ts'
import { createRateLimiter, type RateLimiter } from './rate-limiter.ts'
import type { Settler } from './settler.ts'

/** What a worker goes by; one that is paused has none. */
export type WorkerOrder = Omit<ConsumerOrder, 'paused'>

export interface WorkerDeps {
  intake: Intake
  executor: Executor
  settler: Settler
  clock: Clock
  /** Resolves when the task's progress and log lines are written; undefined when none are on their way. */
  reported(id: string): Promise<void> | undefined
  /** False while this node may start nothing new (PROTOCOL 5). */
  mayStart(): boolean
  /**
   * How long the broker lets a delivery be held, in milliseconds: one that may take longer ends when its task is claimed,
   * which then lives by the beats, and none is claimed without a free slot (PROTOCOL 13). Absent: any time.
   */
  longestDeliveryMs?: number | undefined
  /** Takes tokens of a consumer's rate limit. */
  takeTokens(consumer: string, count: number): Promise<Tokens>
  onTokensFailed(error: unknown): void
}

/** One consumer at work on this node. */
export interface Worker {
  /** What it goes by now. */
  readonly order: WorkerOrder
  /** Tasks in this worker's hands; `started` when their target was. */
  hands(): { id: string; started: boolean }[]
  state(): NodeState['consumers'][number]
  /** Aborts a running task, drops a buffered one. False: not here. */
  cancel(id: string): boolean
  /** Takes nothing more and gives back what was not started. */
  quiet(): void
  /** Goes by `order` from now on, and takes deliveries again after `quiet`; what runs is not disturbed. */
  update(order: WorkerOrder): void
  /** Forgets everything without settling: this node was declared dead. */
  abandon(): void
  /** Resolves when nothing is in its hands. */
  idle(): Promise<void>
}

interface Held {
  task: ClaimedTask
  since: number
  started: boolean
  end(end: DeliveryEnd): void
}

/** Claimed and not started within this time: given back (PROTOCOL 8). */
const START_WITHIN_MS = 5_000
const SWEEP_MS = 1_000

/**
 * Takes deliveries of one queue into a buffer and runs at most `concurrency` of them. A slot frees when the target
 * returns; the delivery ends after the commit of its outcome.
 */
export function startWorker(initial: WorkerOrder, deps: WorkerDeps): Worker {
  const { intake, executor, settler, clock } = deps
  const gauge = createPrefetchGauge(clock)
  // Not by the task's id: somebody may settle a running task by REST, and its next attempt comes while this one still runs.
  const buffer = new Set<Held>()
  const running = new Set<Held>()
  /** Ended, and on the way into the ledger. */
  const settling = new Set<Held>()
  let order = initial
  let abandoned = false
  let quiet = false
  let idlers: (() => void)[] = []
  /** What former subscriptions delivered: it still takes its places from the present one's. */
  let former = new Set<Held>()
  /** In hand, and no longer out at the broker. */
  const endedEarly = new Set<Held>()
  let limiter = order.rateLimit ? limiterOf(order.rateLimit) : undefined
  let subscription = intake(order.queue, prefetch(), take)
  let stopSweep = clock.after(SWEEP_MS, sweep)

  function take(tasks: ClaimedTask[]): Promise<DeliveryEnd>[] {
    if (tasks.length === 0) return []
    const since = clock.now()
    gauge.taken(
      tasks.length,
      tasks.reduce((sum, { payload }) => sum + payload.length, 0),
    )
    const ends = tasks.map(
      (task) =>
        new Promise<DeliveryEnd>((end) => {
          const held: Held = { task, since, started: false, end }
          buffer.add(held)
          if (!isLong(task.timeoutMs ?? order.timeoutMs)) return
          endedEarly.add(held)
          end('ack')
        }),
    )
    fillSlots()
    if (endedEarly.size > 0) subscription.setPrefetch(prefetch())
    return ends
  }

  function prefetch(): number {
    const worth = isLong(order.timeoutMs) ? order.concurrency : gauge.prefetch(order.concurrency)
    const limited = limiter ? Math.min(worth, running.size + settling.size + limiter.worthHolding()) : worth
    return Math.max(0, limited - former.size - endedEarly.size)
  }

  function isLong(timeoutMs: number): boolean {
    return timeoutMs > (deps.longestDeliveryMs ?? Number.POSITIVE_INFINITY)
  }

  function limiterOf(limit: RateLimit): RateLimiter {
    return createRateLimiter(limit, {
      clock,
      take: (count) => deps.takeTokens(order.id, count),
      onChange() {
        if (quiet) return
        fillSlots()
        subscription.setPrefetch(prefetch())
      },
      onError: deps.onTokensFailed,
    })
  }

  function fillSlots(): void {
    for (const held of buffer) {
      if (running.size >= order.concurrency || !deps.mayStart()) return
      if (limiter && !limiter.spend()) {
        limiter.want(Math.min(buffer.size, order.concurrency - running.size))
        return
      }
      buffer.delete(held)
      running.add(held)
      held.started = true
      void run(held)
    }
  }

  async function run(held: Held): Promise<void> {
    const ended = await outcomeOf(held.task)
    // What the end of this node cuts off was not lost: it is given back.
    const outcome: Outcome = quiet && ended.kind === 'lost' ? { kind: 'returned' } : ended
    running.delete(held)
    gauge.ended(1)
    fillSlots()
    await settle(held, outcome)
  }

  async function outcomeOf(task: ClaimedTask): Promise<Outcome> {
    const target = targetOf(order, task)
    if (typeof target === 'string') return { kind: 'failed', retryable: false, error: target }
    return executor.run({
      id: task.id,
      queue: task.queue,
      type: task.type,
      attempt: task.attempt,
      payload: task.payload,
      target,
      timeoutMs: task.timeoutMs ?? order.timeoutMs,
      priority: task.priority,
      createdAt: task.createdAt,
      parentId: task.parentId,
      origin: task.origin,
      traceparent: task.traceparent,
      alone: task.lostStarts >= LIMITS.lostStartsBeforeAlone,
      affinity: affinityOf(target, task.id),
    })
  }

  async function settle(held: Held, outcome: Outcome): Promise<void> {
    let end: DeliveryEnd = 'ack'
    if (!abandoned) {
      settling.add(held)
      const reported = deps.reported(held.task.id)
      if (reported) await reported
      const settled = await settler.settle({ ...attemptOf(held.task), outcome })
      // Its message goes where dead letters are looked for.
      if (!settled.late && settled.status === 'dead') end = 'dead-letter'
      settling.delete(held)
    }
    held.end(end)
    former.delete(held)
    endedEarly.delete(held)
    subscription.setPrefetch(prefetch())
    tellIdle()
  }

  function giveBack(which: (held: Held) => boolean, outcome: Outcome = { kind: 'returned' }): void {
    for (const held of [...buffer].filter(which)) {
      buffer.delete(held)
      void settle(held, outcome)
    }
  }

  function sweep(): void {
    giveBack((held) => clock.now() - held.since > START_WITHIN_MS)
    fillSlots()
    subscription.setPrefetch(prefetch())
    stopSweep = clock.after(SWEEP_MS, sweep)
  }

  /** An instant of the clock as a time of day. */
  function timeOf(at: number | undefined): string | undefined {
    return at === undefined ? undefined : new Date(Date.now() + at - clock.now()).toISOString()
  }

  function tellIdle(): void {
    if (buffer.size + running.size + settling.size > 0) return
    for (const idler of idlers) idler()
    idlers = []
  }

  return {
    get order() {
      return order
    },
    hands: () =>
      abandoned ? [] : [...buffer, ...running, ...settling].map(({ task, started }) => ({ id: task.id, started })),
    state: () => ({
      id: order.id,
      queue: order.queue,
      concurrency: order.concurrency,
      running: running.size,
      buffered: buffer.size,
      rate: Math.round(gauge.rate() * 10) / 10,
      limitedUntil: timeOf(limiter?.waitsUntil()),
    }),
    cancel(id) {
      const isAsked = (held: Held) => held.task.id === id
      const isBuffered = [...buffer].some(isAsked)
      const isRunning = [...running].some(isAsked)
      if (isBuffered) giveBack(isAsked, { kind: 'cancelled' })
      if (isRunning) executor.cancel(id)
      return isBuffered || isRunning
    },
    quiet() {
      quiet = true
      limiter?.stop()
      subscription.cancel()
      stopSweep()
      giveBack(() => true)
    },
    update(next) {
      order = next
      if (!next.rateLimit || quiet) limiter?.stop()
      if (!next.rateLimit) limiter = undefined
      else if (limiter && !quiet) limiter.update(next.rateLimit)
      else limiter = limiterOf(next.rateLimit)
      if (quiet && !abandoned) {
        quiet = false
        former = new Set([...buffer, ...running, ...settling].filter((held) => !endedEarly.has(held)))
        subscription = intake(order.queue, prefetch(), take)
        stopSweep = clock.after(SWEEP_MS, sweep)
      }
      subscription.setPrefetch(prefetch())
      fillSlots()
    },
    abandon() {
      abandoned = true
      quiet = true
      limiter?.stop()
      subscription.cancel()
      stopSweep()
      for (const held of running) executor.cancel(held.task.id)
      for (const held of buffer) held.end('requeue')
      buffer.clear()
      tellIdle()
    },
    idle() {
      if (buffer.size + running.size + settling.size === 0) return Promise.resolve()
      return new Promise((resolve) => idlers.push(resolve))
    },
  }
}

/** The target of a task, or why it has none. */
function targetOf({ target, queue }: WorkerOrder, task: ClaimedTask): Target | string {
  if (target.type !== 'task') return target
  if (task.target === null)
    return `The task brings no target, and the consumer of queue "${queue}" delivers to the task's own`
  return JSON.parse(task.target) as Target
}
