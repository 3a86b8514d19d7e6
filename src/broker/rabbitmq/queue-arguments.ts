import type { BrokerQueue } from '../broker.ts'
import { DEAD_LETTER_EXCHANGE, deadLetterQueueOf } from '../dead-letter.ts'

export type QueueArguments = Record<string, string | number>

/**
 * The arguments that a queue may have, the best first: one that was made by an older server, or by one that refuses an
 * argument, is as good.
 */
export function queueArguments(queue: BrokerQueue, serverVersion: string): QueueArguments[] {
  const { name, type, maxPriority, deadLetter } = queue
  const always: QueueArguments = { 'x-queue-type': type }
  if (type === 'classic' && maxPriority !== null) always['x-max-priority'] = maxPriority
  if (deadLetter) {
    always['x-dead-letter-exchange'] = DEAD_LETTER_EXCHANGE
    always['x-dead-letter-routing-key'] = deadLetterQueueOf(name)
  }
  return variants(type, deadLetter, serverVersion).map((more) => ({ ...always, ...more }))
}

/** The arguments of the queue for its dead letters: kept in the same way. */
export function deadLetterArguments({ type }: BrokerQueue, serverVersion: string): QueueArguments[] {
  return variants(type, false, serverVersion).map((more) => ({ 'x-queue-type': type, ...more }))
}

function variants(type: BrokerQueue['type'], deadLetter: boolean, serverVersion: string): QueueArguments[] {
  if (type === 'classic') return [{}]
  // RabbitMQ 4 gives up a quorum queue's message after 20 deliveries, unless told -1; RabbitMQ 3 knows no -1, and no limit.
  const unlimited: QueueArguments = { 'x-delivery-limit': -1 }
  const limits: QueueArguments[] = majorOf(serverVersion) >= 4 ? [unlimited, {}] : [{}, unlimited]
  // The source keeps a dead letter until its queue has it; that needs `reject-publish`.
  const kept: QueueArguments = { 'x-dead-letter-strategy': 'at-least-once', 'x-overflow': 'reject-publish' }
  const strategies = deadLetter ? [kept, {}] : [{}]
  return strategies.flatMap((strategy) => limits.map((limit) => ({ ...strategy, ...limit })))
}

const majorOf = (version: string) => Number.parseInt(version, 10) || 0
