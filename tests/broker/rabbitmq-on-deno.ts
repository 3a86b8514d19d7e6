// usage: deno run --allow-all rabbitmq-on-deno.ts <amqp-url>
// A broker on Deno through a link that the test harms: says each step on a line of its own, and waits for what comes of it.
import process from 'node:process'
import { createRabbitMqBroker } from '../../src/broker/rabbitmq.ts'
import { realClock } from '../../src/runtime/clock.ts'
import { createLog } from '../../src/runtime/log.ts'
import { until } from '../support/until.ts'

const [url = ''] = process.argv.slice(2)
const broker = createRabbitMqBroker({
  urls: [url],
  name: 'deno',
  clock: realClock,
  log: createLog('silent'),
  heartbeatSeconds: 2,
})
await broker.start()
const say = (line: string) => process.stdout.write(`${line}\n`)
const taken = new Set<string>()

async function roundTrip(name: string): Promise<void> {
  await until(() => broker.state().status === 'up')
  const messages = Array.from({ length: 1_000 }, (_, index) => ({
    ...{ exchange: '', routingKey: 'deno', body: `${name} ${index}`, properties: { headers: { ratio: 0.1 } } },
  }))
  const ends = await broker.publish(messages)
  if (ends.some((end) => end !== 'confirmed')) throw new Error(`It ended ${ends}`)
  await until(() => messages.every(({ body }) => taken.has(body)))
}

await until(() => broker.state().status === 'up')
const queue = { name: 'deno', type: 'quorum' as const, maxPriority: null, deadLetter: true }
await broker.declare({ queues: [queue], exchanges: [], bindings: [] })
broker.consume('deno', 100, (deliveries) =>
  deliveries.map(({ body, properties }) => {
    if (properties.headers?.ratio === 0.1) taken.add(Buffer.from(body as Uint8Array).toString())
    return Promise.resolve('ack')
  }),
)
await roundTrip('first')
say('cut')
await until(() => broker.state().status === 'down')
await roundTrip('second')
say('freeze')
await until(() => broker.state().reason?.includes('no sign of life'))
say('thaw')
await roundTrip('third')
await broker.stop()
say('done')
