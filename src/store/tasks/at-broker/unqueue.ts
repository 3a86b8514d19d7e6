import type { Pool } from 'pg'
import { type Queryable, repeated } from '../../database/statement.ts'

/** Which queued tasks are meant; all that is given must hold, and nothing given means every queued task. */
export interface QueuedTasks {
  queue?: string | undefined
  /** Handed out by this node. */
  publisher?: string | undefined
  /** By a publish of a higher number than this (PROTOCOL 11). */
  aboveNo?: number | undefined
}

export interface Returned {
  /** How many wait again. */
  count: number
  /** The queues that have work again. */
  queues: string[]
}

/** How many tasks one statement takes back. */
const BATCH = 2_000

/**
 * Tasks that were handed to the broker wait in Postgres again, with their attempt's number and their place in the line
 * (PROTOCOL 11). For messages that are lost, or may be: one that still comes finds its attempt taken or not yet queued,
 * and is a duplicate. Newest first, in batches that are committed one by one; `changed` is told of each. Every task is
 * looked at once: what is queued anew meanwhile does not keep this going. May be repeated.
 */
export async function returnQueued(
  pool: Pool,
  which: QueuedTasks,
  changed?: (ids: string[]) => void,
): Promise<Returned> {
  return returnAll((last) => repeated(() => returnBatch(pool, which, last)), changed)
}

/** As `returnQueued`, of every queued task, in the transaction `tx`. */
export function returnEveryQueued(tx: Queryable): Promise<Returned & { ids: string[] }> {
  const ids: string[] = []
  return returnAll(
    (last) => returnBatch(tx, {}, last),
    (batch) => ids.push(...batch),
  ).then((returned) => ({ ...returned, ids }))
}

interface Batch {
  rows: { id: string; queue: string }[]
  /** The last id that was looked at; undefined at the end. */
  last: string | undefined
}

async function returnAll(
  next: (last: string | undefined) => Promise<Batch>,
  changed?: (ids: string[]) => void,
): Promise<Returned> {
  const queues = new Set<string>()
  let count = 0
  for (let last: string | undefined; ; ) {
    const batch = await next(last)
    count += batch.rows.length
    for (const { queue } of batch.rows) queues.add(queue)
    if (batch.rows.length > 0) changed?.(batch.rows.map(({ id }) => id))
    if (batch.last === undefined) return { count, queues: [...queues] }
    last = batch.last
  }
}

const WHICH = `t.status = 'queued' and ($1::text is null or t.queue = $1) and ($2::uuid is null or t.publisher = $2)
  and ($3::bigint is null or t.publish_no > $3)`

async function returnBatch(
  tx: Queryable,
  { queue = null, publisher = null, aboveNo = null }: { [F in keyof QueuedTasks]: QueuedTasks[F] | null },
  after: string | undefined,
): Promise<Batch> {
  const which = [queue, publisher, aboveNo]
  const { rows: found } = await tx.query<{ id: string }>(
    `select t.id from tasks t where ${WHICH} and ($4::uuid is null or t.id < $4) order by t.id desc limit $5`,
    [...which, after ?? null, BATCH],
  )
  if (found.length === 0) return { rows: [], last: undefined }
  // Looked at once more under its lock: a delivery may have been claimed since.
  const { rows } = await tx.query<{ id: string; queue: string }>(
    `with lost as (
       select t.id from tasks t where t.id = any($4::uuid[]) and ${WHICH} order by t.id desc for update
     )
     update tasks t set status = 'pending', publisher = null, publish_no = null, report_by = null
     from lost where t.id = lost.id
     returning t.id, t.queue`,
    [...which, found.map(({ id }) => id)],
  )
  return { rows, last: found.length < BATCH ? undefined : found.at(-1)?.id }
}
