import type { Pool } from 'pg'
import { DEFAULT_QUEUE, DEFAULT_RETENTION } from '../task/queue.ts'
import { DEFAULT_RETRY_POLICY } from '../task/retry-policy.ts'
import { inTransaction } from './statement.ts'

/**
 * Makes the queue `default` and its consumer, which delivers to each task's own target, at the first start. Later
 * starts leave both as they are: a consumer that was changed or deleted stays so.
 */
export async function ensureBuiltIn(pool: Pool, consumerId: string): Promise<void> {
  await inTransaction(pool, async (tx) => {
    const { rowCount } = await tx.query(
      `insert into queues (name, retry, retention) values ($1, $2::text::jsonb, $3::text::jsonb)
       on conflict (name) do nothing`,
      [DEFAULT_QUEUE, JSON.stringify(DEFAULT_RETRY_POLICY), JSON.stringify(DEFAULT_RETENTION)],
    )
    if (rowCount === 0) return
    await tx.query(
      `insert into consumers (id, queue, target, concurrency, timeout_ms)
       values ($1, $2, '{"type":"task"}', 50, 30000)`,
      [consumerId, DEFAULT_QUEUE],
    )
  })
}
