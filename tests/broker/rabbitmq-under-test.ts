import { AMQPClient } from '@cloudamqp/amqp-client'
import type { Broker, BrokerQueue, Delivery, DeliveryEnd, Message, PublishEnd } from '../../src/broker/broker.ts'
import { createRabbitMqBroker, type RabbitMqOptions } from '../../src/broker/rabbitmq.ts'
import { realClock } from '../../src/runtime/clock.ts'
import { createLog } from '../../src/runtime/log.ts'
import type { Service } from '../../src/runtime/service.ts'
import { type TestVhost, testVhost } from '../support/rabbitmq.ts'
import { until } from '../support/until.ts'

export interface BrokerUnderTest extends AsyncDisposable {
  broker: Broker & Service
  /** Its log so far, one line each. */
  log: { event: string; [field: string]: unknown }[]
  /** All of the log as it was written. */
  text(): string
}

/** A started RabbitMQ broker; it stops with its disposal. */
export async function brokerAt(
  url: string | string[],
  options: Partial<RabbitMqOptions> = {},
): Promise<BrokerUnderTest> {
  const lines: string[] = []
  const broker = createRabbitMqBroker({
    urls: typeof url === 'string' ? [url] : url,
    name: 'test',
    clock: realClock,
    log: createLog('debug', { write: (line) => void lines.push(line) }),
    ...options,
  })
  await broker.start()
  return {
    broker,
    get log() {
      return lines.map((line) => JSON.parse(line))
    },
    text: () => lines.join(''),
    [Symbol.asyncDispose]: () => broker.stop(),
  }
}

export const isUp = (broker: Broker, timeoutMs = 30_000) =>
  until(() => broker.state().status === 'up', { timeoutMs, what: 'a broker that is up' })

export interface VhostUnderTest extends AsyncDisposable {
  vhost: TestVhost
  under: BrokerUnderTest
  /** Somebody who knows nothing of Longshore. */
  foreign: AMQPClient
}

/** A vhost with a broker that is up, and a foreign client. */
export async function vhostUnderTest(): Promise<VhostUnderTest> {
  const vhost = await testVhost()
  const under = await brokerAt(vhost.amqpUrl)
  await isUp(under.broker)
  const foreign = new AMQPClient(`${vhost.amqpUrl}?frameMax=131072`)
  await foreign.connect()
  return {
    vhost,
    under,
    foreign,
    async [Symbol.asyncDispose]() {
      await foreign.close()
      await under.broker.stop()
      await vhost.remove()
    },
  }
}

/** Declares one queue. */
export async function declareQueue(broker: Broker, queue: Partial<BrokerQueue> = {}): Promise<void> {
  const whole: BrokerQueue = { name: 'work', type: 'classic', maxPriority: null, deadLetter: true, ...queue }
  await broker.declare({ queues: [whole], exchanges: [], bindings: [] })
}

export const messagesTo = (queue: string, count: number, from = 0): Message[] =>
  Array.from({ length: count }, (_, index) => ({
    exchange: '',
    routingKey: queue,
    body: String(from + index),
    properties: { messageId: String(from + index) },
  }))

export const textOf = ({ body }: Pick<Message, 'body'>): string =>
  typeof body === 'string' ? body : Buffer.from(body).toString()

/** A handler that keeps what it gets, and ends it when the test says so, or at once with `auto`. */
export function taker(auto?: DeliveryEnd) {
  const taken: Delivery[] = []
  const batches: number[] = []
  const ends: ((end: DeliveryEnd) => void)[] = []
  return {
    taken,
    batches,
    bodies: () => taken.map(textOf),
    /** Ends delivery `index` (in the order in which they came). */
    end: (index: number, end: DeliveryEnd = 'ack') => ends[index]?.(end),
    handle(deliveries: Delivery[]): Promise<DeliveryEnd>[] {
      batches.push(deliveries.length)
      return deliveries.map((delivery) => {
        taken.push(delivery)
        if (auto) return Promise.resolve(auto)
        return new Promise((resolve) => ends.push(resolve))
      })
    },
  }
}

/** Publishes until each is confirmed or returned, as a dispatcher does; gives how many publishes ended unknown. */
export async function publishUntilConfirmed(broker: Broker, messages: Message[]): Promise<number> {
  let unknown = 0
  for (let left = messages; left.length > 0; ) {
    const ends: PublishEnd[] = await broker.publish(left)
    left = left.filter((_, index) => ends[index] === 'unknown')
    unknown += left.length
  }
  return unknown
}
