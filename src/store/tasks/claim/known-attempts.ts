import type { Pool } from 'pg'
import type { Attempt } from '../../../task/ledger.ts'
import { attemptOf } from '../../../task/task.ts'
import { prepared } from '../../database/statement.ts'

/** An attempt as the database tells it: `attemptOf` makes it one. */
export type AttemptRow = Omit<Attempt, 'standing'> & Attempt['standing']

export const ATTEMPT_COLUMNS = `t.id, t.queue, t.attempt, t.failures, t.max_attempts as "maxAttempts",
  t.lost_starts as "lostStarts", t.parent_id as "parentId"`

/** Those of the attempts that `node` began last on their tasks, as the ledger knows them; in no order. */
export async function knownAttempts(
  pool: Pool,
  node: string,
  attempts: readonly { id: string; attempt: number }[],
): Promise<Attempt[]> {
  const rows = await prepared<AttemptRow>(
    pool,
    'known-attempts',
    `select ${ATTEMPT_COLUMNS}
     from tasks t join unnest($1::uuid[], $2::int[]) as a(id, attempt) on t.id = a.id and t.attempt = a.attempt
     where t.node = $3`,
    [attempts.map(({ id }) => id), attempts.map(({ attempt }) => attempt), node],
  )
  return rows.map(attemptOf)
}
