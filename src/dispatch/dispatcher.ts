import type { Broker } from '../broker/broker.ts'
import { type Clock, pause } from '../runtime/clock.ts'
import { messageOf } from '../runtime/errors.ts'
import type { Logger } from '../runtime/log.ts'
import { createPeriodic } from '../runtime/periodic.ts'
import type { Service } from '../runtime/service.ts'
import type { ClaimRequest } from '../store/tasks/claim.ts'
import type { ClaimedTask } from '../task/task.ts'

/** What the dispatcher needs of the ledger. */
export interface DispatchLedger {
  claimDue(request: ClaimRequest): Promise<ClaimedTask[]>
  /** What an earlier claim with this id took, when its answer was lost. */
  claimed(request: ClaimRequest): Promise<ClaimedTask[]>
  /** Milliseconds until each queue's next task is due, for those within `withinMs`. */
  nextDue(queues: string[], withinMs: number): Promise<Map<string, number>>
}

export interface DispatcherDeps {
  ledger: DispatchLedger
  broker: Broker
  clock: Clock
  log: Logger
  node(): string
  newId(): string
  /** False while this node may start nothing new (PROTOCOL 5). */
  mayStart(): boolean
  /** Queues that consumers on this node listen to. */
  consumedQueues(): string[]
  /** Gives tasks back that were claimed and that nobody takes. */
  giveBack(tasks: ClaimedTask[]): Promise<void>
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
/** Claims under way at once: enough to overlap a commit with the next claim, few enough to leave the pool to others. */
const LANES = 3
const MAX_CLAIM = 500
const RETRY_MS = 250
/** A claim that is answered later than this may have been given back by the beats (PROTOCOL 3): nothing of it is started. */
const KNOWN_WITHIN_MS = 5_000

/**
 * Moves due tasks from Postgres to the broker, as many as it takes: it claims on a signal (a submit, a retry's time,
 * room at a consumer), never in a loop without one.
 */
export function createDispatcher(deps: DispatcherDeps): Dispatcher {
  const { ledger, broker, clock, log } = deps
  const ready = new Set<string>()
  /** Queues whose last claim found nothing more: room alone is no reason to claim again, news of work is. */
  const drained = new Set<string>()
  const busy = new Set<string>()
  const lanes = new Set<Promise<void>>()
  const timers = new Map<string, () => void>()
  let stopped = new AbortController()
  stopped.abort()

  broker.onRoom((queue) => {
    if (!drained.has(queue)) signal(queue)
  })

  function wake(queue: string, delayMs = 0): void {
    if (stopped.signal.aborted || delayMs > LOOK_AHEAD_MS) return
    if (delayMs > 0) {
      wakeLater(queue, delayMs)
      return
    }
    drained.delete(queue)
    signal(queue)
  }

  function wakeLater(queue: string, delayMs: number): void {
    const at = (Math.floor((clock.now() + delayMs) / TICK_MS) + 1) * TICK_MS
    const key = `${at} ${queue}`
    if (timers.has(key)) return
    const cancel = clock.after(at - clock.now(), () => {
      timers.delete(key)
      wake(queue)
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
      if (broker.room(queue) === 0 || !deps.mayStart()) continue
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
    const limit = Math.min(broker.room(queue), MAX_CLAIM)
    if (limit === 0) return
    const request = { claimId: deps.newId(), node: deps.node(), queue, limit }
    const askedAt = clock.now()
    const tasks = await claim(request)
    if (tasks.length === limit) ready.add(queue)
    else if (!ready.has(queue)) drained.add(queue)
    if (tasks.length === 0) return
    // Claimed for a node that was declared dead meanwhile: the rescuer sends them again.
    if (request.node !== deps.node()) return
    if (clock.now() - askedAt >= KNOWN_WITHIN_MS) return deps.giveBack(tasks)
    const refused = await broker.publish(tasks.map((task) => ({ queue, task })))
    if (refused.length > 0) await deps.giveBack(refused.map((message) => message.task))
  }

  /** Claims, and asks again under the same id when the answer was lost, until it is known what was taken. */
  async function claim(request: ClaimRequest): Promise<ClaimedTask[]> {
    for (let again = false; ; again = true) {
      try {
        const earlier = again ? await ledger.claimed(request) : []
        if (earlier.length > 0) return earlier
        // Stopped, or too long without a beat: what an unknown claim took is given back by the beats.
        if (stopped.signal.aborted || !deps.mayStart()) return []
        return await ledger.claimDue(request)
      } catch (error) {
        log.warn(
          { event: 'claim-failed', queue: request.queue, error: messageOf(error) },
          'Cannot claim tasks; trying again',
        )
        await pause(clock, RETRY_MS, stopped.signal)
        if (stopped.signal.aborted) return []
      }
    }
  }

  const poll = createPeriodic({
    name: 'dispatch-poll',
    description: 'Looks which queues have tasks that are due or soon will be; signals are faster, this is behind them',
    everyMs: POLL_MS,
    clock,
    async run() {
      const queues = deps.consumedQueues()
      if (queues.length === 0) return
      for (const [queue, delayMs] of await ledger.nextDue(queues, LOOK_AHEAD_MS)) wake(queue, delayMs)
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
