import type { Pool } from 'pg'
import type { Stray } from '../../../task/ledger.ts'
import { LIMITS, legible } from '../../../task/limits.ts'
import { inTransaction, prepared, type Queryable } from '../../database/statement.ts'
import { NO_MESSAGE } from '../at-broker/late-messages.ts'
import { appendedAttempt } from '../attempts.ts'
import { adoptStrays } from '../claim/adopt.ts'
import { IS_COPY } from '../family/copies.ts'
import { endsOf, lockFamilies, settleParents } from '../family/parents.ts'
import { endRejected } from '../foreign-report.ts'

/** A message that the broker took out of its queue, and why. */
export interface DeadDelivery {
  /** The attempt of a task, a fan-out's copy, or somebody else's message. */
  of: { kind: 'task'; id: string; attempt: number } | { kind: 'copy'; parentId: string } | { kind: 'foreign' }
  /** The queue that it was in. */
  queue: string
  /** `rejected`: its task is dead. `lost`: the broker dropped it unread, its task is sent again. */
  end: 'rejected' | 'lost'
  /** For people. */
  reason: string
  /** What it becomes when no task is known for it. */
  stray: Stray
}

interface Row {
  id: string
  parentId: string | null
  status: 'dead' | 'pending'
  queue: string
}

/**
 * Judges messages from dead-letter queues (PROTOCOL 15, decision 13): a task that is still queued for the very attempt in the
 * message is dead (rejected) or sent again (lost), and one whose attempt a foreign consumer began is dead when that rejects
 * it; one that has gone on meanwhile is left alone; a message of no known task becomes a dead letter with its bytes. Gives the
 * queues that have work again.
 */
export async function judgeDeadDeliveries(
  pool: Pool,
  node: string,
  deliveries: DeadDelivery[],
): Promise<{ queues: string[]; touched: string[] }> {
  return inTransaction(pool, async (tx) => {
    const known = await knownTasks(tx, deliveries)
    const strays = deliveries.filter((one) => !known.has(one))
    for (const [queue, group] of Map.groupBy(strays, (one) => one.queue)) {
      const dead = group.map((one) => ({ kind: 'unreadable' as const, reason: one.reason, ...one.stray }))
      await adoptStrays(tx, { node, queue, claimId: node }, dead)
    }
    const found = [...known.entries()].sort(([, a], [, b]) => (a.id < b.id ? 1 : -1))
    if (found.length === 0) return { queues: [], touched: strays.map(({ stray }) => stray.id) }
    await lockFamilies(
      tx,
      found.map(([, { id }]) => id),
    )
    const judged = found.map(([{ end, reason }, of]) => ({ ...of, end, reason: legible(reason, LIMITS.errorBytes) }))
    const rows = await prepared<Row>(tx, 'judge-dead', JUDGE, [
      judged.map(({ id }) => id),
      judged.map(({ attempt }) => attempt),
      judged.map(({ end }) => end),
      judged.map(({ reason }) => reason),
    ])
    const ended = await endRejected(
      tx,
      judged.filter(({ end }) => end === 'rejected'),
    )
    await settleParents(tx, endsOf(rows))
    return {
      queues: [...new Set(rows.filter(({ status }) => status === 'pending').map(({ queue }) => queue))],
      touched: [...rows.map(({ id }) => id), ...ended, ...strays.map(({ stray }) => stray.id)],
    }
  })
}

interface Named {
  id: string
  parentId: string | null
  queue: string
  /** It travels through an exchange: what another queue has of it is a child. */
  addressed: boolean
  copy: boolean
}

/** The task that each delivery is of, and the attempt that it would have begun. */
async function knownTasks(
  tx: Queryable,
  deliveries: DeadDelivery[],
): Promise<Map<DeadDelivery, { id: string; attempt: number }>> {
  const ids = deliveries.flatMap(({ of }) => (of.kind === 'task' ? [of.id] : []))
  const parents = deliveries.flatMap(({ of }) => (of.kind === 'copy' ? [of.parentId] : []))
  const rows = await prepared<Named>(
    tx,
    'known-of-dead',
    `select t.id, t.parent_id as "parentId", t.queue, t.exchange is not null as addressed, ${IS_COPY} as copy from tasks t
     where t.id = any($1::uuid[]) or (t.parent_id = any($2::uuid[]) and ${IS_COPY})`,
    [ids, [...ids, ...parents]],
  )
  const byId = new Map(rows.map((row) => [row.id, row]))
  const copies = new Map(rows.flatMap((row) => (row.copy ? [[`${row.parentId} ${row.queue}`, row]] : [])))
  const known = new Map<DeadDelivery, { id: string; attempt: number }>()
  for (const delivery of deliveries) {
    const { of, queue } = delivery
    if (of.kind === 'foreign') continue
    const task = of.kind === 'task' ? byId.get(of.id) : undefined
    const copy = copies.get(`${of.kind === 'task' ? of.id : of.parentId} ${queue}`)
    if (of.kind === 'task' && task && !(task.addressed && task.queue !== queue)) known.set(delivery, of)
    else if (copy) known.set(delivery, { id: copy.id, attempt: 1 })
  }
  return known
}

const DEAD = `(d.ending = 'rejected' or t.lost_starts + 1 >= ${LIMITS.lostStarts})`

/** A rejection is a failure for good; a loss spends a number and no failure, and ends the task when it repeats. */
const JUDGE = `
  update tasks t
  set status = case when ${DEAD} then 'dead'::task_status else 'pending' end,
    attempt = d.attempt, failures = t.failures + case when d.ending = 'rejected' then 1 else 0 end,
    lost_starts = case when d.ending = 'rejected' then 0 else t.lost_starts + 1 end,
    error = d.reason, report_by = null, ${NO_MESSAGE},
    due_at = case when ${DEAD} then t.due_at else now() end,
    finished_at = case when ${DEAD} then now() end,
    attempts = ${appendedAttempt({ number: 'd.attempt', node: 'null', outcome: "case when d.ending = 'rejected' then 'failed' else 'lost' end", error: 'd.reason' })}
  from unnest($1::uuid[], $2::int[], $3::text[], $4::text[]) as d(id, attempt, ending, reason)
  where t.id = d.id and t.status = 'queued' and t.attempt = d.attempt - 1
  returning t.id, t.parent_id as "parentId", t.status, t.queue`
