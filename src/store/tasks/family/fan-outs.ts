import type { Pool, PoolClient } from 'pg'
import { PRIORITIES } from '../../../task/limits.ts'
import { isFinal, type Status } from '../../../task/status.ts'
import type { QueuedTask } from '../../../task/task.ts'
import { exchangeOfLine, lineOf } from '../../../task/topology/exchange.ts'
import { inTransaction, prepared, type Queryable, repeated } from '../../database/statement.ts'
import { appendedAttempt } from '../attempts.ts'
import { lineText } from '../claim/claim.ts'
import { exchangeVersion } from '../insert/exchange-rows.ts'
import { COMPLETIONS, tellCompletions } from './completions.ts'
import { childrenWhere, IS_QUEUED, WAITS_FOR_COPY } from './copies.ts'
import { type ChildChange, endsOf, lockFamilies, settleParents } from './parents.ts'

/*
 * A fan-out that travels through RabbitMQ (PROTOCOL 21): the parent waits in its exchange's line, pending; while one node
 * publishes it, it is queued, with that node and publish number; when that is confirmed it is sealed, and runs until its
 * children are final. A child is queued all the while, without a publisher of its own: its queue's copy of the parent's
 * message takes it.
 */

/** A parent to be published to its exchange. */
export interface FanOut extends QueuedTask {
  exchange: string
  routingKey: string
  /** Its children that wait for a copy. */
  copies: { id: string; queue: string }[]
}

export interface FanOutClaim {
  exchange: string
  node: string
  /** The node's number of the publish that follows; the same again gives the same parents. */
  publishNo: number
  limit: number
}

/** Takes up to `limit` due parents of an exchange for a publish of `node`: pending becomes queued. Highest priority first, then oldest due. */
export async function claimFanOuts(pool: Pool, claim: FanOutClaim): Promise<FanOut[]> {
  const { exchange, node, publishNo, limit } = claim
  const values = [lineOf(exchange), node, publishNo, limit]
  const rows = await inTransaction(pool, async (tx) => {
    // One whose answer was lost may still be committing: it holds this until what it took can be seen.
    await prepared(tx, 'await-fan-out-claim', 'select pg_advisory_xact_lock(hashtextextended($1, 0))', [
      `${node} ${exchange}`,
    ])
    return prepared<FanOut & { due: string }>(tx, 'claim-fan-outs', CLAIM_FAN_OUTS, values)
  })
  rows.sort((a, b) => b.priority - a.priority || Number(a.due) - Number(b.due) || (a.id < b.id ? -1 : 1))
  return rows.map(({ due: _, ...row }) => row)
}

export const CLAIM_FAN_OUTS = `
  with mine as (
    select t.id from tasks t
    where t.queue = $1 and t.status = 'queued' and t.publisher = $2::uuid and t.publish_no = $3::bigint
  ), due as (
    select line.id
    from generate_series(${PRIORITIES - 1}, 0, -1) as p(priority)
      cross join lateral (${lineText('$4')}) line
    where not exists (select from mine)
    limit $4
  )
  update tasks p
  set status = 'queued', publisher = $2::uuid, publish_no = $3::bigint
  from (select id from mine union all select id from due) taken
  where p.id = taken.id
  returning p.id, p.queue, p.type, p.payload, p.priority, p.attempt + 1 as attempt,
    p.created_at as "createdAt", p.traceparent, p.exchange, p.routing_key as "routingKey",
    case when p.origin <> 'message' then p.message -> 'headers' end as headers,
    extract(epoch from p.due_at)::text as due, (
      select coalesce(jsonb_agg(jsonb_build_object('id', t.id, 'queue', t.queue)), '[]')
      from tasks t where t.parent_id = p.id and ${WAITS_FOR_COPY}
    ) as copies`

/** Parents whose publish came to nothing, or may have: they wait again. Only those that are still with that node. */
export async function returnFanOuts(pool: Pool, node: string, ids: string[]): Promise<void> {
  await repeated(() =>
    prepared(
      pool,
      'return-fan-outs',
      `with lost as (
         select t.id from tasks t where t.id = any($1::uuid[]) and ${IS_QUEUED} and t.publisher = $2 order by t.id desc for update
       )
       update tasks t set status = 'pending', publisher = null, publish_no = null from lost where t.id = lost.id`,
      [ids, node],
    ),
  )
}

