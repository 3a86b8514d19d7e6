import type { Pool } from 'pg'
import type { Status } from '../../task/status.ts'
import { IS_COPY, WAITS_FOR_COPY } from './family/copies.ts'

export interface RunNow {
  id: string
  outcome: 'due' | 'not-waiting' | 'unknown'
}

/**
 * Makes waiting tasks due now, whatever they waited for; with a fan-out goes what its queues got. Gives the queues that
 * have work.
 */
export async function runNow(pool: Pool, ids: string[]): Promise<{ due: RunNow[]; queues: string[] }> {
  const { rows: found } = await pool.query<{ id: string; parentId: string | null; queue: string; status: Status }>(
    `with waiting as (
       select t.id from tasks t
       where (t.id = any($1::uuid[]) and t.status in ('pending', 'retrying'))
         or (t.parent_id = any($1::uuid[]) and ${IS_COPY} and (t.status in ('pending', 'retrying') or ${WAITS_FOR_COPY}))
       order by t.id desc for update
     )
     update tasks t set due_at = least(t.due_at, now()) from waiting where t.id = waiting.id
     returning t.id, t.parent_id as "parentId", t.queue, t.status`,
    [ids],
  )
  // What waits for its parent's publish goes with that.
  const rows = found.filter(({ status }) => status !== 'queued')
  const asked = new Set(ids)
  const due = new Set(rows.map(({ id, parentId }) => (asked.has(id) ? id : (parentId ?? id))))
  const { rows: known } = await pool.query<{ id: string }>('select id from tasks where id = any($1::uuid[])', [
    ids.filter((id) => !due.has(id)),
  ])
  const others = new Set(known.map((row) => row.id))
  return {
    due: ids.map((id) => ({ id, outcome: due.has(id) ? 'due' : others.has(id) ? 'not-waiting' : 'unknown' })),
    queues: [...new Set(rows.map((row) => row.queue))],
  }
}
