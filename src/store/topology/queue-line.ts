import { type Kysely, type RawBuilder, sql } from 'kysely'
import type { Tables } from '../database/tables.ts'

/** A task that no worker has yet, as its queue shows it. */
export interface WaitingTask {
  id: string
  type: string | null
  /** `queued`: the broker has it already, so it is taken before those that wait in Postgres. */
  status: 'queued' | 'pending' | 'retrying'
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

/** The place after a task in the order in which they are taken. */
export interface WaitingPlace {
  status: WaitingTask['status']
  priority: number
  dueKey: string
  id: string
}

/** A page's payloads weigh at most this many bytes together; the first task always comes. */
const PAGE_PAYLOAD_BYTES = 8 * 1024 * 1024

/**
 * Tasks of a queue that no worker has, in the order in which they are taken: what the broker has, then what waits in
 * Postgres; each by priority, then due, then id. Locks nothing. `more` when others come after them.
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
const FIRST: WaitingPlace = { status: 'queued', priority: 9, dueKey: '-infinity', id: LOWEST_ID }
const COLUMNS = sql.raw('id, type, status, t.priority, due_at, attempt, failures, parent_id, created_at, payload')

/** One index probe a priority, from the place on; `found` counts the rows before heavy payloads cut the page. */
export function waitingTasksQuery(
  queue: string,
  limit: number,
  after: WaitingPlace = FIRST,
): RawBuilder<WaitingTask & { found: number }> {
  const { priority, dueKey, id } = after
  const inBroker = after.status === 'queued'
  // From a place in the broker on, all that waits in Postgres follows.
  const from = inBroker ? FIRST : after
  return sql<WaitingTask & { found: number }>`
    with line as (
      select t.*, count(*) over () as found,
        sum(octet_length(t.payload::text)) over (order by t.status = 'queued' desc, t.priority desc, t.due_at, t.id) as bytes
      from (
        select * from (
          (select ${COLUMNS}
          from tasks t
          where ${inBroker} and t.queue = ${queue} and t.status = 'queued'
            and (-t.priority, t.due_at, t.id) > (-${priority}::int, ${dueKey}::timestamptz, ${id}::uuid)
          order by t.priority desc, t.due_at, t.id
          limit ${limit + 1})
          union all
          select line.*
          from generate_series(${from.priority}::int, 0, -1) as p(priority)
            cross join lateral (
              select ${COLUMNS}
              from tasks t
              where t.queue = ${queue} and t.priority = p.priority and t.status in ('pending', 'retrying')
                and (t.due_at, t.id) > (
                  case when p.priority = ${from.priority}::int then ${from.dueKey}::timestamptz else '-infinity' end,
                  case when p.priority = ${from.priority}::int then ${from.id}::uuid else ${LOWEST_ID}::uuid end)
              order by t.due_at, t.id
              limit ${limit + 1}
            ) line
        ) t
        order by t.status = 'queued' desc, t.priority desc, t.due_at, t.id
        limit ${limit + 1}
      ) t
    )
    select id, type, status, priority, due_at as "dueAt", attempt, failures, parent_id as "parentId",
      created_at as "createdAt", payload, due_at::text as "dueKey", found
    from line
    where bytes <= ${PAGE_PAYLOAD_BYTES} or bytes = octet_length(payload::text)
    order by line.status = 'queued' desc, line.priority desc, line.due_at, line.id`
}
