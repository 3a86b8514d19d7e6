import { type Kysely, sql } from 'kysely'
import { Problem } from '../../runtime/errors.ts'
import { type QueuePolicy, queuePolicy } from '../../task/topology/queue.ts'
import type { QueueOrder } from '../../task/topology/topology.ts'
import { jsonb, type Queryable } from '../database/statement.ts'
import type { Tables } from '../database/tables.ts'

export interface Queue extends QueueOrder {
  /** RFC 3339, UTC, milliseconds, as is `updatedAt`. */
  createdAt: string
  updatedAt: string
}

const COLUMNS = [
  'name',
  'type',
  'retry',
  'retention',
  'paused',
  'max_priority as maxPriority',
  'window_size as window',
  'settlement',
  'dead_letter as deadLetter',
  'dispatch_order as order',
  'report_within_ms as reportWithinMs',
  'conflict',
  'created_at as createdAt',
  'updated_at as updatedAt',
] as const

/** Queues by name, those after `after`. */
export async function listQueues(db: Kysely<Tables>, limit: number, after?: string): Promise<Queue[]> {
  const rows = await db
    .selectFrom('queues')
    .select(COLUMNS)
    .$if(after !== undefined, (query) => query.where(sql<boolean>`name collate "C" > ${after}`))
    .orderBy(sql`name collate "C"`)
    .limit(limit)
    .execute()
  return rows as Queue[]
}

export async function queueByName(db: Kysely<Tables>, name: string): Promise<Queue | undefined> {
  return (await db.selectFrom('queues').select(COLUMNS).where('name', '=', name).executeTakeFirst()) as
    | Queue
    | undefined
}

export async function queueExists(tx: Queryable, name: string): Promise<boolean> {
  const { rowCount } = await tx.query('select from queues where name = $1', [name])
  return rowCount === 1
}

export interface PutQueue {
  queue: Queue
  created: boolean
}

/**
 * Makes the queue or replaces its whole policy: what is not given takes its default. Whether it is paused stays. Rejects
 * with the Problem `conflict` when the broker's confirm shall finish its tasks and it has consumers.
 */
export async function putQueue(db: Kysely<Tables>, name: string, given: Partial<QueuePolicy>): Promise<PutQueue> {
  if (given.settlement !== 'confirm') return upsertQueue(db, name, given)
  return db.transaction().execute(async (tx) => {
    const put = await upsertQueue(tx, name, given)
    // A statement of its own, under the row's lock: a consumer that is being made waits, and finds the new policy.
    const consumer = await tx.selectFrom('consumers').select('id').where('queue', '=', name).limit(1).executeTakeFirst()
    if (!consumer) return put
    const detail = `The queue "${name}" has consumers, and with "settlement": "confirm" it can have none: delete them first`
    throw new Problem('conflict', detail)
  })
}

async function upsertQueue(db: Kysely<Tables>, name: string, given: Partial<QueuePolicy>): Promise<PutQueue> {
  const values = valuesOf(queuePolicy(given))
  const row = await db
    .insertInto('queues')
    .values({ name, ...values } as never)
    .onConflict((conflict) => conflict.column('name').doUpdateSet({ ...values, updated_at: sql`now()` } as never))
    .returning(COLUMNS)
    // A row that nobody has updated yet has no xmax: it was inserted just now.
    .returning(sql<boolean>`xmax = 0`.as('created'))
    .executeTakeFirstOrThrow()
  const { created, ...queue } = row
  return { queue: queue as Queue, created }
}

/** Makes the queue; false, and nothing is changed, when there is one of that name. */
export async function insertQueue(
  db: Kysely<Tables>,
  name: string,
  given: Partial<QueuePolicy> = {},
): Promise<boolean> {
  const { numInsertedOrUpdatedRows = 0n } = await db
    .insertInto('queues')
    .values({ name, ...valuesOf(queuePolicy(given)) } as never)
    .onConflict((conflict) => conflict.column('name').doNothing())
    .executeTakeFirst()
  return numInsertedOrUpdatedRows > 0n
}

function valuesOf(policy: QueuePolicy) {
  return {
    type: policy.type,
    max_priority: policy.maxPriority,
    retry: jsonb(policy.retry),
    window_size: policy.window,
    settlement: policy.settlement,
    retention: jsonb(policy.retention),
    dead_letter: policy.deadLetter,
    dispatch_order: policy.order,
    report_within_ms: policy.reportWithinMs,
  }
}

