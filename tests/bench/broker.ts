/**
 * What the RabbitMQ adapter takes, beside the calibration of raw-amqp.ts: confirmed publishes, and publishing while a consumer
 * takes and acks. As a command: prints both for both kinds of queue.
 */

import { brokerEngine } from '../../scripts/broker-engine.ts'
import { createRabbitMqBroker } from '../../src/broker/rabbitmq.ts'
import { realClock } from '../../src/runtime/clock.ts'
import { createLog } from '../../src/runtime/log.ts'
import { until } from '../support/until.ts'
import { type RawRates, rawAmqp } from './raw-amqp.ts'

const BATCH = 500
const CALLS = 4
const PREFETCH = 500

export async function brokerRates(
  url: string,
  { type, count, bytes = 200 }: { type: 'classic' | 'quorum'; count: number; bytes?: number },
): Promise<RawRates> {
  const broker = createRabbitMqBroker({ urls: [url], name: 'bench', clock: realClock, log: createLog('warn') })
  await broker.start()
  await until(() => broker.state().status === 'up')
  const queue = `bench-${type}`
  await broker.declare({
    queues: [{ name: queue, type, maxPriority: null, deadLetter: false }],
    exchanges: [],
    bindings: [],
  })
  const messages = Array.from({ length: BATCH }, (_, index) => ({
    ...{ exchange: '', routingKey: queue, body: 'x'.repeat(bytes) },
    properties: { messageId: `message-${index}` },
  }))

  async function publishAll(): Promise<void> {
    let left = count / BATCH
    const publisher = async () => {
      while (left-- > 0) {
        for (const end of await broker.publish(messages)) if (end !== 'confirmed') throw new Error(`It ended ${end}`)
      }
    }
    await Promise.all(Array.from({ length: CALLS }, publisher))
  }

  async function consumeAll(): Promise<void> {
    let taken = 0
    const subscription = broker.consume(queue, PREFETCH, (deliveries) => {
      taken += deliveries.length
      return deliveries.map(() => Promise.resolve('ack'))
    })
    await until(() => taken === count, { timeoutMs: 60_000 })
    subscription.cancel()
  }

  const perSecond = async (work: () => Promise<unknown>) => {
    const began = performance.now()
    await work()
    return Math.round((count / (performance.now() - began)) * 1_000)
  }
  const publish = await perSecond(publishAll)
  await broker.inspect(queue, { purge: true })
  const throughput = await perSecond(() => Promise.all([publishAll(), consumeAll()]))
  await broker.remove({ kind: 'queue', name: queue, ifEmpty: false, ifUnused: false })
  await broker.stop()
  return { publish, throughput }
}

if (import.meta.main) {
  const engine = await brokerEngine()
  if ('reason' in engine) throw new Error(engine.reason)
  for (const type of ['classic', 'quorum'] as const) {
    for (let round = 0; round < 3; round++) {
      const raw = await rawAmqp(engine.env.TEST_AMQP_URL, { type, count: 30_000 })
      const adapter = await brokerRates(engine.env.TEST_AMQP_URL, { type, count: 30_000 })
      console.log(type, { raw, adapter, rssMiB: process.memoryUsage().rss >> 20 })
    }
  }
  await engine.end()
}
