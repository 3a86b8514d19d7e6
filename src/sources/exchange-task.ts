import { v7 as uuidv7 } from 'uuid'
import type { CompleteSource } from '../task/source/defaults.ts'
import { type ContentType, FTP_EXCHANGE, importQueue } from '../task/source/source.ts'
import type { NewTask } from '../task/task.ts'
import { lineOf } from '../task/topology/exchange.ts'

/** A task that a source addresses to the exchange of files, with the routing key of its content type. */
export function exchangeTask(
  type: string,
  payload: object,
  { deliver }: CompleteSource,
  contentType: ContentType,
): NewTask {
  return {
    id: uuidv7(),
    queue: lineOf(FTP_EXCHANGE),
    type,
    payload: JSON.stringify(payload),
    target: null,
    priority: deliver?.priority ?? 0,
    dueAt: null,
    delayMs: null,
    maxAttempts: null,
    timeoutMs: null,
    idempotencyKey: null,
    fingerprint: null,
    parentId: null,
    origin: 'file',
    exchange: FTP_EXCHANGE,
    routingKey: importQueue(contentType),
  }
}