/**
 * Children whose copies will not come go to their queues by themselves; gives those queues. What was taken or sent
 * meanwhile is left alone.
 */
export async function releaseCopies(tx: Queryable, ids: string[]): Promise<string[]> {
  const rows = await prepared<{ queue: string }>(
    tx,
    'release-copies',
    `with released as (
       select t.id from tasks t where t.id = any($1::uuid[]) and ${WAITS_FOR_COPY} order by t.id desc for update
     )
     update tasks t set status = 'pending' from released where t.id = released.id
     returning t.queue`,
    [ids],
  )
  return [...new Set(rows.map(({ queue }) => queue))]
}

export interface Published {
  node: string
  exchange: string
  ids: string[]
  /** The exchange's version when it was looked where the copies go; undefined: no copy came anywhere. */
  version: string | undefined
}

/**
 * Parents whose publish is confirmed are sealed: they wait for their children from now on. When a binding went since
 * `version`, nobody knows which queues got their copy: then those children that still wait for one are released. Gives the
 * queues that have work. Only parents that are still with that node.
 */
export async function sealPublished(pool: Pool, { node, exchange, ids, version }: Published): Promise<string[]> {
  const [look] = await prepared<{ plain: boolean }>(
    pool,
    'look-at-published',
    `select not exists (select from queues where settlement = 'confirm' or report_within_ms is not null)
       and not exists (select from tasks where id = any($1::uuid[]) and parent_id is not null)
       and not exists (select from settings where name = '${COMPLETIONS}' and value ? $2) as plain`,
    [ids, exchange],
  )
  const sure = version !== undefined && (await exchangeVersion(pool, exchange)) === version
  if (sure && look?.plain) {
    await repeated(() => prepared(pool, 'seal-published', SEAL_PUBLISHED, [ids, node]))
    return []
  }
  return inTransaction(pool, async (tx) => {
    const copies = await lockedCopies(tx, ids)
    const sealed = await prepared<Sealed>(tx, 'seal-published', SEAL_PUBLISHED, [ids, node])
    const own = new Set(sealed.map(({ id }) => id))
    const waiting = copies.filter(({ parentId }) => own.has(parentId)).map(({ id }) => id)
    const queues = sure ? [] : await releaseCopies(tx, waiting)
    const settled = sure ? await settleCopies(tx, waiting) : []
    await tellSealed(tx, sealed)
    await settleParents(tx, [...endsOf(sealed), ...settled])
    return queues
  })
}

/**
 * Parents that are not to be published (no broker beside the process, or their exchange is gone) are sealed as they are,
 * up to `limit` of an exchange, and their children wait in their queues. Gives the queues that have work, and whether
 * there may be more.
 */
export function openFanOuts(pool: Pool, exchange: string, limit: number): Promise<{ queues: string[]; more: boolean }> {
  return inTransaction(pool, async (tx) => {
    const rows = await prepared<{ id: string }>(
      tx,
      'unpublished-fan-outs',
      `select id from tasks where queue = $1 and status in ('pending', 'queued', 'retrying') order by id desc limit $2`,
      [lineOf(exchange), limit],
    )
    const ids = rows.map(({ id }) => id)
    if (ids.length === 0) return { queues: [], more: false }
    const copies = await lockedCopies(tx, ids)
    const queues = await releaseCopies(
      tx,
      copies.map(({ id }) => id),
    )
    const sealed = await prepared<Sealed>(tx, 'seal-unpublished', SEAL_UNPUBLISHED, [ids])
    await tellSealed(tx, sealed)
    await settleParents(tx, endsOf(sealed))
    return { queues, more: ids.length === limit }
  })
}

/** The children of these parents that wait for copies; all their families are locked from here on. */
async function lockedCopies(tx: PoolClient, parents: string[]): Promise<{ id: string; parentId: string }[]> {
  const copies = await prepared<{ id: string; parentId: string }>(
    tx,
    'copies-of',
    childrenWhere('t.id, t.parent_id as "parentId"', WAITS_FOR_COPY),
    [parents],
  )
  await lockFamilies(tx, [...parents, ...copies.map(({ id }) => id)])
  return copies
}

interface Sealed {
  id: string
  parentId: string | null
  status: Status
}

/** Their children had all ended before. */
function tellSealed(tx: PoolClient, sealed: Sealed[]): Promise<void> {
  return tellCompletions(
    tx,
    sealed.filter(({ status }) => isFinal(status)).map(({ id }) => id),
  )
}

