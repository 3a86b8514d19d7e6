import type { Pool } from 'pg'
import { prepared } from './statement.ts'

/**
 * Takes or keeps the name for `node`; false while another node that lives has it. A node loses what it holds when it is
 * declared dead or leaves, so whoever holds a name looks again before each use.
 */
export async function hold(pool: Pool, node: string, name: string): Promise<boolean> {
  const rows = await prepared<{ node: string }>(
    pool,
    'hold',
    `insert into locks (name, node) select $2, id from nodes where id = $1 and dead_at is null and left_at is null
     on conflict (name) do update set node = excluded.node, taken_at = now()
     where locks.node = excluded.node or not exists (
       select from nodes n where n.id = locks.node and n.dead_at is null and n.left_at is null)
     returning node`,
    [node, name],
  )
  return rows.length > 0
}

/** Lets the name go, if `node` has it. */
export async function release(pool: Pool, node: string, name: string): Promise<void> {
  await prepared(pool, 'release', 'delete from locks where name = $2 and node = $1', [node, name])
}
