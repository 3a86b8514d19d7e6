import type { Pool } from 'pg'
import { LIMITS } from '../../../task/limits.ts'
import { inTransaction, prepared, repeated } from '../../database/statement.ts'
import { appendedAttempt } from '../attempts.ts'
import { endsOf, lockFamilies, settleParents } from '../family/parents.ts'

/**
 * Puts up to `limit` queued tasks back in line whose publish is not known to be confirmed and whose publisher is gone
 * (PROTOCOL 11). Their attempt stays: a message that did arrive begins the same one, and the fence lets one of them.
 */
export async function returnLostPublishes(pool: Pool, limit: number): Promise<{ id: string; queue: string }[]> {
  return repeated(() => prepared(pool, 'return-lost-publishes', RETURN_LOST, [limit]))
}

const RETURN_LOST = `
  with lost as (
    select t.id from tasks t join nodes n on n.id = t.publisher
    where t.status = 'queued' and (n.dead_at is not null or n.left_at is not null) and t.publish_no > n.confirmed
    order by t.id desc limit $1 for update of t skip locked
  )
  update tasks t set status = 'pending', report_by = null from lost where t.id = lost.id
  returning t.id, t.queue`

/** Puts these tasks back in line while they are queued. */
export async function returnQueuedTasks(pool: Pool, ids: string[]): Promise<void> {
  if (ids.length === 0) return
  await repeated(() =>
    prepared(
      pool,
      'return-queued',
      `with found as (select id from tasks where id = any($1::uuid[]) and status = 'queued' order by id desc for update)
       update tasks t set status = 'pending', report_by = null from found where t.id = found.id`,
      [ids],
    ),
  )
}

/**
 * Sends up to `limit` tasks again of which no foreign consumer reported in time since their publish (PROTOCOL 18): lost,
 * and dead when that repeats.
 */
export function takeUnreported(pool: Pool, limit: number): Promise<{ id: string; queue: string }[]> {
  return inTransaction(pool, async (tx) => {
    const found = await prepared<{ id: string }>(
      tx,
      'find-unreported',
      `select id from tasks where status = 'queued' and report_by < now() order by id desc limit $1 for update skip locked`,
      [limit],
    )
    if (found.length === 0) return []
    await lockFamilies(
      tx,
      found.map(({ id }) => id),
    )
    const rows = await prepared<{ id: string; queue: string; parentId: string | null; status: 'dead' | 'pending' }>(
      tx,
      'take-unreported',
      TAKE_UNREPORTED,
      [found.map(({ id }) => id)],
    )
    await settleParents(tx, endsOf(rows))
    return rows
  })
}

const DEAD = `t.lost_starts + 1 >= ${LIMITS.lostStarts}`
const SILENT = `'no consumer reported in time'`

const TAKE_UNREPORTED = `
  update tasks t
  set status = case when ${DEAD} then 'dead'::task_status else 'pending' end, attempt = t.attempt + 1,
    lost_starts = t.lost_starts + 1, report_by = null, due_at = case when ${DEAD} then t.due_at else now() end,
    error = case when ${DEAD} then ${SILENT} else t.error end, finished_at = case when ${DEAD} then now() end,
    attempts = ${appendedAttempt({ number: 't.attempt + 1', node: 'null', outcome: "'lost'", error: SILENT })}
  where t.id = any($1::uuid[]) and t.status = 'queued'
  returning t.id, t.queue, t.parent_id as "parentId", t.status`
