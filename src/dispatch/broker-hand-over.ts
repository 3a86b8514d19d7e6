import type { Broker } from '../broker/broker.ts'
import { pause, within } from '../runtime/clock.ts'
import { messageOf } from '../runtime/errors.ts'
import type { BrokerClaim, BrokerClaimed } from '../store/tasks/claim/claim-for-broker.ts'
import type { QueuedTask } from '../task/task.ts'
import type { DispatchOrder } from '../task/topology/queue.ts'
import type { Destination } from '../task/topology/topology.ts'
import type { HandOver } from './dispatcher.ts'
import { type KnownClaimDeps, knownClaim } from './known-claim.ts'
import type { PublishNumbers } from './publish-numbers.ts'
import type { TaskEnd } from './task-publisher.ts'

/** What it needs of the ledger. */
export interface BrokerLedger {
  /** Takes due tasks of a queue, up to its window: pending to queued. */
  claimForBroker(claim: BrokerClaim): Promise<BrokerClaimed>
  /** What an earlier claim with this publish number took, when its answer was lost. */
  claimedForBroker(claim: BrokerClaim): Promise<BrokerClaimed | undefined>
  /** Ends tasks that the broker has taken, on queues that are settled by its confirm. */
  finishConfirmed(node: string, publishNo: number, ids: string[]): Promise<void>
  /** Puts tasks that no queue took back in line. */
  returnQueued(ids: string[]): Promise<void>
}

export interface BrokerHandOverDeps extends KnownClaimDeps {
  ledger: BrokerLedger
  broker: Pick<Broker, 'room' | 'onChange'>
  /** Publishes queued tasks; answers in the same order. */
  publish(tasks: QueuedTask[]): Promise<TaskEnd[]>
  numbers: PublishNumbers
  node(): string
  /** Whether the broker has the queue as it should be, and lets this node publish to it. */
  isReady(queue: string): boolean
  /** Exchanges that the broker does not have as they should be: what has to go through them stays where it is. */
  unreadyExchanges(): string[]
  /** Whether its tasks are done when the broker has taken them. */
  endsByConfirm(queue: string): boolean
  /** How many of the queue's tasks the broker may hold. */
  window(queue: string): number
  orderOf(queue: string): DispatchOrder
  /** Says that the broker does not have a queue that it was told to have. */
  onMissing(queue: string): void
  /** Says that the broker does not let this node publish there. */
  onRefused(destination: Destination): void
}

export interface BrokerHandOver extends HandOver {
  /** Resolves when nothing is on its way, or after `ms`. */
  idle(ms: number): Promise<void>
  /** Says that workers of this node took tasks of a queue from the broker: a full window is looked at again by that. */
  taken(queue: string, tasks: number): void
}

const MAX_CLAIM = 1_000
/** Tasks on their way to the broker at once, and those of one queue: their messages are held here until they are confirmed. */
const MAX_UNCONFIRMED = 5_000
const MAX_OF_A_QUEUE = 2_000
/** While the broker holds a full window: how soon to look again, and how seldom when nothing moves. */
const PACE_MS = 50
const SLOWEST_PACE_MS = 400
const RETRY_MS = 250
/** A full window is filled again when this share of it was taken. */
const REFILL = 0.5

/**
 * Through RabbitMQ: due tasks become queued, committed with this node and a publish number, and are then published. What is
 * not confirmed is published again until it is (PROTOCOL 11); a message that is there twice finds its fence.
 */
