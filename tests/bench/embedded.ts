import { pino } from 'pino'
import { openDatabase } from '../../src/store/database/database.ts'
import { embeddedConnection } from '../../src/store/postgres/embedded.ts'
import { bareElysia, claimAndSettle } from './calibrate.ts'
import { drainQueue, latencies } from './drain.ts'
import { benchFanOuts } from './fan-out.ts'
import { fill, peak, quantile, rate } from './load.ts'
import { startNode } from './node.ts'
import type { Note } from './report.ts'

/** One node with nothing configured: its own Postgres, the broker inside the process. */
export async function benchEmbedded(note: Note, runtime: 'bun' | 'deno', waitingTasks: number): Promise<void> {
  const node = await startNode(runtime)
  const connection = await embeddedConnection(node.dataDir)
  if (!connection) throw new Error('The embedded Postgres does not run')
  const { pool, close } = openDatabase({ connection, poolSize: 2, log: pino({ level: 'silent' }) })
  const number = async (text: string, values: unknown[]) => Number((await pool.query(text, values)).rows[0]?.n)

  const drain = (queue: string, consumer: object, count: number) => drainQueue(node, pool, queue, consumer, count)

  try {
    for (const queue of ['single', 'warm', 'drain-50', 'drain-500', 'calibration', 'many', 'http', 'latency']) {
      await node.call('PUT', `/queues/${queue}`, {})
    }

    await Bun.sleep(8_000)
    const idleFrom = node.cpuSeconds()
    await Bun.sleep(10_000)
    note('idle: processor, without Postgres', ((node.cpuSeconds() - idleFrom) / 10) * 100, '% of a core', { most: 2 })
    note('idle: resident memory, without Postgres', node.residentMb(), 'MB', { most: 150 })

    const single = (n: number) => node.call('POST', '/tasks', { queue: 'single', type: 'bench', payload: { n } })
    await rate(2_000, 50, single)
    note('submit one by one, 50 callers', await rate(20_000, 50, single), 'tasks/s', { least: 4_000 })
    note('calibration: bare Elysia POST, 50 callers', await bareElysia(), 'requests/s')
    await fill(node, 'warm', 10_000)
    await drain('warm', { target: { type: 'noop' }, concurrency: 50 }, 10_000)
    note('submit in batches of 1,000', await fill(node, 'drain-50', 50_000), 'tasks/s', { least: 15_000 })

    const drained = await peak(node.residentMb, () =>
      drain('drain-50', { target: { type: 'noop' }, concurrency: 50 }, 50_000),
    )
    note('drain 50,000 noop, concurrency 50', drained.result, 'tasks/s', { least: 15_000 })
    note('  resident memory in the drain, without Postgres', drained.peak, 'MB', { most: 400 })
    const batch = Math.round(
      await number(`select count(*)::float8 / count(distinct claim_id) as n from tasks where queue = $1`, ['drain-50']),
    )
    note('  tasks a claim', batch, 'tasks')
    await fill(node, 'calibration', 50_000)
    const calibrated = await claimAndSettle(pool, 'calibration', batch)
    note(`calibration: claim + settle alone, ${batch} a batch`, calibrated, 'tasks/s')
    note('  drain / calibration', drained.result / calibrated, '', { least: 0.5 })

    await fill(node, 'drain-500', 50_000)
    note(
      'drain 50,000 noop, concurrency 500',
      await drain('drain-500', { target: { type: 'noop' }, concurrency: 500 }, 50_000),
      'tasks/s',
    )

    await fill(node, 'http', 20_000)
    const sink = Bun.serve({ port: 0, hostname: '127.0.0.1', fetch: () => new Response('ok') })
    const target = { type: 'http', url: `${sink.url.href}hook` }
    note(
      'http target to a local sink, concurrency 50',
      await drain('http', { target, concurrency: 50 }, 20_000),
      'tasks/s',
      {
        least: 3_000,
      },
    )
    await sink.stop(true)

    await benchFanOuts(node, pool, note)

    await node.call('POST', '/consumers', { queue: 'latency', target: { type: 'noop' }, concurrency: 50 })
    const waits = await latencies(node, pool, 'latency')
    note('submit to finished at 200/s: p50', quantile(waits, 0.5), 'ms', { most: 5 })
    note('submit to finished at 200/s: p99', quantile(waits, 0.99), 'ms', { most: 50 })

    note(
      `submit ${waitingTasks.toLocaleString('en')} in batches of 1,000`,
      await fill(node, 'many', waitingTasks),
      'tasks/s',
    )
    const first = Math.min(200_000, waitingTasks)
    const many = await drain('many', { target: { type: 'noop' }, concurrency: 50 }, first)
    note(
      `drain with ${waitingTasks.toLocaleString('en')} waiting, the first ${first.toLocaleString('en')}`,
      many,
      'tasks/s',
    )
    note('  drain with many waiting / with 50,000', many / drained.result, '', { least: 0.8 })
  } finally {
    await close()
    await node.stop()
  }
}
