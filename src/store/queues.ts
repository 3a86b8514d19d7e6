import { type Kysely, type RawBuilder, sql } from 'kysely'
import type { QueuePolicy } from '../task/queue.ts'
import type { QueueOrder } from '../task/topology.ts'
import { jsonb } from './statement.ts'
import type { Tables } from './tables.ts'

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

/** Makes the queue or replaces its policy; whether it is paused stays. */
export async function putQueue(
  db: Kysely<Tables>,
  name: string,
  policy: QueuePolicy,
): Promise<{ queue: Queue; created: boolean }> {
  const values = { type: policy.type, retry: jsonb(policy.retry), retention: jsonb(policy.retention) }
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
    const { rows } = await sql<{ live: boolean }>`
      select exists (select from tasks where queue = ${name} and status in ('pending', 'retrying'))
        or exists (select from tasks where queue = ${name} and status in ('queued', 'running')) as live`.execute(tx)
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

/** A waiting task as a queue shows it. */
export interface WaitingTask {
  id: string
  type: string | null
  status: 'pending' | 'retrying'
  priority: number
  dueAt: string
  attempt: number
  failures: number
  parentId: string | null
  createdAt: string
  /** JSON text as it was received. */
  payload: string
  /** `dueAt` with its microseconds, for the place after this task. */
  dueKey: string
}

/** The place after a waiting task in the order of dispatch. */
export interface WaitingPlace {
  priority: number
  dueKey: string
  id: string
}

/** A page's payloads weigh at most this many bytes together; the first task always comes. */
const PAGE_PAYLOAD_BYTES = 8 * 1024 * 1024

/**
 * Waiting tasks of a queue in the order of dispatch: priority, then due, then id; locks nothing.
 * `more` when others come after them.
 */
export async function waitingTasks(
  db: Kysely<Tables>,
  queue: string,
  limit: number,
  after?: WaitingPlace,
): Promise<{ tasks: WaitingTask[]; more: boolean }> {
  const { rows } = await waitingTasksQuery(queue, limit, after).execute(db)
  const tasks = rows.slice(0, limit).map(({ found: _, ...task }) => task)
  return { tasks, more: tasks.length < (rows[0]?.found ?? 0) }
}

const LOWEST_ID = '00000000-0000-0000-0000-000000000000'

/** One index probe a priority, from the place on; `found` counts the rows before heavy payloads cut the page. */
export function waitingTasksQuery(
  queue: string,
  limit: number,
  after: WaitingPlace = { priority: 9, dueKey: '-infinity', id: LOWEST_ID },
): RawBuilder<WaitingTask & { found: number }> {
  return sql<WaitingTask & { found: number }>`
    with line as (
      select t.*, sum(octet_length(t.payload::text)) over (order by t.priority desc, t.due_at, t.id) as bytes,
        count(*) over () as found
      from (
        select line.*
        from generate_series(${after.priority}::int, 0, -1) as p(priority)
          cross join lateral (
            select id, type, status, t.priority, due_at, attempt, failures, parent_id, created_at, payload
            from tasks t
            where t.queue = ${queue} and t.priority = p.priority and t.status in ('pending', 'retrying')
              and (t.due_at, t.id) > (
                case when p.priority = ${after.priority}::int then ${after.dueKey}::timestamptz else '-infinity' end,
                case when p.priority = ${after.priority}::int then ${after.id}::uuid else ${LOWEST_ID}::uuid end)
            order by t.due_at, t.id
            limit ${limit + 1}
          ) line
        order by line.priority desc, line.due_at, line.id
        limit ${limit + 1}
      ) t
    )
    select id, type, status, priority, due_at as "dueAt", attempt, failures, parent_id as "parentId",
      created_at as "createdAt", payload, due_at::text as "dueKey", found
    from line
    where bytes <= ${PAGE_PAYLOAD_BYTES} or bytes = octet_length(payload::text)
    order by line.priority desc, line.due_at, line.id`
}
