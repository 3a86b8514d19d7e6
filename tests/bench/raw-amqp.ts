/**
 * Calibration: what RabbitMQ and the bare client library take, without Longshore. Confirmed publishes in a window, and
 * publishing while a consumer takes and acks (every hundredth, for all before it). As a command: prints both for both kinds
 * of queue; `TEST_AMQP_URL` names the RabbitMQ, else one is started.
 */
import { AMQPClient } from '@cloudamqp/amqp-client'
import { brokerEngine } from '../../scripts/broker-engine.ts'

export interface RawRates {
  /** Confirmed publishes a second. */
  publish: number
  /** Messages a second that were published, confirmed, consumed and acked. */
  throughput: number
}

const WINDOW = 1_000
const PREFETCH = 500
const ACK_EVERY = 100

export async function rawAmqp(
  url: string,
  { type, count, bytes = 200 }: { type: 'classic' | 'quorum'; count: number; bytes?: number },
): Promise<RawRates> {
  const parameters = '?frameMax=131072&heartbeat=20&name=raw'
  const [producer, consumer] = [new AMQPClient(`${url}${parameters}`), new AMQPClient(`${url}${parameters}`)]
  await Promise.all([producer.connect(), consumer.connect()])
  const queue = `raw-${type}`
  const [publishing, consuming] = await Promise.all([producer.channel(), consumer.channel()])
  await publishing.queueDeclare(queue, { durable: true }, { 'x-queue-type': type })
  await publishing.queuePurge(queue)
  await publishing.confirmSelect()

  async function publishAll(): Promise<void> {
    let sent = 0
    const body = 'x'.repeat(bytes)
    const publisher = async () => {
      while (sent++ < count) await publishing.basicPublish('', queue, body, { deliveryMode: 2 }, true)
    }
    await Promise.all(Array.from({ length: WINDOW }, publisher))
  }

  async function consumeAll(): Promise<void> {
    const all = Promise.withResolvers<void>()
    let taken = 0
    await consuming.basicQos(PREFETCH)
    const subscription = await consuming.basicConsume(queue, { noAck: false }, (message) => {
      taken++
      if (taken % ACK_EVERY === 0 || taken === count) void consuming.basicAck(message.deliveryTag, true)
      if (taken === count) all.resolve()
    })
    await all.promise
    await subscription.cancel()
  }

  const perSecond = async (work: () => Promise<unknown>) => {
    const began = performance.now()
    await work()
    return Math.round((count / (performance.now() - began)) * 1_000)
  }
  const publish = await perSecond(publishAll)
  await publishing.queuePurge(queue)
  const throughput = await perSecond(() => Promise.all([publishAll(), consumeAll()]))
  await publishing.queueDelete(queue)
  await Promise.all([producer.close(), consumer.close()])
  return { publish, throughput }
}

if (import.meta.main) {
  const engine = await brokerEngine()
  if ('reason' in engine) throw new Error(engine.reason)
  for (const type of ['classic', 'quorum'] as const) {
    console.log(type, await rawAmqp(engine.env.TEST_AMQP_URL, { type, count: 30_000 }))
  }
  await engine.end()
}
