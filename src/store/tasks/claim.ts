import type { Pool } from 'pg'
import { PRIORITIES } from '../../task/limits.ts'
import type { ClaimedTask } from '../../task/task.ts'
import { prepared } from '../statement.ts'

export interface ClaimRequest {
  /** New for every claim; the same again repeats it (PROTOCOL 2). */
  claimId: string
  node: string
  queue: string
  limit: number
}

const CLAIMED_COLUMNS = `t.id, t.queue, t.type, t.payload, t.target, t.priority, t.attempt, t.failures,
  t.max_attempts as "maxAttempts", t.lost_starts as "lostStarts", t.timeout_ms as "timeoutMs",
  t.parent_id as "parentId", t.origin, t.created_at as "createdAt", t.traceparent`

/**
 * Takes up to `limit` due tasks of an unpaused queue for `node`: pending or retrying becomes running,
 * the attempt's number rises by one. Highest priority first, then oldest due; one index probe a priority,
 * so tasks that are not due yet cost nothing. Rows that another node is claiming are passed over.
 */
export async function claimDueTasks(pool: Pool, request: ClaimRequest): Promise<ClaimedTask[]> {
  const { queue, limit, node, claimId } = request
  const rows = await prepared<ClaimedTask & { waitedMs: number }>(pool, 'claim-due', CLAIM_DUE, [
    queue,
    limit,
    node,
    claimId,
  ])
  // An update gives its rows in whatever order its join had; sorting here spares Postgres sorting payloads.
  rows.sort((a, b) => b.priority - a.priority || b.waitedMs - a.waitedMs || (a.id < b.id ? -1 : 1))
  return rows
}

export const CLAIM_DUE = `
  with due as (
    select line.id
    from queues q
      cross join generate_series(${PRIORITIES - 1}, 0, -1) as p(priority)
      cross join lateral (
        select t.id from tasks t
        where t.queue = q.name and t.priority = p.priority
          and t.status in ('pending', 'retrying') and t.due_at <= now()
        order by t.due_at, t.id
        limit $2
        for update skip locked
      ) line
    where q.name = $1 and not q.paused
    limit $2
  )
  update tasks t
  set status = 'running', attempt = t.attempt + 1, node = $3, claim_id = $4, started_at = now(), finished_at = null
  from due
  where t.id = due.id
  returning ${CLAIMED_COLUMNS}, (extract(epoch from now() - t.due_at) * 1000)::float8 as "waitedMs"`

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
