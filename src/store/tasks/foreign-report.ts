import type { Pool, PoolClient } from 'pg'
import type { Settlement } from '../../task/ledger.ts'
import type { Outcome } from '../../task/outcome.ts'
import { DEFAULT_RETRY_POLICY, type RetryPolicy } from '../../task/retry-policy.ts'
import { isFinal, type Status } from '../../task/status.ts'
import { attemptOf } from '../../task/task.ts'
import { exchangeOfLine } from '../../task/topology/exchange.ts'
import { inTransaction } from '../database/statement.ts'
import { NO_MESSAGE } from './at-broker/late-messages.ts'
import { IS_COPY } from './family/copies.ts'
import { lockFamilies } from './family/parents.ts'
import { settleForeign } from './settle.ts'

/** What a consumer that is not Longshore's says of a task. */
export interface ForeignReport {
  /** `running` takes ownership; `retrying` is a failure that may be tried again; `pending` gives the task back. */
  status: 'running' | 'pending' | 'retrying' | 'succeeded' | 'dead' | 'cancelled'
  attempt?: number | undefined
  /** Of a message that came through an exchange: where it was taken from. The task is then what this queue got of it. */
  queue?: string | undefined
  /** JSON text. */
  result?: string | undefined
  error?: string | undefined
}

export type Reported = 'ok' | 'unknown' | 'illegal' | 'attempt-required' | 'stale'

interface Row {
  id: string
  queue: string
  status: Status
  attempt: number
  failures: number
  maxAttempts: number
  lostStarts: number
  parentId: string | null
  owner: string | null
  /** Who ended its last attempt. */
  endedBy: string | null
}

const COLUMNS = `t.id, t.queue, t.status, t.attempt, t.failures, t.max_attempts as "maxAttempts",
  t.lost_starts as "lostStarts", t.parent_id as "parentId", t.foreign_owner as owner, t.attempts -> -1 ->> 'node' as "endedBy"`

/** How long a foreign owner may be silent when the task has no timeout of its own. */
const REPORT_WITHIN_MS = 30 * 60_000

/**
 * Applies a foreign consumer's report (PROTOCOL 18). `running` makes `keyId` the owner until the task's timeout; a
 * later report settles that attempt. A report on a waiting task settles it as an attempt of its own. Without
 * `attempt` it is refused once the task has had a second attempt. The same report again is `ok` and changes nothing.
 */
export function reportForeign(
  pool: Pool,
  named: string,
  report: ForeignReport,
  keyId: string,
  retryOf: (queue: string) => RetryPolicy,
): Promise<Reported> {
  return inTransaction(pool, async (tx) => {
    const id = report.queue === undefined ? named : await gotBy(tx, named, report.queue)
    // Locked while it is judged: a claim passes it over, a settle waits.
    await lockFamilies(tx, [id])
    const { rows } = await tx.query<Row>(`select ${COLUMNS} from tasks t where t.id = $1`, [id])
    const task = rows[0]
    if (!task) return 'unknown'
    // What an exchange fans out has no attempts: its queues' copies have.
    if (exchangeOfLine(task.queue) !== undefined) return 'illegal'
    if (report.attempt === undefined && task.attempt > 1) return 'attempt-required'
    if (isRepeated(report, task, keyId)) return 'ok'
    const waiting = task.status === 'pending' || task.status === 'queued' || task.status === 'retrying'
    const attempt = waiting ? task.attempt + 1 : task.attempt
    if (report.attempt !== undefined && report.attempt !== attempt) return 'stale'
    // What another holds is not to be had, and what nobody holds cannot be given back.
    if (waiting ? report.status === 'pending' : task.status !== 'running' || task.owner !== keyId) return 'illegal'
    if (waiting) await own(tx, id, keyId)
    if (report.status === 'running') return 'ok'
    await settleForeign(tx, [keyId], [{ ...attemptOf({ ...task, attempt }), outcome: outcomeOf(report) }], retryOf)
    return 'ok'
  })
}

