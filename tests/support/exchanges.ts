import type { Pool } from 'pg'
import { v7 } from 'uuid'
import { route } from '../../src/broker/routing.ts'
import { insertTasks } from '../../src/store/tasks/insert/insert.ts'
import type { Addressing } from '../../src/store/tasks/insert/insert-addressed.ts'
import type { Created, Inserted } from '../../src/store/tasks/insert/insert-rows.ts'
import type { BrokerKind } from '../../src/task/ledger.ts'
import type { NewTask } from '../../src/task/task.ts'
import { lineOf } from '../../src/task/topology/exchange.ts'
import type { ExchangeType } from '../../src/task/topology/topology.ts'
import { newTask, type TaskLedger } from './tasks.ts'

/** An exchange whose queues, made where they are missing, are bound with these routing keys. */
export async function makeExchange(
  { pool }: { pool: Pool },
  name: string,
  type: ExchangeType,
  bindings: Record<string, string[]>,
): Promise<void> {
  await pool.query('insert into exchanges (name, type) values ($1, $2)', [name, type])
  for (const [queue, keys] of Object.entries(bindings)) {
    await pool.query(
      `insert into queues (name, retry, retention) values ($1, '{"maxAttempts": 3}', '{}') on conflict do nothing`,
      [queue],
    )
    for (const key of keys) await bind({ pool }, name, queue, key)
  }
}

export async function bind({ pool }: { pool: Pool }, exchange: string, queue: string, key = ''): Promise<void> {
  await pool.query('insert into bindings (exchange, queue, routing_key) values ($1, $2, $3)', [exchange, queue, key])
}

export async function unbind({ pool }: { pool: Pool }, exchange: string, queue: string): Promise<void> {
  await pool.query('delete from bindings where exchange = $1 and queue = $2', [exchange, queue])
}

/** A task that is addressed to an exchange. */
export function addressed(exchange: string, fields: Partial<NewTask> = {}): NewTask {
  const fingerprint = fields.idempotencyKey ? 'same' : null
  return newTask({ queue: lineOf(exchange), exchange, routingKey: '', maxAttempts: null, fingerprint, ...fields })
}

export const addressing = (broker: BrokerKind): Addressing => ({ route, broker })

/** Stores them, each for itself. */
export function send(ledger: TaskLedger, tasks: NewTask[], broker: BrokerKind = 'rabbitmq'): Promise<Inserted[]> {
  return insertTasks(ledger.pool, ledger.node, tasks, { addressing: addressing(broker) })
}

/** Stores one that must be created; its children by their queues. */
export async function fanOut(
  ledger: TaskLedger,
  task: NewTask,
  broker: BrokerKind = 'rabbitmq',
): Promise<{ id: string; children: Record<string, string>; created: Created }> {
  const [created] = await send(ledger, [task], broker)
  if (created?.kind !== 'created') throw new Error(JSON.stringify(created))
  const children = created.placed?.children ?? []
  return { id: task.id, children: Object.fromEntries(children.map(({ id, queue }) => [queue, id])), created }
}

/** Takes the copies of these parents that came to a queue. */
export const copiesOf = (...parents: string[]) => parents.map((parentId) => ({ kind: 'copy' as const, parentId }))

export const newClaim = (ledger: TaskLedger, queue: string) => ({ claimId: v7(), node: ledger.node, queue })
