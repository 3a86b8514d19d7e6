import { v7 as uuidv7 } from 'uuid'
import type { Claim, ClaimAnswer, DeliveryClaim } from '../../../task/ledger.ts'
import type { ClaimedTask } from '../../../task/task.ts'
import { prepared, type Queryable } from '../../database/statement.ts'
import { CLAIMED_COLUMNS, TAKE_QUEUED } from '../claim/claim.ts'
import { lockFamilies, settleParents } from './parents.ts'

type Copy = Extract<DeliveryClaim, { kind: 'copy' }>
type Answers = Map<DeliveryClaim, ClaimAnswer>

/** What a queue got of its parent, not what somebody submitted as a child of a task that was addressed to an exchange. */
export const IS_COPY = `t.exchange is null and t.routing_key is not null`

/**
 * For statements that name their rows by id or parent. Compared as text, so that no plan begins with the index of all that
 * is queued: by the statistics of a minute ago there was nothing in it, and a claim of 500 took seconds.
 */
export const IS_QUEUED = `t.status::text = 'queued'`

/** A child that its parent's message brings along: nothing but that message stands for it. */
export const WAITS_FOR_COPY = `${IS_QUEUED} and t.publisher is null and ${IS_COPY}`

/** SQL for the children `t` of the parents $1 that meet a condition: an index probe a parent, whatever the statistics say. */
export const childrenWhere = (columns: string, condition: string) => `
  select ${columns} from unnest($1::uuid[]) as p(id)
    cross join lateral (select * from tasks t where t.parent_id = p.id and ${condition} offset 0) t`

/**
 * Takes the children that copies of fanned-out tasks stand for: the child of (parent, queue), on its first attempt (its
 * retries come by the default exchange). Copies without a child are not in the answer.
 */
export async function claimCopies(tx: Queryable, claim: Claim, copies: Copy[]): Promise<Answers> {
  const answers: Answers = new Map()
  const parents = copies.map(({ parentId }) => parentId)
  await prepared(tx, 'claim-copies', CLAIM_COPIES, [parents, claim.queue, claim.node, claim.claimId])
  const rows = await prepared<ClaimedTask & { mine: boolean }>(tx, 'children-of-copies', CHILDREN_OF_COPIES, [
    [...new Set(parents)],
    claim.queue,
    claim.node,
    claim.claimId,
  ])
  const children = new Map(rows.map((row) => [row.parentId, row]))
  const answered = new Set<string>()
  for (const copy of copies) {
    const child = children.get(copy.parentId)
    if (!child) continue
    const { mine, ...task } = child
    // A second copy in the same batch is a redelivery.
    answers.set(copy, mine && !answered.has(task.id) ? { kind: 'claimed', task } : { kind: 'duplicate' })
    answered.add(task.id)
  }
  return answers
}

export const CLAIM_COPIES = `
  with found as materialized (${childrenWhere('t.id', `t.queue = $2 and ${IS_QUEUED} and t.attempt = 0 and ${IS_COPY}`)}),
  children as (
    select t.id from tasks t where t.id in (select id from found) and ${IS_QUEUED} and t.attempt = 0
    order by t.id desc for update
  )
  update tasks t
  set ${TAKE_QUEUED}
  from children c, queues q
  where t.id = c.id and q.name = t.queue`

const CHILDREN_OF_COPIES = childrenWhere(
  `${CLAIMED_COLUMNS}, t.status = 'running' and t.node = $3 and t.claim_id = $4 as mine`,
  `t.queue = $2 and ${IS_COPY}`,
)

/**
 * A binding that the broker has and the parent did not know when it was stored: its queue's copy becomes a child, and the
 * parent waits for it, too (PROTOCOL 21). Copies of a parent that is cancelled are done with; those of what the ledger does
 * not know, or knows as no task of an exchange, are `unknown`.
 */
export async function adoptCopies(tx: Queryable, claim: Claim, copies: Copy[]): Promise<Answers> {
  const answers: Answers = new Map()
  if (copies.length === 0) return answers
  const parents = [...new Set(copies.map(({ parentId }) => parentId))]
  await lockFamilies(tx, parents)
  await prepared(tx, 'adopt-copies', ADOPT_COPIES, [
    parents.map(() => uuidv7()),
    parents,
    claim.queue,
    claim.node,
    claim.claimId,
  ])
  // Nothing of theirs ended; a parent that was final before its new child reopens.
  await settleParents(
    tx,
    parents.map((parentId) => ({ parentId, status: 'succeeded', by: 0 })),
  )
  const known = await claimCopies(tx, claim, copies)
  const cancelled = await prepared<{ id: string }>(
    tx,
    'cancelled-parents',
    'select id from tasks where id = any($1::uuid[]) and exchange is not null and cancel_requested',
    [parents],
  )
  const over = new Set(cancelled.map(({ id }) => id))
  for (const copy of copies)
    answers.set(copy, known.get(copy) ?? { kind: over.has(copy.parentId) ? 'duplicate' : 'unknown' })
  return answers
}

/** A parent that had succeeded without children of its own has some to wait for now. */
const ADOPT_COPIES = `
  with adopted as (
    insert into tasks (id, queue, type, payload, target, priority, due_at, max_attempts, timeout_ms, parent_id, origin,
      traceparent, routing_key, message, status, attempt, node, claim_id, started_at)
    select n.id, $3, p.type, p.payload, p.target, p.priority, now(), (q.retry ->> 'maxAttempts')::int, p.timeout_ms, p.id,
      'child', p.traceparent, coalesce(p.routing_key, ''), p.message, 'running', 1, $4::uuid, $5::uuid, now()
    from unnest($1::uuid[], $2::uuid[]) as n(id, parent)
      join tasks p on p.id = n.parent and p.exchange is not null and not p.cancel_requested
      join queues q on q.name = $3
    where not exists (select from tasks t where t.parent_id = p.id and t.queue = $3 and ${IS_COPY})
    returning parent_id, queue
  ), counted as (
    insert into counters (node, queue, origin, accepted)
    select $4::uuid, queue, 'child', count(*) from adopted group by queue
    on conflict (node, queue, origin) do update set accepted = counters.accepted + excluded.accepted
  )
  update tasks p set children_total = p.children_total + 1, sealed = p.sealed or p.status = 'succeeded'
  from adopted a where p.id = a.parent_id`
