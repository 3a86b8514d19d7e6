import type { Broker } from '../broker/broker.ts'
import type { Database } from '../store/database/database.ts'
import { notePurged } from '../store/tasks/at-broker/late-messages.ts'
import { returnQueued } from '../store/tasks/at-broker/unqueue.ts'
import { cancelWaiting } from '../store/tasks/cancel.ts'
import type { Purge } from '../task/topology/queue.ts'

export interface PurgeDeps {
  pool: Database['pool']
  broker: Pick<Broker, 'inspect'>
  /** Told of tasks that were changed and committed. */
  changed(ids: string[]): void
  /** These queues have work again. */
  wake(queues: string[]): void
}

/**
 * Empties a queue at the broker (PROTOCOL 11). `cancel` ends every task of it that no worker has; `return` ends none, and
 * what the broker had is sent again. Rejects with BrokerUnavailable, usually before anything was changed; may be repeated.
 */
export async function purgeQueue(
  { pool, broker, changed, wake }: PurgeDeps,
  queue: string,
  purge: Purge,
): Promise<{ cancelled: number; returned: number }> {
  // Asked first, so that a broker that is away changes nothing.
  await broker.inspect(queue)
  const cancelled = purge === 'cancel' ? await cancelWaiting(pool, queue, changed) : 0
  await broker.inspect(queue, { purge: true })
  await notePurged(pool, queue)
  // Messages of tasks that came meanwhile were thrown away, too.
  const { count, queues } = await returnQueued(pool, { queue }, changed)
  wake(queues)
  return { cancelled, returned: count }
}

/** Sends again what was handed to the broker, for when somebody emptied the queue by other means; gives the number. */
export async function resendQueued({ pool, changed, wake }: Omit<PurgeDeps, 'broker'>, queue: string): Promise<number> {
  const { count, queues } = await returnQueued(pool, { queue }, changed)
  wake(queues)
  return count
}
