import type { Claim, ClaimAnswer, DeliveryClaim, Stray } from '../../../task/ledger.ts'
import { LIMITS, legible } from '../../../task/limits.ts'
import type { ClaimedTask } from '../../../task/task.ts'
import { prepared, type Queryable } from '../../database/statement.ts'
import { messageText } from '../dead-letters/unreadable.ts'
import { CLAIMED_COLUMNS } from './claim.ts'

/**
 * Makes tasks of messages that came from elsewhere (PROTOCOL 17): a readable one runs on `node` at once, one that cannot be
 * worked on is a dead letter. A message whose task exists is a redelivery: a duplicate, unless this very claim took it.
 */
export async function adoptStrays(
  tx: Queryable,
  claim: Pick<Claim, 'node' | 'queue' | 'claimId'>,
  deliveries: DeliveryClaim[],
): Promise<Map<DeliveryClaim, ClaimAnswer>> {
  const answers = new Map<DeliveryClaim, ClaimAnswer>()
  // Newest first, as tasks are locked everywhere; a message that is twice in the batch is adopted once.
  const strays = new Map(deliveries.flatMap((one) => ('message' in one ? [[one.id, one] as const] : [])))
  const sorted = [...strays.values()].sort((a, b) => (a.id < b.id ? 1 : -1))
  if (sorted.length === 0) return answers
  const reasons = sorted.map((one) => (one.kind === 'unreadable' ? legible(one.reason, LIMITS.errorBytes) : null))
  await prepared(tx, 'adopt', ADOPT, [...strayValues(sorted), reasons, claim.queue, claim.node, claim.claimId])
  const rows = await prepared<ClaimedTask & { mine: boolean }>(
    tx,
    'adopted',
    `select ${CLAIMED_COLUMNS}, t.status = 'running' and t.node = $2 and t.claim_id = $3 as mine
     from tasks t where t.id = any($1::uuid[])`,
    [sorted.map(({ id }) => id), claim.node, claim.claimId],
  )
  const found = new Map(rows.map((row) => [row.id, row]))
  for (const delivery of sorted) {
    const row = found.get(delivery.id)
    if (delivery.kind === 'unreadable') answers.set(delivery, { kind: 'dead' })
    else if (row?.mine) {
      const { mine: _, ...task } = row
      answers.set(delivery, { kind: 'claimed', task })
    }
  }
  return answers
}

function strayValues(strays: Stray[]): unknown[] {
  return [
    strays.map(({ id }) => id),
    strays.map(({ type }) => type),
    strays.map(({ payload }) => payload),
    strays.map(({ priority }) => priority),
    strays.map(({ traceparent }) => traceparent),
    strays.map(({ message }) => messageText(message)),
  ]
}

/** Counted as accepted in the same statement: the message is the ledger's from here on. */
const ADOPT = `
  with adopted as (
    insert into tasks (id, queue, type, payload, priority, due_at, max_attempts, origin, traceparent, message,
      status, attempt, failures, node, claim_id, started_at, finished_at, error)
    select s.id, $8, s.type, s.payload::json, s.priority, now(), coalesce((q.retry ->> 'maxAttempts')::int, 1), 'message', s.traceparent,
      s.message::json, case when s.reason is null then 'running'::task_status else 'dead' end,
      case when s.reason is null then 1 else 0 end, 0, case when s.reason is null then $9::uuid end, $10::uuid, now(),
      case when s.reason is null then null else now() end, s.reason
    from unnest($1::uuid[], $2::text[], $3::text[], $4::smallint[], $5::text[], $6::text[], $7::text[])
        as s(id, type, payload, priority, traceparent, message, reason)
      left join queues q on q.name = $8
    on conflict (id) do nothing
    returning queue
  )
  insert into counters (node, queue, origin, accepted)
  select $9::uuid, queue, 'message', count(*) from adopted group by queue
  on conflict (node, queue, origin) do update set accepted = counters.accepted + excluded.accepted`
