import type { Pool } from 'pg'
import { prepared } from './database/statement.ts'

/** What these nodes have accepted, by queue and origin. */
export function acceptedBy(
  pool: Pool,
  nodes: string[],
): Promise<{ node: string; queue: string; origin: string; count: number }[]> {
  return prepared(
    pool,
    'accepted-by',
    'select node, queue, origin, accepted as count from counters where node = any($1::uuid[]) and accepted > 0',
    [nodes],
  )
}

/** How many nodes there are, of the last week, and how old the oldest last beat of one that lives is. */
export async function nodeFigures(
  pool: Pool,
): Promise<{ alive: number; dead: number; left: number; oldestBeatMs: number }> {
  const { rows } = await pool.query<{ alive: number; dead: number; left: number; oldestBeatMs: number }>(
    `select count(*) filter (where dead_at is null and left_at is null)::int as alive,
       count(*) filter (where dead_at is not null)::int as dead, count(*) filter (where left_at is not null)::int as left,
       coalesce(max(extract(epoch from now() - beat_at) * 1000) filter (where dead_at is null and left_at is null), 0)::float8
         as "oldestBeatMs"
     from nodes`,
  )
  return rows[0] ?? { alive: 0, dead: 0, left: 0, oldestBeatMs: 0 }
}
