import type { Pool } from 'pg'
import { PRIORITIES } from '../../../task/limits.ts'
import type { QueuedTask } from '../../../task/task.ts'
import type { DispatchOrder } from '../../../task/topology/queue.ts'
import { inTransaction, prepared, repeated } from '../../database/statement.ts'
import { NO_MESSAGE } from '../at-broker/late-messages.ts'
import { appendedAttempt } from '../attempts.ts'
import { lockFamilies, settleParents } from '../family/parents.ts'
import { lineText, shuffledLine } from './claim.ts'

/** Also a claim that can be repeated: what it took is told by its publisher and publish number. */
export interface BrokerClaim {
  queue: string
  node: string
  /** New for every claim of this node, and rising. */
  publishNo: number
  limit: number
  /** How many tasks of the queue may be queued at once. */
  window: number
  order: DispatchOrder
  /** What still has to go through these exchanges is passed over. */
  notThrough?: string[] | undefined
}

export interface BrokerClaimed {
  tasks: QueuedTask[]
  /** The window, not the line, ended it. */
  full: boolean
}

const QUEUED_COLUMNS = `t.id, t.queue, t.type, t.payload, t.priority, t.attempt + 1 as attempt,
  t.created_at as "createdAt", t.traceparent, t.exchange, t.routing_key as "routingKey",
  case when t.origin <> 'message' then t.message -> 'headers' end as headers`

/**
 * Takes due tasks of an unpaused queue for the broker: pending or retrying becomes queued, highest priority first, then
 * oldest due, as many as its window still takes. One dispatcher a queue at a time: while another one has the queue's
 * row, nothing is taken (PROTOCOL 10). What an exchange brings to the queue is outside of its window.
 */
export async function claimForBroker(pool: Pool, claim: BrokerClaim): Promise<BrokerClaimed> {
  const { queue, node, publishNo, limit, window, order, notThrough = [] } = claim
  const part = notThrough.length > 0 ? 'part' : 'whole'
  const rows = await repeated(() =>
    prepared<QueuedTask & { id: string | null; room: number; due: number }>(
      pool,
      `claim-for-broker-${order}-${part}`,
      CLAIM_FOR_BROKER[order][part],
      [queue, node, publishNo, limit, window, ...(part === 'part' ? [notThrough] : [])],
    ),
  )
  const room = rows[0]?.room ?? limit
  const tasks = rows.filter((row) => row.id !== null)
  tasks.sort((a, b) => b.priority - a.priority || a.due - b.due || (a.id < b.id ? -1 : 1))
  return {
    tasks: tasks.map(({ room: _, due: __, ...task }) => task),
    full: room < limit && tasks.length === room,
  }
}

const claimText = (found: string) => `
  with line as (
    select q.name, q.report_within_ms from queues q where q.name = $1 and not q.paused and q.conflict is null
      -- Not when this comes late, after its number was given up.
      and exists (select from nodes n where n.id = $2 and n.confirmed < $3)
    for update skip locked
  ), room as (
    select least($4, greatest(0, $5 - (
      select count(*) from (
        select from tasks t where t.queue = $1 and t.status = 'queued' and t.publisher is not null limit $5) out)))::int as room
    from line
  ), due as (
    select found.id from line
      cross join generate_series(${PRIORITIES - 1}, 0, -1) as p(priority)
      cross join lateral (${found}) found
    limit (select room from room)
  ), queued as (
    update tasks t
    set status = 'queued', publisher = $2, publish_no = $3,
      report_by = now() + line.report_within_ms * interval '1 ms'
    from due, line
    where t.id = due.id
    returning ${QUEUED_COLUMNS}, extract(epoch from t.due_at)::float8 as due
  )
  select room.room, queued.* from room left join queued on true`

/** Retries go to their queue by themselves. */
const NOT_THROUGH = 'and (t.exchange is null or t.attempt > 0 or t.exchange <> all($6::text[]))'
const ROOM = '(select room from room)'

export const CLAIM_FOR_BROKER = {
  due: { whole: claimText(lineText(ROOM)), part: claimText(lineText(ROOM, NOT_THROUGH)) },
  random: { whole: claimText(shuffledLine()), part: claimText(shuffledLine(NOT_THROUGH)) },
} satisfies Record<DispatchOrder, Record<'whole' | 'part', string>>

const CLAIMED_FOR_BROKER = `
  select ${QUEUED_COLUMNS} from tasks t
  where t.status = 'queued' and t.queue = $1 and t.publisher = $2 and t.publish_no = $3
  order by t.priority desc, t.due_at, t.id`

/**
 * What the claim took and the broker has not been told of, for a node that lost the answer. Waits for a claim that is still
 * committing: nobody would publish what it takes after this look.
 */
export async function claimedForBroker(pool: Pool, claim: BrokerClaim): Promise<BrokerClaimed | undefined> {
  const tasks = await inTransaction(pool, async (tx) => {
    // The claim holds the queue's row until what it took can be seen.
    await prepared(tx, 'await-claim', 'select from queues where name = $1 for update', [claim.queue])
    return prepared<QueuedTask>(tx, 'claimed-for-broker', CLAIMED_FOR_BROKER, [
      claim.queue,
      claim.node,
      claim.publishNo,
    ])
  })
  return tasks.length > 0 ? { tasks, full: false } : undefined
}

/**
 * Ends tasks that the broker has taken, on queues whose tasks are done with that (PROTOCOL 19): while they are still
 * queued by this very publish. Their attempt is the broker's.
 */
export async function finishConfirmed(pool: Pool, node: string, publishNo: number, ids: string[]): Promise<void> {
  if (ids.length === 0) return
  await inTransaction(pool, async (tx) => {
    await lockFamilies(tx, ids)
    const rows = await prepared<{ parentId: string | null }>(tx, 'finish-confirmed', FINISH_CONFIRMED, [
      ids,
      node,
      publishNo,
    ])
    await settleParents(
      tx,
      rows.map(({ parentId }) => ({ parentId, status: 'succeeded', by: 1 })),
    )
  })
}

const FINISH_CONFIRMED = `
  update tasks t
  set status = 'succeeded', attempt = t.attempt + 1, started_at = now(), finished_at = now(), error = null, report_by = null,
    ${NO_MESSAGE},
    attempts = ${appendedAttempt({ number: 't.attempt + 1', node: 'null', outcome: "'succeeded'", error: 'null' })}
  where t.id = any($1::uuid[]) and t.status = 'queued' and t.publisher = $2 and t.publish_no = $3
  returning t.parent_id as "parentId"`
