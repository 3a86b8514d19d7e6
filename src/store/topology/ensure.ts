import { type Kysely, sql, type Transaction } from 'kysely'
import { v7 as uuidv7 } from 'uuid'
import type { QueuePolicy } from '../../task/topology/queue.ts'
import type { ConsumerOrder, ExchangeType } from '../../task/topology/topology.ts'
import { jsonb } from '../database/statement.ts'
import type { Tables } from '../database/tables.ts'
import { COMPLETIONS, type Completions } from '../tasks/family/completions.ts'
import { insertConsumerIn } from './consumers.ts'
import { insertQueue } from './queues.ts'

/** What should be there before something is used. */
export interface WantedTopology {
  queues: { name: string; policy?: Partial<QueuePolicy>; consumers: Omit<ConsumerOrder, 'id' | 'queue'>[] }[]
  exchange?: {
    name: string
    type: ExchangeType
    bindings: { queue: string; routingKey: string }[]
    completions?: Completions
  }
}

/**
 * Makes what is missing and leaves alone what is there. Consumers come with a queue that is new, bindings with a queue
 * or an exchange that is new: what somebody has taken away stays away. True when something was made.
 */
export function ensureTopology(db: Kysely<Tables>, { queues, exchange }: WantedTopology): Promise<boolean> {
  return db.transaction().execute(async (tx) => {
    const made = new Set<string>()
    // In one order on all nodes: two that are made at the same moment wait for each other.
    for (const { name, policy, consumers } of queues.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
      if (!(await insertQueue(tx, name, policy))) continue
      made.add(name)
      for (const consumer of consumers) await insertConsumerIn(tx, { id: uuidv7(), queue: name, ...consumer })
    }
    const isNew = exchange !== undefined && (await ensureExchange(tx, exchange, made))
    return isNew || made.size > 0
  })
}

async function ensureExchange(
  tx: Transaction<Tables>,
  { name, type, bindings, completions }: NonNullable<WantedTopology['exchange']>,
  madeQueues: ReadonlySet<string>,
): Promise<boolean> {
  const { numInsertedOrUpdatedRows = 0n } = await tx
    .insertInto('exchanges')
    .values({ name, type } as never)
    .onConflict((conflict) => conflict.column('name').doNothing())
    .executeTakeFirst()
  const isNew = numInsertedOrUpdatedRows > 0n
  const wanted = bindings.filter(({ queue }) => isNew || madeQueues.has(queue))
  if (wanted.length > 0) {
    await tx
      .insertInto('bindings')
      .values(wanted.map(({ queue, routingKey }) => ({ exchange: name, queue, routing_key: routingKey }) as never))
      .onConflict((conflict) => conflict.columns(['exchange', 'queue', 'routing_key']).doNothing())
      .execute()
  }
  if (completions) {
    await sql`
      insert into settings (name, value) values (${COMPLETIONS}, ${jsonb({ [name]: completions })})
      on conflict (name) do update set value = excluded.value || settings.value
      where not settings.value ? ${name}`.execute(tx)
  }
  return isNew
}
