import type { Broker, Delivery, DeliveryEnd, HeaderValue, Subscription } from '../broker/broker.ts'
import { deadLetterQueueOf } from '../broker/dead-letter.ts'
import { readDeadStray } from '../broker/stray.ts'
import { identityOf } from '../broker/wire-form.ts'
import { createBatcher } from '../runtime/batcher.ts'
import { type Clock, pause } from '../runtime/clock.ts'
import { messageOf } from '../runtime/errors.ts'
import type { Logger } from '../runtime/log.ts'
import type { DeadDelivery } from '../store/tasks/dead-letters/dead-letters.ts'
import type { QueueOrder } from '../task/topology/topology.ts'

export interface DeadLetterListenerDeps {
  broker: Broker
  clock: Clock
  log: Logger
  judge(deliveries: DeadDelivery[]): Promise<void>
  /** Rejections that are about one delivery, not about the database. */
  isBadRow(error: unknown): boolean
}

export interface DeadLetterListener {
  /** Listens to the dead letters of these queues from now on, and to no others. */
  follow(queues: readonly Pick<QueueOrder, 'name' | 'deadLetter'>[]): void
  /** Takes nothing more. */
  stop(): void
}

const PREFETCH = 100
const RETRY_MS = 500

/** Drains every `<queue>.dlq` into the ledger, acked when it is there: nothing stays in the broker that nobody reads. */
export function createDeadLetterListener(deps: DeadLetterListenerDeps): DeadLetterListener {
  const { broker, clock, log } = deps
  const subscriptions = new Map<string, Subscription>()
  const stopped = new AbortController()
  const batcher = createBatcher<DeadDelivery, void>({
    maxBatch: PREFETCH,
    maxWaiting: Number.POSITIVE_INFINITY,
    splitOnError: deps.isBadRow,
    async run(deliveries) {
      for (;;) {
        try {
          await deps.judge(deliveries)
          return deliveries.map(() => undefined)
        } catch (error) {
          if (deps.isBadRow(error) || stopped.signal.aborted) throw error
          log.warn({ event: 'dead-letters-failed', error: messageOf(error) }, 'Cannot store dead letters; trying again')
          await pause(clock, RETRY_MS, stopped.signal)
        }
      }
    },
  })

  async function end(delivery: Delivery, queue: string): Promise<DeliveryEnd> {
    try {
      await batcher.add(deadDelivery(delivery, queue))
      return 'ack'
    } catch (error) {
      log.error({ event: 'dead-letters-failed', queue, error: messageOf(error) }, 'A dead letter cannot be stored')
      await pause(clock, RETRY_MS, stopped.signal)
      return 'requeue'
    }
  }

  return {
    follow(queues) {
      const wanted = new Set(queues.filter(({ deadLetter }) => deadLetter).map(({ name }) => name))
      for (const [queue, subscription] of subscriptions) {
        if (wanted.has(queue)) continue
        subscription.cancel()
        subscriptions.delete(queue)
      }
      for (const queue of wanted) {
        if (subscriptions.has(queue)) continue
        const handler = (deliveries: Delivery[]) => deliveries.map((delivery) => end(delivery, queue))
        subscriptions.set(queue, broker.consume(deadLetterQueueOf(queue), PREFETCH, handler))
      }
    },
    stop() {
      stopped.abort()
      for (const subscription of subscriptions.values()) subscription.cancel()
      subscriptions.clear()
    },
  }
}

/** What the broker says of a dead-lettered message (https://www.rabbitmq.com/docs/dlx). */
const REASONS = new Map<string, Pick<DeadDelivery, 'end' | 'reason'>>(
  Object.entries({
    rejected: { end: 'rejected', reason: 'A consumer rejected it' },
    delivery_limit: { end: 'lost', reason: 'The broker gave it up: it came back from consumers too often' },
    expired: { end: 'lost', reason: 'It expired in the broker' },
    maxlen: { end: 'lost', reason: 'The broker dropped it: its queue was full' },
  }),
)

function deadDelivery(delivery: Delivery, queue: string): DeadDelivery {
  const { end, reason } = REASONS.get(reasonOf(delivery.properties.headers?.['x-death'])) ?? {
    end: 'rejected',
    reason: 'It was put among the dead letters by somebody else',
  }
  const of = identityOf(delivery)
  return { of, queue, end, reason, stray: strayOf(delivery, of, reason) }
}

function strayOf(delivery: Delivery, of: DeadDelivery['of'], reason: string) {
  const { reason: _, ...stray } = readDeadStray(delivery, of.kind === 'task' ? of.id : undefined, reason)
  return stray
}

/** Why the message is here now: the newest entry comes first. */
function reasonOf(header: HeaderValue | undefined): string {
  const [entry] = Array.isArray(header) ? header : []
  return typeof entry === 'object' && entry !== null && !Array.isArray(entry) ? String(entry.reason) : ''
}
