import type { Pool, PoolClient } from 'pg'
import { isFinal, type Status } from '../../task/status.ts'
import { inTransaction } from '../statement.ts'
import { childrenOf, lockFamilies, settleParents } from './parents.ts'

/** `requested`: it is running; its node aborts it, and whatever ends first is recorded (PROTOCOL 7). */
export interface Cancelled {
  id: string
  outcome: 'cancelled' | 'requested' | 'final' | 'unknown'
}

/** Told of tasks that were changed and committed. */
type Changed = (ids: string[]) => void

interface Row {
  id: string
  status: Status
  parentId: string | null
  parent: boolean
}

/** Live, or cancelled without having taken all its children along. */
const CANCELLABLE = `t.status not in ('succeeded', 'dead', 'cancelled')
  or (t.status = 'cancelled' and t.children_succeeded + t.children_dead < t.children_total)`

/**
 * Cancels what waits at once and remembers the wish for what runs; a parent's live children are cancelled with it,
 * in batches after it. Answers in the order of `ids`; `changed` is told of every batch that is committed. May be
 * repeated, and finishes then what was cut short.
 */
export async function cancelTasks(pool: Pool, ids: string[], changed?: Changed): Promise<Cancelled[]> {
  const live = await inTransaction(pool, (tx) => cancelLive(tx, ids))
  changed?.(live.map(({ id }) => id))
  const outcomes = new Map<string, Cancelled['outcome']>(
    live.map(({ id, status }) => [id, status === 'cancelled' ? 'cancelled' : 'requested']),
  )
  const { rows: final } = await pool.query<Pick<Row, 'id' | 'parent'>>(
    `select t.id, t.children_total > 0 and (${CANCELLABLE}) as parent from tasks t where t.id = any($1::uuid[])`,
    [ids.filter((id) => !outcomes.has(id))],
  )
  for (const { id } of final) outcomes.set(id, 'final')
  for (const { id, parent } of [...live, ...final]) {
    if (!parent) continue
    for await (const children of childrenOf(pool, id, CANCELLABLE)) await cancelTasks(pool, children, changed)
  }
  return ids.map((id) => ({ id, outcome: outcomes.get(id) ?? 'unknown' }))
}

async function cancelLive(tx: PoolClient, ids: string[]): Promise<Row[]> {
  await lockFamilies(tx, ids)
  const { rows } = await tx.query<Row>(
    `update tasks t
     set cancel_requested = true,
       status = case when t.status = 'running' then t.status else 'cancelled' end,
       finished_at = case when t.status = 'running' then null else now() end
     where t.id = any($1::uuid[]) and t.status not in ('succeeded', 'dead', 'cancelled')
     returning t.id, t.status, t.parent_id as "parentId", t.children_total > 0 as parent`,
    [ids],
  )
  await settleParents(
    tx,
    rows.filter((row) => isFinal(row.status)).map((row) => ({ ...row, by: 1 })),
  )
  return rows
}

/** How many waiting tasks one transaction cancels. */
const WAITING_A_BATCH = 2_000

/** Cancels everything of a queue that waits in Postgres at the time of the call; gives the number. */
export async function cancelWaiting(pool: Pool, queue: string, changed?: Changed): Promise<number> {
  const { rows: clock } = await pool.query<{ now: string }>('select clock_timestamp()::text as now')
  for (let total = 0; ; ) {
    const { rows } = await pool.query<{ id: string }>(
      `select id from tasks
       where queue = $1 and status in ('pending', 'retrying') and created_at <= $2::timestamptz limit $3`,
      [queue, clock[0]?.now, WAITING_A_BATCH],
    )
    if (rows.length === 0) return total
    const cancelled = await cancelTasks(
      pool,
      rows.map((row) => row.id),
      changed,
    )
    total += cancelled.filter((one) => one.outcome === 'cancelled').length
  }
}
