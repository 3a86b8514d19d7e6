import { type Kysely, sql, type Transaction } from 'kysely'
import { Problem } from '../../runtime/errors.ts'
import type { ConsumerOrder } from '../../task/topology/topology.ts'
import { jsonb } from '../database/statement.ts'
import type { Tables } from '../database/tables.ts'

/** A standing order: take deliveries of a queue and give them to a target, whose secrets are there: show it with `withoutSecret` only. */
export interface Consumer extends ConsumerOrder {
  createdAt: string
  updatedAt: string
}

/** What of a consumer can be changed; its queue cannot. */
export type ConsumerChange = Partial<Pick<Consumer, 'target' | 'concurrency' | 'timeoutMs' | 'paused' | 'rateLimit'>>

const COLUMNS = [
  'id',
  'queue',
  'target',
  'concurrency',
  'timeout_ms as timeoutMs',
  'paused',
  'rate_limit as rateLimit',
  'created_at as createdAt',
  'updated_at as updatedAt',
] as const

/** Consumers by id (which is by age), those after `after`. */
export async function listConsumers(
  db: Kysely<Tables>,
  filter: { queue?: string | undefined; after?: string | undefined; limit: number },
): Promise<Consumer[]> {
  let query = db.selectFrom('consumers').select(COLUMNS).orderBy('id').limit(filter.limit)
  if (filter.queue !== undefined) query = query.where('queue', '=', filter.queue)
  if (filter.after !== undefined) query = query.where('id', '>', filter.after)
  return (await query.execute()) as Consumer[]
}

/** Undefined for an id that is unknown. */
export async function consumerById(db: Kysely<Tables>, id: string): Promise<Consumer | undefined> {
  return (await db.selectFrom('consumers').select(COLUMNS).where('id', '=', id).executeTakeFirst()) as
    | Consumer
    | undefined
}

/**
 * Stores a new consumer; undefined when its queue does not exist. Rejects with the Problem `conflict` when the broker's
 * confirm finishes the tasks of its queue (PROTOCOL 19).
 */
export function insertConsumer(db: Kysely<Tables>, consumer: ConsumerOrder): Promise<Consumer | undefined> {
  return db.transaction().execute((tx) => insertConsumerIn(tx, consumer))
}

/** As `insertConsumer`, in a transaction that goes on. */
export async function insertConsumerIn(
  tx: Transaction<Tables>,
  consumer: ConsumerOrder,
): Promise<Consumer | undefined> {
  // The lock holds the policy and the queue as they are until the consumer is there.
  const queue = await tx
    .selectFrom('queues')
    .select('settlement')
    .where('name', '=', consumer.queue)
    .forShare()
    .executeTakeFirst()
  if (!queue) return undefined
  if (queue.settlement === 'confirm') {
    const detail = `The tasks of queue "${consumer.queue}" are done when the broker has them ("settlement": "confirm"): it takes no consumers`
    throw new Problem('conflict', detail)
  }
  const row = await tx
    .insertInto('consumers')
    .values({
      id: consumer.id,
      queue: consumer.queue,
      target: jsonb(consumer.target) as never,
      concurrency: consumer.concurrency,
      timeout_ms: consumer.timeoutMs,
      paused: consumer.paused,
      rate_limit: (consumer.rateLimit ? jsonb(consumer.rateLimit) : null) as never,
    })
    .returning(COLUMNS)
    .executeTakeFirstOrThrow()
  return row as Consumer
}

/** Changes what `change` names and nothing else; undefined for an id that is unknown. */
export async function updateConsumer(
  db: Kysely<Tables>,
  id: string,
  change: ConsumerChange,
): Promise<Consumer | undefined> {
  const row = await db
    .updateTable('consumers')
    .set({
      ...(change.target && { target: jsonb(change.target) as never }),
      ...(change.concurrency !== undefined && { concurrency: change.concurrency }),
      ...(change.timeoutMs !== undefined && { timeout_ms: change.timeoutMs }),
      ...(change.paused !== undefined && { paused: change.paused }),
      ...(change.rateLimit !== undefined && {
        rate_limit: (change.rateLimit ? jsonb(change.rateLimit) : null) as never,
      }),
      updated_at: sql<string>`now()`,
    })
    .where('id', '=', id)
    .returning(COLUMNS)
    .executeTakeFirst()
  return row as Consumer | undefined
}

/** False for an id that is unknown. */
export async function deleteConsumer(db: Kysely<Tables>, id: string): Promise<boolean> {
  const { numDeletedRows } = await db.deleteFrom('consumers').where('id', '=', id).executeTakeFirst()
  return numDeletedRows > 0n
}

/** Deletes all consumers of a queue; gives their number. */
export async function deleteConsumersOf(db: Kysely<Tables>, queue: string): Promise<number> {
  const { numDeletedRows } = await db.deleteFrom('consumers').where('queue', '=', queue).executeTakeFirst()
  return Number(numDeletedRows)
}
