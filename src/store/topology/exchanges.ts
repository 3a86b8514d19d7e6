import { type Kysely, sql } from 'kysely'
import type { BindingOrder, ExchangeOrder, ExchangeType } from '../../task/topology/topology.ts'
import type { Tables } from '../database/tables.ts'

export interface Exchange extends ExchangeOrder {
  /** By queue, then routing key. */
  bindings: Omit<BindingOrder, 'exchange'>[]
  /** RFC 3339, UTC, milliseconds, as is `updatedAt`. */
  createdAt: string
  updatedAt: string
}

const COLUMNS = ['name', 'type', 'conflict', 'created_at as createdAt', 'updated_at as updatedAt'] as const
const BINDINGS = sql<Exchange['bindings']>`(
  select coalesce(jsonb_agg(jsonb_build_object('queue', queue, 'routingKey', routing_key)
    order by queue collate "C", routing_key collate "C"), '[]')
  from bindings where exchange = exchanges.name)`

/** Exchanges by name, those after `after`. */
export async function listExchanges(db: Kysely<Tables>, limit: number, after?: string): Promise<Exchange[]> {
  const rows = await db
    .selectFrom('exchanges')
    .select(COLUMNS)
    .select(BINDINGS.as('bindings'))
    .$if(after !== undefined, (query) => query.where(sql<boolean>`name collate "C" > ${after}`))
    .orderBy(sql`name collate "C"`)
    .limit(limit)
    .execute()
  return rows as Exchange[]
}

export async function exchangeByName(db: Kysely<Tables>, name: string): Promise<Exchange | undefined> {
  const query = db.selectFrom('exchanges').select(COLUMNS).select(BINDINGS.as('bindings')).where('name', '=', name)
  return (await query.executeTakeFirst()) as Exchange | undefined
}

/** Makes the exchange; `other-type` when there is one of another type, which never changes. */
export async function putExchange(
  db: Kysely<Tables>,
  name: string,
  type: ExchangeType,
): Promise<'created' | 'existing' | 'other-type'> {
  const { rows } = await sql<{ created: boolean; same: boolean }>`
    insert into exchanges as x (name, type) values (${name}, ${type})
    on conflict (name) do update set name = excluded.name
    returning xmax = 0 as created, type = ${type} as same`.execute(db)
  const [row] = rows
  return row?.created ? 'created' : row?.same ? 'existing' : 'other-type'
}

export type ExchangeDeletion = 'deleted' | 'unknown' | 'has-bindings'

/** Deletes an exchange with its bindings; with `ifUnused` only one that has none. */
export function deleteExchange(
  db: Kysely<Tables>,
  name: string,
  { ifUnused }: { ifUnused: boolean },
): Promise<ExchangeDeletion> {
  return db.transaction().execute(async (tx) => {
    // A binding that is being made holds the row, or waits and finds it gone.
    const row = await tx.selectFrom('exchanges').select('name').where('name', '=', name).forUpdate().executeTakeFirst()
    if (!row) return 'unknown'
    const bound = await tx
      .selectFrom('bindings')
      .select('queue')
      .where('exchange', '=', name)
      .limit(1)
      .executeTakeFirst()
    if (bound && ifUnused) return 'has-bindings'
    await tx.deleteFrom('exchanges').where('name', '=', name).execute()
    return 'deleted'
  })
}

export type Bound = 'created' | 'existing' | 'unknown-exchange' | 'unknown-queue'

/** Binds a queue to an exchange; the same again changes nothing. */
export async function bindQueue(db: Kysely<Tables>, { exchange, queue, routingKey }: BindingOrder): Promise<Bound> {
  try {
    const row = await db
      .insertInto('bindings')
      .values({ exchange, queue, routing_key: routingKey })
      .onConflict((conflict) => conflict.doNothing())
      .returning('queue')
      .executeTakeFirst()
    return row ? 'created' : 'existing'
  } catch (error) {
    const { code, constraint } = error as { code?: string; constraint?: string }
    // foreign_key_violation
    if (code !== '23503') throw error
    return constraint === 'bindings_exchange_fkey' ? 'unknown-exchange' : 'unknown-queue'
  }
}

/** False when there is no such binding. */
export async function unbindQueue(db: Kysely<Tables>, { exchange, queue, routingKey }: BindingOrder): Promise<boolean> {
  const { numDeletedRows } = await db
    .deleteFrom('bindings')
    .where('exchange', '=', exchange)
    .where('queue', '=', queue)
    .where('routing_key', '=', routingKey)
    .executeTakeFirst()
  return numDeletedRows > 0n
}
