/*
 * `bun run bench`: what Longshore does on this machine, default settings, fsync on, consumers made over HTTP.
 * The node is a process of its own; this process is its client, its HTTP sink and its watch. Writes bench-result.json.
 * `--waiting 100000` takes fewer than a million for the last part; `--deno` runs the node on Deno.
 */
import { cpus, totalmem } from 'node:os'
import { parseArgs } from 'node:util'
import { pino } from 'pino'
import { openDatabase } from '../../src/store/database.ts'
import { embeddedConnection } from '../../src/store/postgres/embedded.ts'
import { bareElysia, claimAndSettle } from './calibrate.ts'
import { fill, peak, quantile, rate, reached } from './load.ts'
import { startNode } from './node.ts'

interface Row {
  what: string
  value: number
  unit: string
  /** What is to be reached, as a bound on `value`. */
  goal?: { least: number } | { most: number }
}
const rows: Row[] = []
const note = (what: string, value: number, unit: string, goal?: Row['goal']) => {
  rows.push({ what, value, unit, ...(goal && { goal }) })
  console.log(`${what.padEnd(58)} ${shown(value).padStart(9)} ${unit}${goal ? `   (goal ${goalText(goal)})` : ''}`)
}
const shown = (value: number) => (value >= 100 ? Math.round(value).toLocaleString('en') : value.toFixed(2))
const goalText = (goal: NonNullable<Row['goal']>) =>
  'least' in goal ? `>= ${goal.least.toLocaleString('en')}` : `<= ${goal.most.toLocaleString('en')}`

const { values: flags } = parseArgs({
  options: { waiting: { type: 'string', default: '1000000' }, deno: { type: 'boolean', default: false } },
})
const waitingTasks = Number(flags.waiting)
const node = await startNode(flags.deno ? 'deno' : 'bun')
const connection = await embeddedConnection(node.dataDir)
if (!connection) throw new Error('The embedded Postgres does not run')
const { pool, close } = openDatabase({ connection, poolSize: 2, log: pino({ level: 'silent' }) })
const number = async (text: string, values: unknown[]) => Number((await pool.query(text, values)).rows[0]?.n)

/** Gives a queue a consumer and waits until `count` of its tasks have succeeded; gives tasks a second by Postgres's clock. */
async function drain(queue: string, consumer: object, count: number): Promise<number> {
  const { id } = await node.call<{ id: string }>('POST', '/consumers', { queue, ...consumer })
  // Asks for the count in Postgres rather than over HTTP, so that asking costs next to nothing.
  await reached(async () => (await number(FINISHED_COUNT, [queue, count])) >= count)
  await node.call('DELETE', `/consumers/${id}`)
  return number(FINISH_RATE, [queue])
}
const FINISHED_COUNT = `select count(*) as n from (
  select from tasks where queue = $1 and status = 'succeeded' limit $2) t`
const FINISH_RATE = `select count(*) / extract(epoch from max(finished_at) - min(started_at)) as n
  from tasks where queue = $1 and status = 'succeeded'`

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

  await node.call('POST', '/consumers', { queue: 'latency', target: { type: 'noop' }, concurrency: 50 })
  const sent = new Map<string, number>()
  const calls: Promise<void>[] = []
  const began = performance.now()
  for (let n = 0; n < 2_000; n++) {
    await Bun.sleep(Math.max(0, began + n * 5 - performance.now()))
    const at = performance.timeOrigin + performance.now()
    calls.push(
      node
        .call<{ id: string }>('POST', '/tasks', { queue: 'latency', type: 'bench', payload: { n } })
        .then(({ id }) => void sent.set(id, at)),
    )
  }
  await Promise.all(calls)
  await reached(async () => (await number(FINISHED_COUNT, ['latency', 2_000])) >= 2_000)
  const { rows: finished } = await pool.query<{ id: string; at: string }>(
    `select id, extract(epoch from finished_at) * 1000 as at from tasks where queue = 'latency'`,
  )
  const latencies = finished.map(({ id, at }) => Number(at) - (sent.get(id) ?? Number.NaN))
  note('submit to finished at 200/s: p50', quantile(latencies, 0.5), 'ms', { most: 5 })
  note('submit to finished at 200/s: p99', quantile(latencies, 0.99), 'ms', { most: 50 })

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

  const machine = `${cpus().length} x ${cpus()[0]?.model.trim()}, ${Math.round(totalmem() / 2 ** 30)} GiB, Bun ${Bun.version}`
  await Bun.write('bench-result.json', `${JSON.stringify({ at: new Date().toISOString(), machine, rows }, null, 2)}\n`)
  console.log(`\n${machine}; bench-result.json is written`)
} finally {
  await close()
  await node.stop()
}