/** What the queue got of a task that an exchange fanned out; the task itself where it is in that queue. */
async function gotBy(tx: PoolClient, id: string, queue: string): Promise<string> {
  const { rows } = await tx.query<{ id: string }>(
    `select t.id from tasks t where t.parent_id = $1 and t.queue = $2 and ${IS_COPY}`,
    [id, queue],
  )
  return rows[0]?.id ?? id
}

/** An answer can be lost: what this consumer has already said of this very attempt is no mistake. */
function isRepeated(report: ForeignReport, task: Row, keyId: string): boolean {
  if (report.status !== task.status || task.status === 'running' || task.endedBy !== `foreign:${keyId}`) return false
  return report.attempt === undefined ? isFinal(task.status) : report.attempt === task.attempt
}

function own(tx: PoolClient, id: string, keyId: string) {
  return tx.query(
    `update tasks
     set status = 'running', attempt = attempt + 1, node = null, foreign_owner = $2, started_at = now(), finished_at = null,
       report_by = now() + coalesce(timeout_ms, $3) * interval '1 ms', ${NO_MESSAGE}
     where id = $1`,
    [id, keyId, REPORT_WITHIN_MS],
  )
}

function outcomeOf(report: ForeignReport): Outcome {
  const error = report.error ?? 'reported without a reason'
  switch (report.status) {
    case 'succeeded':
      return { kind: 'succeeded', result: report.result }
    case 'dead':
      return { kind: 'failed', retryable: false, error }
    case 'retrying':
      return { kind: 'failed', retryable: true, error }
    case 'cancelled':
      return { kind: 'cancelled', error: report.error }
    case 'pending':
    case 'running':
      return { kind: 'returned' }
    default:
      return report.status satisfies never
  }
}

/**
 * Ends, for good, attempts that foreign consumers had begun when they rejected their messages (decision 13). Gives the ids
 * of their tasks; those of other attempts are left alone. The tasks are locked already.
 */
export async function endRejected(
  tx: PoolClient,
  rejections: { id: string; attempt: number; reason: string }[],
): Promise<string[]> {
  if (rejections.length === 0) return []
  const { rows } = await tx.query<Row & { owner: string; reason: string }>(
    `select ${COLUMNS}, r.reason from unnest($1::uuid[], $2::int[], $3::text[]) as r(id, attempt, reason)
     join tasks t on t.id = r.id and t.attempt = r.attempt
     where t.status = 'running' and t.foreign_owner is not null`,
    [rejections.map(({ id }) => id), rejections.map(({ attempt }) => attempt), rejections.map(({ reason }) => reason)],
  )
  const ends = rows.map(
    (task): Settlement => ({
      ...attemptOf(task),
      outcome: { kind: 'failed', retryable: false, error: task.reason },
    }),
  )
  const owners = [...new Set(rows.map(({ owner }) => owner))]
  // What failed for good asks for no retry.
  await settleForeign(tx, owners, ends, () => DEFAULT_RETRY_POLICY)
  return rows.map(({ id }) => id)
}

/** Takes up to `limit` tasks from foreign owners whose time to report is over: lost, sent again. Gives the queues concerned. */
export async function takeFromSilentOwners(
  pool: Pool,
  limit: number,
  retryOf: (queue: string) => RetryPolicy,
): Promise<string[]> {
  return inTransaction(pool, async (tx) => {
    const { rows } = await tx.query<Row & { owner: string }>(
      `select ${COLUMNS} from tasks t
       where t.status = 'running' and t.foreign_owner is not null and t.report_by < now()
       order by t.id desc limit $1 for update skip locked`,
      [limit],
    )
    const owners = [...new Set(rows.map((row) => row.owner))]
    const lost = rows.map(
      (task): Settlement => ({
        ...attemptOf(task),
        outcome: { kind: 'lost', started: true, error: `foreign:${task.owner} did not report in time` },
      }),
    )
    const settled = await settleForeign(tx, owners, lost, retryOf)
    return [...new Set(settled.flatMap(({ late }, index) => (late ? [] : (rows[index]?.queue ?? []))))]
  })
}
