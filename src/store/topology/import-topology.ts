import { v7 as uuidv7 } from 'uuid'
import { DEFAULT_RETRY_POLICY } from '../../task/retry-policy.ts'
import { CONTENT_TYPES, FTP_EXCHANGE, importQueue } from '../../task/source/source.ts'
import { DEFAULT_RETENTION } from '../../task/topology/queue.ts'
import type { Queryable } from '../database/statement.ts'

/** Imports of one node at once, of one content type. */
const CONCURRENCY = 2
/** An import may take as long as anything. */
const TIMEOUT_MS = 7 * 24 * 3_600_000

const QUEUES = CONTENT_TYPES.map(importQueue)

/** The setting that holds the queues whose consumers were made. */
const CONSUMED = 'import-consumers'

/**
 * Makes the exchange, the queues and the bindings of imports, as far as they are missing; those that are there stay as they
 * are. With `imports`, each queue gets a consumer that imports, once: without it, its messages are for others. What somebody
 * has taken away stays away until its queue is made anew. True when something was made.
 */
export async function ensureImportTopology(tx: Queryable, { imports }: { imports: boolean }): Promise<boolean> {
  const exchange = await tx.query(
    `insert into exchanges (name, type) values ($1, 'topic') on conflict (name) do nothing`,
    [FTP_EXCHANGE],
  )
  const isNew = exchange.rowCount === 1
  const queues = await makeQueues(tx)
  await bind(tx, isNew ? QUEUES : queues)
  if (!imports) await forgetConsumers(tx, queues)
  const consumers = imports ? await addConsumers(tx, queues) : 0
  return isNew || queues.length > 0 || consumers > 0
}

/** As the older services declare them: durable, and nothing else. Gives those that were not there. */
async function makeQueues(tx: Queryable): Promise<string[]> {
  const { rows } = await tx.query<{ name: string }>(
    `insert into queues (name, type, dead_letter, retry, retention)
     select q, 'classic', false, $2::text::jsonb, $3::text::jsonb from unnest($1::text[]) as q
     order by q on conflict (name) do nothing returning name`,
    [QUEUES, JSON.stringify(DEFAULT_RETRY_POLICY), JSON.stringify(DEFAULT_RETENTION)],
  )
  return rows.map(({ name }) => name)
}

async function bind(tx: Queryable, queues: string[]): Promise<void> {
  if (queues.length === 0) return
  await tx.query(
    `insert into bindings (exchange, queue, routing_key) select $1, q, q from unnest($2::text[]) as q
     order by q on conflict do nothing`,
    [FTP_EXCHANGE, queues],
  )
}

/** The setting's row is locked, so that two first sources do not make two consumers each. Gives how many were made. */
async function addConsumers(tx: Queryable, newQueues: string[]): Promise<number> {
  await tx.query(`insert into settings (name, value) values ($1, '[]') on conflict (name) do nothing`, [CONSUMED])
  const { rows } = await tx.query<{ value: string[] }>('select value from settings where name = $1 for update', [
    CONSUMED,
  ])
  const consumed = rows[0]?.value ?? []
  const queues = QUEUES.filter((queue) => newQueues.includes(queue) || !consumed.includes(queue))
  if (queues.length === 0) return 0
  await tx.query('update settings set value = $2::text::jsonb where name = $1', [CONSUMED, JSON.stringify(QUEUES)])
  const { rowCount } = await tx.query(
    `insert into consumers (id, queue, target, concurrency, timeout_ms)
     select n.id, n.queue, '{"type":"import"}', $3, $4 from unnest($1::uuid[], $2::text[]) as n(id, queue)
     where not exists (select from consumers c where c.queue = n.queue and c.target ->> 'type' = 'import')`,
    [queues.map(() => uuidv7()), queues, CONCURRENCY, TIMEOUT_MS],
  )
  return rowCount ?? 0
}

/** Queues that are new get consumers with the next source that imports. */
async function forgetConsumers(tx: Queryable, queues: string[]): Promise<void> {
  if (queues.length === 0) return
  await tx.query('update settings set value = value - $2::text[] where name = $1', [CONSUMED, queues])
}

/** Makes a queue of this name with the default policy, if there is none. True when it was made. */
export async function ensureQueue(tx: Queryable, name: string): Promise<boolean> {
  const { rowCount } = await tx.query(
    `insert into queues (name, retry, retention) values ($1, $2::text::jsonb, $3::text::jsonb) on conflict (name) do nothing`,
    [name, JSON.stringify(DEFAULT_RETRY_POLICY), JSON.stringify(DEFAULT_RETENTION)],
  )
  return rowCount === 1
}
