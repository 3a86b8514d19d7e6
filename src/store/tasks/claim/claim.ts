import type { Pool } from 'pg'
import { PRIORITIES } from '../../../task/limits.ts'
import type { ClaimedTask } from '../../../task/task.ts'
import type { DispatchOrder } from '../../../task/topology/queue.ts'
import { prepared } from '../../database/statement.ts'
import { NO_MESSAGE } from '../at-broker/late-messages.ts'

export interface ClaimRequest {
  /** New for every claim; the same again repeats it (PROTOCOL 2). */
  claimId: string
  node: string
  queue: string
  limit: number
  /** `due` by default. */
  order?: DispatchOrder
}

/** What a worker needs of a claimed row `t`. */
export const CLAIMED_COLUMNS = `t.id, t.queue, t.type, t.payload, t.target, t.priority, t.attempt, t.failures,
  t.max_attempts as "maxAttempts", t.lost_starts as "lostStarts", t.timeout_ms as "timeoutMs",
  t.parent_id as "parentId", t.origin, t.created_at as "createdAt", t.traceparent`

/** `t` becomes this node's, or, on a paused queue, goes back to the line. */
export const TAKE_QUEUED = `
  status = case when q.paused then 'pending'::task_status else 'running' end,
  attempt = case when q.paused then t.attempt else t.attempt + 1 end,
  node = case when q.paused then t.node else $3 end, claim_id = $4, started_at = now(), finished_at = null,
  report_by = null, ${NO_MESSAGE}`

/**
 * Takes up to `limit` due tasks of an unpaused queue for `node`: pending or retrying becomes running,
 * the attempt's number rises by one. Highest priority first, then oldest due; one index probe a priority,
 * so tasks that are not due yet cost nothing. Rows that another node is claiming are passed over.
 */
export async function claimDueTasks(pool: Pool, request: ClaimRequest): Promise<ClaimedTask[]> {
  const { queue, limit, node, claimId, order = 'due' } = request
  const rows = await prepared<ClaimedTask & { waitedMs: number }>(pool, `claim-${order}`, CLAIM_DUE[order], [
    queue,
    limit,
    node,
    claimId,
  ])
  // An update gives its rows in whatever order its join had; sorting here spares Postgres sorting payloads.
  rows.sort((a, b) => b.priority - a.priority || b.waitedMs - a.waitedMs || (a.id < b.id ? -1 : 1))
  return rows
}

/** `random` takes any of the first so many of each priority that are due. */
export const SHUFFLED = 1_000

/** The first of a queue's line ($1) in one priority for which `also` holds, locked. */
export const lineText = (limit: string, also = '') => `
  select t.id from tasks t
  where t.queue = $1 and t.priority = p.priority and t.status in ('pending', 'retrying') and t.due_at <= now() ${also}
  order by t.due_at, t.id limit ${limit}
  for update skip locked`

/** Any of the first of it. */
export const shuffledLine = (also = '') =>
  `select any_due.id from (${lineText(String(SHUFFLED), also)}) any_due order by random()`

const claimText = (line: string) => `
  with due as (
    select line.id
    from queues q
      cross join generate_series(${PRIORITIES - 1}, 0, -1) as p(priority)
      cross join lateral (${line}) line
    where q.name = $1 and not q.paused
    limit $2
  )
  update tasks t
  set status = 'running', attempt = t.attempt + 1, node = $3, claim_id = $4, started_at = now(), finished_at = null
  from due
  where t.id = due.id
  returning ${CLAIMED_COLUMNS}, (extract(epoch from now() - t.due_at) * 1000)::float8 as "waitedMs"`

export const CLAIM_DUE = { due: claimText(lineText('$2')), random: claimText(shuffledLine()) } satisfies Record<
  DispatchOrder,
  string
>

/** What the claim `claimId` took and still has, in the claim's order, for a node that lost the answer. */
export function claimedTasks(pool: Pool, { claimId, node }: ClaimRequest): Promise<ClaimedTask[]> {
  return prepared<ClaimedTask>(
    pool,
    'claimed',
    `select ${CLAIMED_COLUMNS} from tasks t where t.status = 'running' and t.node = $1 and t.claim_id = $2
     order by t.priority desc, t.due_at, t.id`,
    [node, claimId],
  )
}

/** Milliseconds until the next task of each queue is due, for queues that have one within `withinMs`; 0 when overdue. */
export async function nextDue(pool: Pool, queues: string[], withinMs: number): Promise<Map<string, number>> {
  const rows = await prepared<{ queue: string; ms: number }>(
    pool,
    'next-due',
    `select q.name as queue,
       greatest(0, ceil(extract(epoch from min(line.due_at) - now()) * 1000))::float8 as ms
     from queues q
       cross join generate_series(0, ${PRIORITIES - 1}) as p(priority)
       cross join lateral (
         select t.due_at from tasks t
         where t.queue = q.name and t.priority = p.priority
           and t.status in ('pending', 'retrying') and t.due_at <= now() + $2 * interval '1 ms'
         order by t.due_at limit 1
       ) line
     where q.name = any($1) and not q.paused
     group by q.name`,
    [queues, withinMs],
  )
  return new Map(rows.map((row) => [row.queue, row.ms]))
}
