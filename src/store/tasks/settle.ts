import type { Pool, PoolClient } from 'pg'
import type { Settled, Settlement } from '../../task/ledger.ts'
import type { RetryPolicy } from '../../task/retry-policy.ts'
import { isFinal, type Status } from '../../task/status.ts'
import { transition } from '../../task/transition.ts'
import { inTransaction, prepared, type Queryable, repeated } from '../database/statement.ts'
import { appendedAttempt } from './attempts.ts'
import { lockFamilies, settleParents } from './family/parents.ts'

interface SettledRow {
  id: string
  attempt: number
  status: Status
}

/**
 * Ends attempts of `node`, in one statement: each only while it is still that node's (PROTOCOL 4). Answers in the order
 * of `settlements`. A settlement that comes too late writes nothing.
 */
export async function settleTasks(
  pool: Pool,
  node: string,
  settlements: Settlement[],
  retryOf: (queue: string) => RetryPolicy,
): Promise<Settled[]> {
  const end = (tx: Queryable) => endAttempts(tx, { name: 'settle', text: SETTLE, fence: node }, settlements, retryOf)
  // Children's ends go on to their parents in the same transaction; without children one statement is the transaction.
  if (settlements.every(({ parentId }) => parentId === null)) return repeated(() => end(pool))
  return inTransaction(pool, async (tx) => {
    await lockFamilies(
      tx,
      settlements.map(({ id }) => id),
    )
    const settled = await end(tx)
    await settleParentsOf(tx, settlements, settled)
    return settled
  })
}

/** Ends attempts that foreign consumers among `owners` hold, like `settleTasks`, in the transaction `tx`. */
export async function settleForeign(
  tx: PoolClient,
  owners: string[],
  settlements: Settlement[],
  retryOf: (queue: string) => RetryPolicy,
): Promise<Settled[]> {
  const settled = await endAttempts(
    tx,
    { name: 'settle-foreign', text: SETTLE_FOREIGN, fence: owners },
    settlements,
    retryOf,
  )
  await settleParentsOf(tx, settlements, settled)
  return settled
}

async function endAttempts(
  tx: Queryable,
  statement: { name: string; text: string; fence: string | string[] },
  settlements: Settlement[],
  retryOf: (queue: string) => RetryPolicy,
): Promise<Settled[]> {
  // Newest first: the order in which tasks are locked everywhere (lockFamilies says why).
  const ends = settlements
    .map((settlement) => ({
      ...settlement,
      change: transition(settlement.standing, settlement.outcome, retryOf(settlement.queue), Math.random),
    }))
    .sort((a, b) => (a.id < b.id ? 1 : -1))
  const rows = await prepared<SettledRow>(tx, statement.name, statement.text, [
    ends.map(({ id }) => id),
    ends.map(({ attempt }) => attempt),
    ends.map(({ outcome }) => outcome.kind),
    ends.map(({ change }) => change.status),
    ends.map(({ change }) => change.failures),
    ends.map(({ change }) => change.lostStarts),
    ends.map(({ change }) => change.delayMs),
    // A loss spends no failure, but its attempt has something to say.
    ends.map(({ change, outcome }) => change.error ?? (outcome.kind === 'lost' ? outcome.error : null)),
    ends.map(({ outcome }) => (outcome.kind === 'succeeded' ? outcome.result : null)),
    ends.map(({ outcome }) => ('response' in outcome && outcome.response ? JSON.stringify(outcome.response) : null)),
    statement.fence,
  ])
  const settled = new Map(rows.map((row) => [`${row.id}/${row.attempt}`, row.status]))
  const delays = new Map(ends.map(({ id, attempt, change }) => [`${id}/${attempt}`, change.delayMs]))
  return settlements.map(({ id, attempt }) => {
    const key = `${id}/${attempt}`
    const status = settled.get(key)
    // Told twice in one batch, it ends once.
    settled.delete(key)
    return status === undefined ? { id, late: true } : { id, late: false, status, delayMs: delays.get(key) ?? 0 }
  })
}

function settleParentsOf(tx: PoolClient, settlements: Settlement[], settled: Settled[]): Promise<void> {
  return settleParents(
    tx,
    settled.flatMap((end, index) =>
      !end.late && isFinal(end.status)
        ? [{ parentId: settlements[index]?.parentId ?? null, status: end.status, by: 1 }]
        : [],
    ),
  )
}

const LIVE_CHILDREN = 't.children_succeeded + t.children_dead < t.children_total'

/**
 * A success whose children still live leaves its task running, sealed and on no node; a give-back leaves no trace in
 * the story but its number, and its place in the line; cancel wins over every outcome but success.
 */
const settleWhere = (holder: string, fence: string) => `
  update tasks t
  set status = case
      when s.outcome = 'succeeded' and ${LIVE_CHILDREN} then 'running'
      when s.outcome = 'succeeded' and t.children_dead = 0 then 'succeeded'
      when t.cancel_requested then 'cancelled'
      when s.outcome = 'succeeded' then 'dead'
      else s.status::task_status end,
    sealed = s.outcome = 'succeeded' and t.children_total > 0,
    node = case when s.outcome = 'succeeded' and ${LIVE_CHILDREN} then null else t.node end,
    foreign_owner = null, report_by = null,
    failures = s.failures, lost_starts = s.lost_starts,
    due_at = case when s.status in ('pending', 'retrying') and s.outcome <> 'returned'
      then now() + s.delay * interval '1 ms' else t.due_at end,
    error = case
      when s.outcome <> 'succeeded' then coalesce(s.error, t.error)
      when t.children_dead > 0 and not (${LIVE_CHILDREN})
        then t.children_dead || ' of ' || t.children_total || ' children did not succeed'
      end,
    result = s.result::json,
    finished_at = case
      when s.outcome = 'succeeded' and ${LIVE_CHILDREN} then null
      when s.status in ('succeeded', 'dead', 'cancelled') or t.cancel_requested then now() end,
    attempts = case when s.outcome = 'returned' then t.attempts else
      ${appendedAttempt({ number: 't.attempt', node: holder, outcome: 's.outcome', error: 's.error', response: 's.response' })} end
  from unnest($1::uuid[], $2::int[], $3::text[], $4::text[], $5::int[], $6::int[], $7::float8[], $8::text[], $9::text[],
    $10::text[]) as s(id, attempt, outcome, status, failures, lost_starts, delay, error, result, response)
  where t.id = s.id and t.attempt = s.attempt and ${fence}
  returning t.id, t.attempt, t.status`

/**
 * A late success is taken while the task still waits with that very attempt. As a `case`: were it an `or`, Postgres would hold it
 * against the condition of every index, which doubles the time of planning.
 */
export const SETTLE = settleWhere(
  't.node',
  `t.node = $11 and case
      when t.status = 'running' then true
      when s.outcome = 'succeeded' then t.status in ('pending', 'queued', 'retrying')
      else false end`,
)

const SETTLE_FOREIGN = settleWhere(
  `'foreign:' || t.foreign_owner`,
  `t.foreign_owner = any($11::text[]) and t.status = 'running'`,
)
