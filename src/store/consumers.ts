import { type Kysely, sql } from 'kysely'
import type { ConsumerOrder } from '../task/topology.ts'
import { jsonb } from './statement.ts'
import type { Tables } from './tables.ts'

/** A standing order: take deliveries of a queue and give them to a target, whose secrets are there: show it with `withoutSecret` only. */
export interface Consumer extends ConsumerOrder {
  createdAt: string
  updatedAt: string
}

/** What of a consumer can be changed; its queue cannot. */
export type ConsumerChange = Partial<Pick<Consumer, 'target' | 'concurrency' | 'timeoutMs' | 'paused'>>

const COLUMNS = [
  'id',
  'queue',
  'target',
  'concurrency',
  'timeout_ms as timeoutMs',
  'paused',
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

/** Stores a new consumer; undefined when its queue does not exist. */
export async function insertConsumer(db: Kysely<Tables>, consumer: ConsumerOrder): Promise<Consumer | undefined> {
  try {
    const row = await db
      .insertInto('consumers')
      .values({
        id: consumer.id,
        queue: consumer.queue,
        target: jsonb(consumer.target) as never,
        concurrency: consumer.concurrency,
        timeout_ms: consumer.timeoutMs,
        paused: consumer.paused,
      })
      .returning(COLUMNS)
      .executeTakeFirstOrThrow()
    return row as Consumer
  } catch (error) {
    // foreign_key_violation: the queue is not there, or was deleted meanwhile.
    if ((error as { code?: string }).code === '23503') return undefined
    throw error
  }
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
