import { createHash } from 'node:crypto'
import { v7 as uuidv7 } from 'uuid'
import type { Message, PublishEnd } from '../broker/broker.ts'
import { type Database, databaseProblem } from '../store/database/database.ts'
import { insertTasks } from '../store/tasks/insert/insert.ts'
import { queuesOf } from '../store/tasks/insert/insert-addressed.ts'
import { lineOf } from '../task/topology/exchange.ts'
import { addressingFor } from './addressing.ts'

export interface PublishAsTaskDeps {
  pool: Database['pool']
  nodeId(): string
  /** The queue has a task more. */
  onStored(queue: string): void
}

const addressing = addressingFor('in-process')

/**
 * Without a broker that keeps messages, a message to a queue is a task of it, and one to an exchange a task of each queue
 * that is bound: the body is its payload, JSON text. Its message id is the idempotency key, so that the same message again
 * adds nothing. Never rejects for what may pass.
 */
export async function publishAsTask(
  { pool, nodeId, onStored }: PublishAsTaskDeps,
  { exchange, routingKey, body, properties }: Message,
): Promise<PublishEnd> {
  const { messageId = null, type = null, priority = 0 } = properties
  const task = {
    id: uuidv7(),
    ...(exchange === '' ? { queue: routingKey } : { queue: lineOf(exchange), exchange, routingKey }),
    type,
    payload: String(body),
    target: null,
    priority,
    dueAt: null,
    delayMs: null,
    maxAttempts: null,
    timeoutMs: null,
    idempotencyKey: messageId,
    fingerprint: messageId === null ? null : createHash('sha256').update(messageId).digest('hex'),
    parentId: null,
    origin: 'message' as const,
  }
  try {
    const [stored] = await insertTasks(pool, nodeId(), [task], { addressing })
    if (stored?.kind === 'refused') return 'returned'
    if (stored?.kind === 'created') for (const queue of queuesOf(task, stored)) onStored(queue)
    return 'confirmed'
  } catch (error) {
    if (databaseProblem(error)) return 'unknown'
    throw error
  }
}
