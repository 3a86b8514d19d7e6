import { pino } from 'pino'
import { openDatabase } from '../../src/store/database/database.ts'
import { testDatabase } from '../support/database.ts'
import { testVhost } from '../support/rabbitmq.ts'
import { drainQueue, latencies } from './drain.ts'
import { benchFanOuts } from './fan-out.ts'
import { fill, peak, quantile, rate } from './load.ts'
import { startNode } from './node.ts'
import { rawAmqp } from './raw-amqp.ts'
import type { Note } from './report.ts'

const TASKS = 50_000

/** One node on a Postgres server and RabbitMQ, both on this machine. */
export async function benchRabbitMq(note: Note): Promise<void> {
  const database = await testDatabase('server', { poolSize: 2 })
  const url = 'url' in database.connection ? database.connection.url : ''
  const vhost = await testVhost()
  const node = await startNode('bun', { DATABASE_URL: url, AMQP_URL: vhost.amqpUrl })
  const { pool, close } = openDatabase({ connection: { url }, poolSize: 2, log: pino({ level: 'silent' }) })
  const drain = (queue: string, concurrency: number) =>
    drainQueue(node, pool, queue, { target: { type: 'noop' }, concurrency }, TASKS)
  try {
    for (const queue of ['single', 'quorum', 'warm', 'latency']) await node.call('PUT', `/queues/${queue}`, {})
    for (const queue of ['classic', 'classic-500']) await node.call('PUT', `/queues/${queue}`, { type: 'classic' })

    const single = (n: number) => node.call('POST', '/tasks', { queue: 'single', type: 'bench', payload: { n } })
    await rate(2_000, 50, single)
    note('submit one by one, 50 callers', await rate(20_000, 50, single), 'tasks/s', { least: 3_000 })
    await fill(node, 'warm', 10_000)
    await drainQueue(node, pool, 'warm', { target: { type: 'noop' }, concurrency: 50 }, 10_000)
    note('submit in batches of 1,000', await fill(node, 'quorum', TASKS), 'tasks/s', { least: 10_000 })

    const quorum = await peak(node.residentMb, () => drain('quorum', 50))
    note('drain 50,000 noop, quorum, concurrency 50', quorum.result, 'tasks/s', { least: 10_000 })
    note('  resident memory in the drain', quorum.peak, 'MB')
    await fill(node, 'classic', TASKS)
    const classic = await drain('classic', 50)
    note('drain 50,000 noop, classic, concurrency 50', classic, 'tasks/s', { least: 10_000 })
    await fill(node, 'classic-500', TASKS)
    note('drain 50,000 noop, classic, concurrency 500', await drain('classic-500', 500), 'tasks/s')

    for (const [type, drained] of [
      ['quorum', quorum.result],
      ['classic', classic],
    ] as const) {
      const { throughput: raw } = await rawAmqp(vhost.amqpUrl, { type, count: TASKS })
      note(`calibration: raw publish + consume + ack, ${type}`, raw, 'messages/s')
      note(`  drain / calibration, ${type}`, drained / raw, '', { least: 0.4 })
    }

    await benchFanOuts(node, pool, note)

    await node.call('POST', '/consumers', { queue: 'latency', target: { type: 'noop' }, concurrency: 50 })
    const waits = await latencies(node, pool, 'latency')
    note('submit to finished at 200/s: p50', quantile(waits, 0.5), 'ms', { most: 6 })
    note('submit to finished at 200/s: p99', quantile(waits, 0.99), 'ms', { most: 60 })
  } finally {
    await close()
    await node.stop()
    await vhost.remove()
    await database.drop()
  }
}
