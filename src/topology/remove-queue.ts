import type { Broker, Removal, Removed } from '../broker/broker.ts'
import { pause, realClock } from '../runtime/clock.ts'
import type { Database } from '../store/database/database.ts'
import { cancelWaiting } from '../store/tasks/cancel.ts'
import { findTasks } from '../store/tasks/read/search.ts'
import { deleteConsumersOf } from '../store/topology/consumers.ts'
import { deleteQueue, type QueueDeletion, queueUse } from '../store/topology/queues.ts'

export interface RemoveDeps extends Pick<Database, 'pool' | 'db'> {
  broker: Pick<Broker, 'remove' | 'inspect'>
  /** Told of tasks that were changed and committed. */
  changed(ids: string[]): void
  /** Asks running tasks to stop, on whatever node. */
  cancelTasks(ids: string[]): Promise<unknown>
  /** Queues or consumers changed. */
  topologyChanged(): void
  /** The broker may not have the queue any more, but its row is there. */
  recheck(queue: string): void
}

/** Without a guard, what it would protect goes with the queue. */
export interface Guards {
  /** Only without live tasks, and without messages at the broker. */
  ifEmpty: boolean
  /** Only without consumers, Longshore's and others. */
  ifUnused: boolean
}

/** `broker-not-empty`, `broker-in-use`: messages that are no tasks (yet), consumers that are not ours. */
export type QueueRemoval = QueueDeletion | 'broker-not-empty' | 'broker-in-use'

const RUNNING_A_BATCH = 1_000
const LEAVE_WITHIN_MS = 2_000
const LEAVE_LOOK_MS = 100

/**
 * Removes a queue, at the broker first and then its row, so that whatever is cut short can be repeated. Rejects with
 * BrokerUnavailable, usually before anything was changed. Without `ifEmpty` its waiting tasks are cancelled and its running ones
 * asked to stop; while some still run it is `has-live-tasks`.
 */
export async function removeQueue(deps: RemoveDeps, queue: string, guards: Guards): Promise<QueueRemoval> {
  const { db, broker } = deps
  const use = await queueUse(db, queue)
  if (!use) return 'unknown'
  if (use.consumers && guards.ifUnused) return 'has-consumers'
  // Asked before anything goes.
  const counted = await countedAtBroker(broker, queue, guards)
  if (guards.ifUnused && counted.consumers > 0) return 'broker-in-use'
  if (use.liveTasks && guards.ifEmpty) return 'has-live-tasks'
  if (guards.ifEmpty && counted.messages > 0) return 'broker-not-empty'
  if (use.consumers && (await deleteConsumersOf(db, queue)) > 0) deps.topologyChanged()
  if (use.liveTasks && (await endTasks(deps, queue)) > 0) return 'has-live-tasks'
  const removed = await removeUnused(broker, { kind: 'queue', name: queue, ...guards })
  if (removed === 'not-empty') return 'broker-not-empty'
  if (removed === 'in-use') return 'broker-in-use'
  const deletion = await deleteQueue(db, queue)
  // A task or a consumer came in between: the queue stays, and has to be declared again.
  if (deletion === 'has-live-tasks' || deletion === 'has-consumers') deps.recheck(queue)
  if (deletion === 'deleted') deps.topologyChanged()
  return deletion
}

/** Workers of ours whose consumer is gone leave in a moment: until then the broker says that somebody takes from the queue. */
async function untilLeft<T>(ask: () => Promise<T>, isInUse: (answer: T) => boolean): Promise<T> {
  const deadline = realClock.now() + LEAVE_WITHIN_MS
  for (;;) {
    const answer = await ask()
    if (!isInUse(answer) || realClock.now() >= deadline) return answer
    await pause(realClock, LEAVE_LOOK_MS)
  }
}

async function countedAtBroker(broker: RemoveDeps['broker'], queue: string, { ifEmpty, ifUnused }: Guards) {
  const none = { messages: 0, consumers: 0 }
  return untilLeft(
    async () => (await broker.inspect(queue, { surely: ifEmpty || ifUnused })) ?? none,
    ({ consumers }) => ifUnused && consumers > 0,
  )
}

function removeUnused(broker: RemoveDeps['broker'], removal: Removal): Promise<Removed> {
  return untilLeft(
    () => broker.remove(removal),
    (removed) => removed === 'in-use',
  )
}

/** Cancels what waits, asks what runs to stop; gives how many run, up to a batch. */
async function endTasks(deps: RemoveDeps, queue: string): Promise<number> {
  await cancelWaiting(deps.pool, queue, deps.changed)
  const { hits } = await findTasks(deps.pool, { queue, status: ['running'] }, RUNNING_A_BATCH)
  if (hits.length > 0) await deps.cancelTasks(hits.map(({ id }) => id))
  return hits.length
}