/** Pauses or resumes; undefined when there is no such queue. */
export async function setQueuePaused(db: Kysely<Tables>, name: string, paused: boolean): Promise<Queue | undefined> {
  const row = await db
    .updateTable('queues')
    .set({ paused, updated_at: sql<string>`case when paused = ${paused} then updated_at else now() end` })
    .where('name', '=', name)
    .returning(COLUMNS)
    .executeTakeFirst()
  return row as Queue | undefined
}

export type QueueDeletion = 'deleted' | 'unknown' | 'has-consumers' | 'has-live-tasks'

/** What stands in the way of a deletion now; `deleteQueue` looks once more. */
export async function queueUse(
  db: Kysely<Tables>,
  name: string,
): Promise<{ consumers: boolean; liveTasks: boolean } | undefined> {
  const { rows } = await sql<{ consumers: boolean; liveTasks: boolean }>`
    select exists (select from consumers where queue = q.name) as consumers, ${LIVE} as "liveTasks"
    from queues q where name = ${name}`.execute(db)
  return rows[0]
}

/** Of the queue `q`; each half has an index. */
const LIVE = sql`(exists (select from tasks where queue = q.name and status in ('pending', 'retrying'))
  or exists (select from tasks where queue = q.name and status in ('queued', 'running')))`

/** Longest wait for submits in hand; then the deletion fails with a lock time-out, and nothing is changed. */
const DELETE_LOCK_TIMEOUT = '5s'

/**
 * Deletes a queue that has neither consumers nor live tasks. No submit can slip in between the look and the deletion:
 * inserts into tasks wait meanwhile, and find the queue gone.
 */
export function deleteQueue(db: Kysely<Tables>, name: string): Promise<QueueDeletion> {
  return db.transaction().execute(async (tx) => {
    await sql`set local lock_timeout = ${sql.lit(DELETE_LOCK_TIMEOUT)}`.execute(tx)
    const row = await tx.selectFrom('queues').select('name').where('name', '=', name).forUpdate().executeTakeFirst()
    if (!row) return 'unknown'
    const consumer = await tx.selectFrom('consumers').select('id').where('queue', '=', name).limit(1).executeTakeFirst()
    if (consumer) return 'has-consumers'
    await sql`lock table tasks in share row exclusive mode`.execute(tx)
    // A statement of its own: its snapshot is younger than the lock.
    const { rows } = await sql<{ live: boolean }>`select ${LIVE} as live from queues q where name = ${name}`.execute(tx)
    if (rows[0]?.live) return 'has-live-tasks'
    await tx.deleteFrom('queues').where('name', '=', name).execute()
    return 'deleted'
  })
}

/** How many tasks of a queue are in each status that is not history. */
export interface QueueDepth {
  pending: number
  queued: number
  running: number
  retrying: number
  dead: number
}

export interface QueueFigures {
  depth: QueueDepth
  /** For how long the task that waits longest has been due, in milliseconds; null when none is due. */
  oldestWaitingMs: number | null
}

/** Figures of every queue that has tasks, in two statements. Counts what is waiting: with a million tasks, some tenths of a second. */
export async function queueFigures(db: Kysely<Tables>): Promise<Map<string, QueueFigures>> {
  const { rows: counts } = await sql<{ queue: string; status: keyof QueueDepth; count: number }>`
    select queue, status, count(*) as count from tasks
    where status <> 'succeeded' and status in ('pending', 'queued', 'running', 'retrying', 'dead')
    group by queue, status`.execute(db)
  const { rows: ages } = await sql<{ queue: string; age: number }>`
    select q.name as queue, floor(extract(epoch from now() - min(line.due_at)) * 1000)::bigint as age
    from queues q cross join generate_series(0, 9) as p(priority)
      cross join lateral (
        select t.due_at from tasks t
        where t.queue = q.name and t.priority = p.priority and t.status in ('pending', 'retrying') and t.due_at <= now()
        order by t.due_at limit 1
      ) line
    group by q.name`.execute(db)
  const figures = new Map<string, QueueFigures>()
  const of = (queue: string) => {
    const known = figures.get(queue) ?? noFigures()
    figures.set(queue, known)
    return known
  }
  for (const { queue, status, count } of counts) of(queue).depth[status] = count
  for (const { queue, age } of ages) of(queue).oldestWaitingMs = age
  return figures
}

export function noFigures(): QueueFigures {
  return { depth: { pending: 0, queued: 0, running: 0, retrying: 0, dead: 0 }, oldestWaitingMs: null }
}
