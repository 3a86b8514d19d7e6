import type { Pool } from 'pg'
import { MESSAGE_MAY_COME } from './at-broker/late-messages.ts'

export interface Removed {
  id: string
  /** `in-broker`: the broker may still have its message, which would come for a task that is not there. */
  outcome: 'deleted' | 'not-final' | 'has-children' | 'in-broker' | 'unknown'
}

/** Deletes the rows that `gone` selects and counts them as pruned in the same statement, for the node $1 (PROTOCOL 26). */
const deleteCounted = (gone: string) => `
  with gone as (${gone}),
  removed as (delete from tasks t using gone where t.id = gone.id returning t.id, t.queue, t.origin),
  counted as (
    insert into counters (node, queue, origin, pruned)
    select $1::uuid, queue, origin, count(*) from removed group by queue, origin order by queue, origin
    on conflict (node, queue, origin) do update set pruned = counters.pruned + excluded.pruned
  )
  select id from removed`

const CHILDLESS = '(t.children_total = 0 or not exists (select from tasks c where c.parent_id = t.id))'

/** Deletes final tasks without children, and without a message that may still come. A parent keeps its counts of children that are gone. */
export async function removeTasks(pool: Pool, node: string, ids: string[]): Promise<Removed[]> {
  const { rows: removed } = await pool.query<{ id: string }>(
    deleteCounted(
      `select t.id from tasks t
       where t.id = any($2::uuid[]) and t.status in ('succeeded', 'dead', 'cancelled') and ${CHILDLESS}
         and not (${MESSAGE_MAY_COME})
       order by t.id desc for update`,
    ),
    [node, ids],
  )
  const deleted = new Set(removed.map((row) => row.id))
  const { rows: kept } = await pool.query<{ id: string; outcome: Removed['outcome'] }>(
    `select t.id, case when t.status not in ('succeeded', 'dead', 'cancelled') then 'not-final'
       when not ${CHILDLESS} then 'has-children' else 'in-broker' end as outcome
     from tasks t where t.id = any($1::uuid[])`,
    [ids.filter((id) => !deleted.has(id))],
  )
  const left = new Map(kept.map((row) => [row.id, row.outcome]))
  return ids.map((id) => ({ id, outcome: deleted.has(id) ? 'deleted' : (left.get(id) ?? 'unknown') }))
}

/**
 * Deletes up to `limit` tasks that have been in a final status of `queue` for longer than `keepMs`, oldest first;
 * parents only after their children, and none whose message may still come. Gives the number.
 */
export async function pruneTasks(
  pool: Pool,
  node: string,
  prune: { queue: string; status: 'succeeded' | 'dead' | 'cancelled'; keepMs: number; limit: number },
): Promise<number> {
  const { rows } = await pool.query(
    deleteCounted(
      `select t.id from tasks t
       where t.queue = $2 and t.status = $3 and t.finished_at < now() - $4 * interval '1 ms' and ${CHILDLESS}
         and not (${MESSAGE_MAY_COME})
       order by t.finished_at limit $5 for update skip locked`,
    ),
    [node, prune.queue, prune.status, prune.keepMs, prune.limit],
  )
  return rows.length
}
