import type { Delivery, HeaderValue, Message } from './broker.ts'

/** Where every queue's rejected messages go, by the routing key `<queue>.dlq`. */
export const DEAD_LETTER_EXCHANGE = 'longshore.dlx'

export const deadLetterQueueOf = (queue: string): string => `${queue}.dlq`

/** The message as RabbitMQ makes it when a consumer of `queue` rejected it. */
export function deadLettered({ queue, exchange, routingKey, body, properties }: Delivery): Message {
  const earlier = Array.isArray(properties.headers?.['x-death']) ? properties.headers['x-death'] : []
  const isSame = (death: HeaderValue) =>
    typeof death === 'object' &&
    death !== null &&
    'queue' in death &&
    death.queue === queue &&
    death.reason === 'rejected'
  const same = earlier.find(isSame) as { count: number } | undefined
  const death: HeaderValue = {
    queue,
    reason: 'rejected',
    exchange,
    'routing-keys': [routingKey],
    count: (same?.count ?? 0) + 1,
    time: new Date().toISOString(),
  }
  const headers = {
    'x-first-death-queue': queue,
    'x-first-death-reason': 'rejected',
    'x-first-death-exchange': exchange,
    ...properties.headers,
    'x-death': [death, ...earlier.filter((one) => !isSame(one))],
  }
  return {
    exchange: DEAD_LETTER_EXCHANGE,
    routingKey: deadLetterQueueOf(queue),
    body,
    properties: { ...properties, headers },
  }
}
