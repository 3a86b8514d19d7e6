import { pause, realClock } from '../../../runtime/clock.ts'
import { Problem } from '../../../runtime/errors.ts'
import type { Database } from '../../../store/database/database.ts'
import { queueCounts } from '../../../store/topology/queue-counts.ts'
import { queueByName, setQueuePaused } from '../../../store/topology/queues.ts'
import { DEFAULT_QUEUE } from '../../../task/topology/queue.ts'
import type { Guards, QueueRemoval } from '../../../topology/remove-queue.ts'
import { unknownQueue } from '../../routes/queues.ts'

export interface QueueDeletionDeps {
  db: Database['db']
  /** Called after every change of queues or consumers, so that this node follows it at once. */
  topologyChanged(): void
  /** Cancels the tasks of a queue that wait, here or in the broker. */
  cancelWaiting(queue: string): Promise<number>
  /** Removes a queue here and at the broker. */
  removeQueue(queue: string, guards: Guards): Promise<QueueRemoval>
  /** How long tasks in hand may take, in milliseconds. */
  drainWithinMs?: number
}

const DRAIN_WITHIN_MS = 10_000
const LOOK_EVERY_MS = 50

/**
 * Deletes a queue as AMQP does: with its consumers, and with what waits in it, unless a guard forbids that. Tasks that wait are
 * cancelled, so they stay in the ledger; those in hand end first. Throws a Problem when the queue stays.
 */
export async function deleteQueueGuarded(deps: QueueDeletionDeps, name: string, guards: Guards): Promise<void> {
  if (name === DEFAULT_QUEUE) throw new Problem('conflict', `The queue "${name}" is built in and stays`)
  const queue = await queueByName(deps.db, name)
  if (!queue) throw unknownQueue(name)
  if (await removed(deps, name, { ...guards, ifEmpty: true })) return
  if (guards.ifEmpty)
    throw new Problem('queue-not-empty', `The queue "${name}" has tasks that are not final, and ifEmpty was asked for`)
  await drainAndRemove(deps, queue, guards)
}

/** False while there is something in it. */
async function removed(deps: QueueDeletionDeps, name: string, guards: Guards): Promise<boolean> {
  const removal = await deps.removeQueue(name, guards)
  switch (removal) {
    case 'deleted':
      return true
    case 'has-live-tasks':
    case 'broker-not-empty':
      return false
    case 'has-consumers':
    case 'broker-in-use':
      throw new Problem('conflict', `The queue "${name}" has consumers, and ifUnused was asked for`)
    case 'unknown':
      throw unknownQueue(name)
    default:
      return removal satisfies never
  }
}

/** Nothing starts any more, what waits is cancelled, what runs ends; when that takes too long, the queue goes on. */
async function drainAndRemove(
  deps: QueueDeletionDeps,
  { name, paused }: { name: string; paused: boolean },
  guards: Guards,
): Promise<void> {
  const { db, drainWithinMs = DRAIN_WITHIN_MS } = deps
  const setPaused = async (to: boolean) => {
    await setQueuePaused(db, name, to)
    deps.topologyChanged()
  }
  await setPaused(true)
  let done = false
  try {
    const deadline = realClock.now() + drainWithinMs
    for (;;) {
      await deps.cancelWaiting(name)
      const [counts] = await queueCounts(db, name)
      if (!counts) throw unknownQueue(name)
      // Tried when it may succeed: it would ask what runs to stop.
      done = counts.waiting + counts.queued + counts.running === 0 && (await removed(deps, name, guards))
      if (done) return
      if (realClock.now() > deadline) throw stillRunning(name, counts.running)
      await pause(realClock, LOOK_EVERY_MS)
    }
  } finally {
    if (!done && !paused) await setPaused(false)
  }
}

function stillRunning(name: string, running: number): Problem {
  return new Problem(
    'queue-not-empty',
    `The queue "${name}" stays: ${running} of its tasks still run. What waited in it is cancelled; try again when they have ended`,
  )
}
