import type { Pool, PoolClient } from 'pg'
import type { Status } from '../../task/status.ts'
import { inTransaction } from '../statement.ts'
import { childrenOf, lockFamilies, settleParents } from './parents.ts'

export interface Replayed {
  id: string
  outcome: 'replayed' | 'not-replayable' | 'unknown'
}

interface Row {
  id: string
  status: Status
  parentId: string | null
  sealed: boolean
  queue: string
  children: boolean
}

/**
 * Sends dead and cancelled tasks again: pending, due now, failures forgotten; the attempt's number goes on rising.
 * With a parent go its dead and cancelled children, in batches after it; a parent whose own work is done does not work
 * again, but reopens with the first of them. Gives the queues that have work again.
 */
export async function replayTasks(
  pool: Pool,
  ids: string[],
  changed?: (ids: string[]) => void,
): Promise<{ replayed: Replayed[]; queues: string[] }> {
  const rows = await inTransaction(pool, (tx) => sendAgain(tx, ids))
  changed?.(rows.filter(isReplayable).map(({ id }) => id))
  const outcomes = new Map<string, Replayed['outcome']>()
  const own = rows.filter((row) => isReplayable(row) && !row.sealed)
  const reopened = new Set(own.map((row) => row.parentId))
  for (const row of rows) {
    const replayed = isReplayable(row) && (!row.sealed || reopened.has(row.id))
    outcomes.set(row.id, replayed ? 'replayed' : 'not-replayable')
  }
  const queues = new Set(own.map((row) => row.queue))
  for (const row of rows) {
    if (!isReplayable(row) || !row.children) continue
    for await (const children of childrenOf(pool, row.id, `t.status in ('dead', 'cancelled')`)) {
      const below = await replayTasks(pool, children, changed)
      if (below.replayed.some((child) => child.outcome === 'replayed')) outcomes.set(row.id, 'replayed')
      for (const queue of below.queues) queues.add(queue)
    }
  }
  return { replayed: ids.map((id) => ({ id, outcome: outcomes.get(id) ?? 'unknown' })), queues: [...queues] }
}

function isReplayable({ status }: Row): boolean {
  return status === 'dead' || status === 'cancelled'
}

/** The rows of `ids` as they were; those that can be are pending now, unless their own work is done. */
async function sendAgain(tx: PoolClient, ids: string[]): Promise<Row[]> {
  await lockFamilies(tx, ids)
  const { rows } = await tx.query<Row>(
    `select id, status, parent_id as "parentId", sealed, queue, children_dead > 0 as children
     from tasks where id = any($1::uuid[])`,
    [ids],
  )
  const replayable = rows.filter(isReplayable)
  await tx.query(
    `update tasks
     set status = case when sealed then status else 'pending' end,
       due_at = case when sealed then due_at else now() end,
       finished_at = case when sealed then finished_at end,
       failures = 0, lost_starts = 0, cancel_requested = false
     where id = any($1::uuid[])`,
    [replayable.map((row) => row.id)],
  )
  // Out of a final status: their parents reopen. A sealed parent moves by its children's change.
  await settleParents(
    tx,
    replayable.filter((row) => !row.sealed).map((row) => ({ parentId: row.parentId, status: row.status, by: -1 })),
  )
  return rows
}

export interface RunNow {
  id: string
  outcome: 'due' | 'not-waiting' | 'unknown'
}

/** Makes waiting tasks due now, whatever they waited for. Gives the queues that have work. */
export async function runNow(pool: Pool, ids: string[]): Promise<{ due: RunNow[]; queues: string[] }> {
  const { rows } = await pool.query<{ id: string; queue: string }>(
    `with waiting as (
       select id from tasks where id = any($1::uuid[]) and status in ('pending', 'retrying') order by id desc for update
     )
     update tasks t set due_at = least(t.due_at, now()) from waiting where t.id = waiting.id
     returning t.id, t.queue`,
    [ids],
  )
  const due = new Set(rows.map((row) => row.id))
  const { rows: known } = await pool.query<{ id: string }>('select id from tasks where id = any($1::uuid[])', [
    ids.filter((id) => !due.has(id)),
  ])
  const others = new Set(known.map((row) => row.id))
  return {
    due: ids.map((id) => ({ id, outcome: due.has(id) ? 'due' : others.has(id) ? 'not-waiting' : 'unknown' })),
    queues: [...new Set(rows.map((row) => row.queue))],
  }
}
