import type { Pool, PoolClient } from 'pg'
import { invalid } from '../../../runtime/errors.ts'
import type { Status } from '../../../task/status.ts'
import { lineOf } from '../../../task/topology/exchange.ts'
import { DEFAULT_QUEUE } from '../../../task/topology/queue.ts'
import { inTransaction } from '../../database/statement.ts'
import { childrenOf, lockFamilies, settleParents } from '../family/parents.ts'
import { appendedLine } from '../log-line.ts'
import { IS_UNREADABLE } from './unreadable.ts'

export interface Replayed {
  id: string
  /**
   * `unreadable`: it came as a message without a payload, and is to be mended first; `not-movable`: it cannot go to the queue
   * that was asked for. Both stay as they are.
   */
  outcome: 'replayed' | 'not-replayable' | 'unreadable' | 'not-movable' | 'unknown'
}

export interface ReplayOptions {
  /** They go there instead of their own; their children keep theirs. */
  queue?: string | undefined
  pace?: Pace | undefined
}

/** Tasks that are due one after another. */
export interface Pace {
  perSecond: number
  /** RFC 3339: the first one's time. */
  startAt: string
  /** How many went before; counted up by every replay. */
  sent: number
}

interface Row {
  id: string
  status: Status
  parentId: string | null
  sealed: boolean
  queue: string
  children: boolean
  movable: boolean
  unreadable: boolean
}

/**
 * Sends dead and cancelled tasks again: pending, due now or in their turn, failures forgotten; the attempt's number goes
 * on rising, and nothing of the story is lost. With a parent go its dead and cancelled children, in batches after it; a parent whose own work is done does not work
 * again, but reopens with the first of them. Gives the queues that have work again.
 */
export async function replayTasks(
  pool: Pool,
  ids: string[],
  changed?: (ids: string[]) => void,
  { queue, pace }: ReplayOptions = {},
): Promise<{ replayed: Replayed[]; queues: string[] }> {
  const sent = pace?.sent ?? 0
  const rows = await inTransaction(pool, (tx) => {
    // After a deadlock all of it is done once more.
    if (pace) pace.sent = sent
    return sendAgain(tx, ids, { queue, pace })
  })
  changed?.(rows.filter(isReplayable).map(({ id }) => id))
  const outcomes = new Map<string, Replayed['outcome']>()
  const own = rows.filter((row) => isReplayable(row) && !row.sealed)
  const reopened = new Set(own.map((row) => row.parentId))
  for (const row of rows) {
    const replayed = isReplayable(row) && (!row.sealed || reopened.has(row.id))
    outcomes.set(row.id, replayed ? 'replayed' : hindrance(row))
  }
  const queues = new Set(own.map((row) => queue ?? row.queue))
  for (const row of rows) {
    if (!isReplayable(row) || !row.children) continue
    for await (const children of childrenOf(pool, row.id, `t.status in ('dead', 'cancelled')`)) {
      const below = await replayTasks(pool, children, changed, { pace })
      if (below.replayed.some((child) => child.outcome === 'replayed')) outcomes.set(row.id, 'replayed')
      for (const queue of below.queues) queues.add(queue)
    }
  }
  return { replayed: ids.map((id) => ({ id, outcome: outcomes.get(id) ?? 'unknown' })), queues: [...queues] }
}

function isFinalForReplay({ status }: Row): boolean {
  return status === 'dead' || status === 'cancelled'
}

function isReplayable(row: Row): boolean {
  return isFinalForReplay(row) && row.movable && !row.unreadable
}

/** Why it was not sent again. */
function hindrance(row: Row): Replayed['outcome'] {
  if (!isFinalForReplay(row)) return 'not-replayable'
  if (row.unreadable) return 'unreadable'
  return row.movable ? 'not-replayable' : 'not-movable'
}

/**
 * Not to another queue: a parent whose own work is done (its children have queues of their own), what an exchange has
 * fanned out, and a task without a target to the queue that delivers to each task's own.
 */
const MOVABLE = `($2::text is null or t.queue = $2 or (not t.sealed and t.queue not like '${lineOf('%')}'
  and (t.target is not null or $2 <> $3)
  and not exists (select from tasks p where p.id = t.parent_id and p.exchange is not null)))`

/** The rows of `ids` as they were; those that can be are pending now, unless their own work is done. */
async function sendAgain(tx: PoolClient, ids: string[], { queue, pace }: ReplayOptions): Promise<Row[]> {
  if (queue !== undefined) await holdQueue(tx, queue)
  await lockFamilies(tx, ids)
  const { rows } = await tx.query<Row>(
    `select id, status, parent_id as "parentId", sealed, queue, children_dead > 0 as children, ${MOVABLE} as movable,
       ${IS_UNREADABLE} as unreadable
     from tasks t where id = any($1::uuid[])`,
    [ids, queue ?? null, DEFAULT_QUEUE],
  )
  const place = new Map(ids.map((id, index) => [id, index]))
  const replayable = rows.filter(isReplayable).sort((a, b) => (place.get(a.id) ?? 0) - (place.get(b.id) ?? 0))
  await tx.query(SEND_AGAIN, [
    replayable.map((row) => row.id),
    // A sealed parent takes no turn of its own.
    replayable.map(({ sealed }) => (pace && !sealed ? (pace.sent++ * 1000) / pace.perSecond : 0)),
    pace?.startAt ?? null,
    queue ?? null,
    queue === undefined ? null : `replayed to the queue "${queue}"; before in `,
  ])
  // Out of a final status: their parents reopen. A sealed parent moves by its children's change.
  await settleParents(
    tx,
    replayable.filter((row) => !row.sealed).map((row) => ({ parentId: row.parentId, status: row.status, by: -1 })),
  )
  return rows
}

/** An idempotency key belongs to its queue, an address leads to it: both stay behind. */
const SEND_AGAIN = `
  update tasks t
  set status = case when sealed then status else 'pending' end,
    due_at = case when sealed then due_at
      else greatest(now(), coalesce($3::timestamptz, now()) + r.delay * interval '1 ms') end,
    finished_at = case when sealed then finished_at end,
    failures = 0, lost_starts = 0, cancel_requested = false, report_by = null,
    queue = coalesce($4, t.queue),
    exchange = case when coalesce($4, t.queue) = t.queue then t.exchange end,
    routing_key = case when coalesce($4, t.queue) = t.queue then t.routing_key end,
    idempotency_key = case when coalesce($4, t.queue) = t.queue then t.idempotency_key end,
    fingerprint = case when coalesce($4, t.queue) = t.queue then t.fingerprint end,
    logs = case when coalesce($4, t.queue) = t.queue then t.logs
      else ${appendedLine(`$5::text || '"' || t.queue || '"' || coalesce(', idempotencyKey ' || t.idempotency_key, '')`)} end
  from unnest($1::uuid[], $2::float8[]) as r(id, delay)
  where t.id = r.id`

/** Keeps the queue until the transaction ends; the Problem `unknown-queue` when it is not there. */
async function holdQueue(tx: PoolClient, queue: string): Promise<void> {
  const { rowCount } = await tx.query('select from queues where name = $1 for key share', [queue])
  if (rowCount === 0) {
    const message = `there is no queue "${queue}"; make it first`
    throw invalid('/queue', message, 'unknown-queue')
  }
}

/** A pace that begins now. */
export async function startPace(pool: Pool, perSecond: number): Promise<Pace> {
  const { rows } = await pool.query<{ now: string }>('select now() as now')
  return { perSecond, startAt: rows[0]?.now ?? '', sent: 0 }
}