export function createBrokerHandOver(deps: BrokerHandOverDeps): BrokerHandOver {
  const { ledger, broker, numbers, clock, log } = deps
  const publishing = new Set<Promise<void>>()
  const paces = new Map<string, number>()
  /** On their way, of all queues and of each; without those that stick. */
  let unconfirmed = 0
  const ofQueue = new Map<string, number>()
  /** Publishes of each queue that the broker has failed to confirm once: until it does, the queue gets no more, and takes no room. */
  const sticking = new Map<string, number>()
  /** A queue was turned away because too much is unconfirmed: it is told when that is over. */
  let turnedAway = false
  /** Of each queue whose window is full: how many of its tasks this node's workers have taken since. */
  const freed = new Map<string, number>()
  const listeners: ((queue: string | undefined) => void)[] = []
  const tell = (queue: string | undefined) => {
    for (const listener of listeners) listener(queue)
  }

  function roomLeft(queue: string): number {
    const left = Math.min(MAX_CLAIM, MAX_UNCONFIRMED - unconfirmed, MAX_OF_A_QUEUE - (ofQueue.get(queue) ?? 0))
    const room = sticking.has(queue) ? 0 : Math.max(0, left)
    turnedAway ||= room === 0
    return room
  }

  function count(queue: string, tasks: number): void {
    unconfirmed += tasks
    add(ofQueue, queue, tasks)
  }

  async function deliver(node: string, publishNo: number, queue: string, tasks: QueuedTask[], signal: AbortSignal) {
    let left = tasks
    let sticks = false
    count(queue, tasks.length)
    try {
      while (left.length > 0) {
        const ends = await deps.publish(left)
        const ended = (end: TaskEnd) => left.filter((_, index) => ends[index] === end)
        const stored = await store(signal, queue, async () => {
          if (deps.endsByConfirm(queue)) await ledger.finishConfirmed(node, publishNo, idsOf(ended('confirmed')))
          await ledger.returnQueued(idsOf([...ended('returned'), ...ended('refused'), ...ended('undeclared')]))
        })
        // What is not stored is the rescuers', by its number.
        if (!stored) return
        if (ended('returned').length > 0) deps.onMissing(queue)
        if (ended('refused').length > 0) deps.onRefused({ kind: 'queue', name: queue })
        left = ended('unknown')
        if (left.length > 0 && !sticks) {
          sticks = true
          count(queue, -tasks.length)
          add(sticking, queue, 1)
          tellTurnedAway()
        }
        if (left.length > 0) await pause(clock, RETRY_MS, signal)
        if (left.length > 0 && signal.aborted) return
        // A node that is over leaves them to the rescuers, too; the one that it has become has nothing to say of them.
        if (deps.node() !== node) left = []
      }
      numbers.end(publishNo)
    } finally {
      if (sticks) add(sticking, queue, -1)
      else count(queue, -tasks.length)
      tellTurnedAway()
    }
  }

  function tellTurnedAway(): void {
    if (!turnedAway) return
    turnedAway = false
    tell(undefined)
  }

  /**
   * Tells the ledger what the broker answered, again and again until it has it: true. After `signal` it is told once, as the
   * broker may have answered in the last moment.
   */
  async function store(signal: AbortSignal, queue: string, write: () => Promise<void>): Promise<boolean> {
    for (;;) {
      try {
        await write()
        return true
      } catch (error) {
        log.warn({ event: 'confirm-not-stored', queue, error: messageOf(error) }, 'Cannot store confirms; trying again')
        if (signal.aborted) return false
        await pause(clock, RETRY_MS, signal)
      }
    }
  }

  return {
    idle: (ms) => within(clock, ms, Promise.all(publishing), undefined).then(() => undefined),
    onRoom(listener) {
      listeners.push(listener)
      broker.onChange(listener)
    },
    room: (queue) => (deps.isReady(queue) && broker.room(queue) > 0 ? roomLeft(queue) : 0),
    taken(queue, tasks) {
      const before = freed.get(queue)
      if (before === undefined) return
      freed.set(queue, before + tasks)
      if (before + tasks < deps.window(queue) * REFILL) return
      freed.delete(queue)
      tell(queue)
    },

    async handOver(queue, signal) {
      const limit = roomLeft(queue)
      if (limit === 0) return PACE_MS
      const publishNo = numbers.begin()
      const node = deps.node()
      freed.delete(queue)
      const [window, order, notThrough] = [deps.window(queue), deps.orderOf(queue), deps.unreadyExchanges()]
      const claim = { queue, node, publishNo, limit, window, order, notThrough }
      const { tasks, full } = await knownClaim<BrokerClaimed>(deps, queue, signal, {
        once: () => ledger.claimForBroker(claim),
        taken: () => ledger.claimedForBroker(claim),
        nothing: { tasks: [], full: false },
      })
      if (tasks.length === 0) {
        // Stopped before the answer: what the claim took is then found by its number.
        if (!signal.aborted) numbers.end(publishNo)
      } else {
        const delivery = deliver(node, publishNo, queue, tasks, signal).finally(() => publishing.delete(delivery))
        publishing.add(delivery)
      }
      if (!full) {
        paces.delete(queue)
        return tasks.length === limit ? 'more' : 'drained'
      }
      const pace = tasks.length > 0 ? PACE_MS : Math.min(SLOWEST_PACE_MS, 2 * (paces.get(queue) ?? PACE_MS))
      paces.set(queue, pace)
      freed.set(queue, 0)
      return pace
    },
  }
}

/** Counts up or down; what is down to nothing is not there. */
function add(counts: Map<string, number>, key: string, by: number): void {
  const now = (counts.get(key) ?? 0) + by
  if (now === 0) counts.delete(key)
  else counts.set(key, now)
}

const idsOf = (tasks: QueuedTask[]) => tasks.map(({ id }) => id)
