import type { Pool } from 'pg'
import { bucketOf, type RateLimit, type Tokens } from '../../task/topology/rate-limit.ts'
import { inTransaction } from '../database/statement.ts'

/**
 * Takes up to `count` tokens of a consumer's bucket, which all nodes share: one row, locked while it is counted, by
 * Postgres's clock. A consumer without a limit, or that is gone, grants all.
 */
export function takeTokens(pool: Pool, consumer: string, count: number): Promise<Tokens> {
  return inTransaction(pool, async (tx) => {
    const { rows } = await tx.query<{ rateLimit: RateLimit | null }>(
      'select rate_limit as "rateLimit" from consumers where id = $1',
      [consumer],
    )
    const limit = rows[0]?.rateLimit
    if (!limit) return { granted: count, retryAfterMs: 0 }
    const { capacity, perMs } = bucketOf(limit)
    await tx.query('insert into tokens (consumer, tokens) values ($1, $2) on conflict (consumer) do nothing', [
      consumer,
      capacity,
    ])
    const { rows: buckets } = await tx.query<{ tokens: number }>(REFILL, [consumer, capacity, perMs])
    const tokens = buckets[0]?.tokens ?? 0
    const granted = Math.min(count, Math.floor(tokens))
    if (granted > 0) await tx.query('update tokens set tokens = tokens - $2 where consumer = $1', [consumer, granted])
    const missing = Math.max(0, 1 - (tokens - granted))
    return { granted, retryAfterMs: granted === count ? 0 : Math.ceil(missing / perMs) }
  })
}

/** The row is locked from here to the commit. A clock that goes back refills nothing. */
const REFILL = `
  update tokens set
    tokens = least($2, tokens + greatest(0, extract(epoch from clock_timestamp() - refilled_at) * 1000) * $3),
    refilled_at = greatest(refilled_at, clock_timestamp())
  where consumer = $1
  returning tokens`