/** As SETTLE seals a task whose own work succeeded: its children may have ended before. */
const sealWhere = (fence: string) => `
  with unsealed as (
    select t.id from tasks t where t.id = any($1::uuid[]) and ${fence} order by t.id desc for update
  )
  update tasks t
  set sealed = true, publisher = null, publish_no = null, node = null, started_at = coalesce(t.started_at, now()),
    status = case
      when t.children_succeeded + t.children_dead < t.children_total then 'running'
      when t.children_dead = 0 then 'succeeded'
      when t.cancel_requested then 'cancelled'
      else 'dead' end::task_status,
    finished_at = case when t.children_succeeded + t.children_dead >= t.children_total then now() end,
    error = case
      when t.children_dead > 0 and t.children_succeeded + t.children_dead >= t.children_total
        then t.children_dead || ' of ' || t.children_total || ' children did not succeed'
      end
  from unsealed where t.id = unsealed.id
  returning t.id, t.parent_id as "parentId", t.status`

export const SEAL_PUBLISHED = sealWhere(`${IS_QUEUED} and t.publisher = $2::uuid`)
const SEAL_UNPUBLISHED = sealWhere(`t.status::text in ('pending', 'queued', 'retrying')`)

/**
 * What the confirm means for children on queues with rules of their own: `settlement: confirm` ends them (PROTOCOL 19), and
 * `reportWithin` is counted from it (PROTOCOL 18). Gives the ends.
 */
async function settleCopies(tx: PoolClient, ids: string[]): Promise<ChildChange[]> {
  if (ids.length === 0) return []
  await prepared(
    tx,
    'await-reports',
    `update tasks t set report_by = now() + q.report_within_ms * interval '1 ms'
     from queues q where q.name = t.queue and q.report_within_ms is not null and t.id = any($1::uuid[]) and ${WAITS_FOR_COPY}`,
    [ids],
  )
  const ended = await prepared<{ parentId: string }>(
    tx,
    'confirm-copies',
    `update tasks t
     set status = 'succeeded', attempt = t.attempt + 1, started_at = now(), finished_at = now(), error = null, report_by = null,
       attempts = ${appendedAttempt({ number: 't.attempt + 1', node: 'null', outcome: "'succeeded'", error: 'null' })}
     from queues q
     where q.name = t.queue and q.settlement = 'confirm' and t.id = any($1::uuid[]) and ${WAITS_FOR_COPY}
     returning t.parent_id as "parentId"`,
    [ids],
  )
  return ended.map(({ parentId }) => ({ parentId, status: 'succeeded', by: 1 }))
}

/** An exchange that has parents to be published. */
export interface FanOutLine {
  exchange: string
  /** False: its row is gone, and nothing can be published to it. */
  known: boolean
  /** Milliseconds until the first is due; 0 when overdue. */
  ms: number
}

/** Which exchanges have parents that wait and are due within `withinMs`. */
export async function fanOutLines(pool: Pool, withinMs: number): Promise<FanOutLine[]> {
  const rows = await prepared<{ line: string; known: boolean; ms: number }>(pool, 'fan-out-lines', FAN_OUT_LINES, [
    withinMs,
    lineOf(''),
  ])
  return rows.map(({ line, ...row }) => ({ exchange: exchangeOfLine(line) ?? '', ...row }))
}

/** Goes from line to line by the index that has them in order, as lines of exchanges that are gone stand in no other table. */
export const FAN_OUT_LINES = `
  with recursive waiting (line) as (
    (select t.queue from tasks t where t.status in ('pending', 'retrying') order by t.queue limit 1)
    union all
    select (
      select t.queue from tasks t
      where t.status in ('pending', 'retrying') and t.queue > w.line order by t.queue limit 1
    )
    from waiting w where w.line is not null
  )
  select w.line, exists (select from exchanges x where $2 || x.name = w.line) as known,
    greatest(0, ceil(extract(epoch from min(first.due_at) - now()) * 1000))::float8 as ms
  from waiting w
    cross join generate_series(0, ${PRIORITIES - 1}) as p(priority)
    cross join lateral (
      select t.due_at from tasks t
      where t.queue = w.line and t.priority = p.priority and t.status in ('pending', 'retrying')
        and t.due_at <= now() + $1 * interval '1 ms'
      order by t.due_at limit 1
    ) first
  where starts_with(w.line, $2)
  group by w.line`
