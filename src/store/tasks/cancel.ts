import type { Pool, PoolClient } from 'pg'
import { isFinal, type Status } from '../../task/status.ts'
import { inTransaction } from '../database/statement.ts'
import { tellCompletions } from './family/completions.ts'
import { childrenWhere, WAITS_FOR_COPY } from './family/copies.ts'
import { childrenOf, endsOf, lockFamilies, settleParents } from './family/parents.ts'

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
  /** Is to be fanned out by an exchange. */
  fanOut: boolean
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

async function cancelLive(tx: PoolClient, given: string[]): Promise<Row[]> {
  const ids = [...given, ...(await broughtAlong(tx, given))]
  await lockFamilies(tx, ids)
  const { rows } = await tx.query<Row>(
    `update tasks t
     set cancel_requested = true,
       status = case when t.status = 'running' then t.status else 'cancelled' end,
       finished_at = case when t.status = 'running' then null else now() end
     where t.id = any($1::uuid[]) and t.status not in ('succeeded', 'dead', 'cancelled')
     returning t.id, t.status, t.parent_id as "parentId", t.children_total > 0 as parent,
       t.children_total > 0 and t.exchange is not null as "fanOut"`,
    [ids],
  )
  // Those that were not published yet are over at once; the others are when their children are.
  await tellCompletions(
    tx,
    rows.filter((row) => row.fanOut && isFinal(row.status)).map(({ id }) => id),
  )
  await settleParents(tx, endsOf(rows))
  return rows
}

/**
 * Children that wait for their parent's publish to bring them: they must end with it, as nothing else would come for them if
 * this process ended in between.
 */
async function broughtAlong(tx: PoolClient, parents: string[]): Promise<string[]> {
  const { rows } = await tx.query<{ id: string }>(
    `${childrenWhere('t.id', WAITS_FOR_COPY)}
     where exists (select from tasks o where o.id = p.id and o.status not in ('succeeded', 'dead', 'cancelled'))`,
    [parents],
  )
  return rows.map(({ id }) => id)
}

/** How many waiting tasks one transaction cancels. */
const WAITING_A_BATCH = 2_000

/** Cancels everything of a queue that no worker has at the time of the call, in Postgres or in the broker; gives the number. */
export async function cancelWaiting(pool: Pool, queue: string, changed?: Changed): Promise<number> {
  const { rows: clock } = await pool.query<{ now: string }>('select clock_timestamp()::text as now')
  for (let total = 0; ; ) {
    const { rows } = await pool.query<{ id: string }>(
      // Each half has an index.
      `(select id from tasks
         where queue = $1 and status in ('pending', 'retrying') and created_at <= $2::timestamptz limit $3)
       union all
       (select id from tasks where queue = $1 and status = 'queued' and created_at <= $2::timestamptz limit $3)
       limit $3`,
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
