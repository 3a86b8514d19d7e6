import { expect, test } from 'bun:test'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { NodeProcess } from '../support/node-process.ts'
import { HAS_RABBITMQ } from '../support/rabbitmq.ts'
import { startSink } from '../support/sink.ts'
import { until } from '../support/until.ts'
import { type OnRabbitMq, onRabbitMq } from './on-rabbitmq.ts'

const COUNTS = { http: 4_000, rows: 6_000, lines: 6_000, fan: 2_000, unsteady: 1_500, doomed: 300, unwanted: 200 }
/** Each fan-out is a parent and two children. */
const ALL = Object.values(COUNTS).reduce((sum, count) => sum + count, 0) + 2 * COUNTS.fan
const BATCH = 500

test.skipIf(!HAS_RABBITMQ)(
  `of ${ALL.toLocaleString('en')} tasks of every kind none is lost or doubled while RabbitMQ is killed twice`,
  async () => {
    await using on = await onRabbitMq()
    await using sink = await startSink()
    const node = await on.start()
    await setUp(on, node, sink.url('/hook'))

    const sending = submitAll(node)
    for (const done of [4_000, 12_000]) {
      await until(async () => (await final(on)) > done, { timeoutMs: 180_000, what: `${done} tasks to be final` })
      await on.rabbit.kill()
      await on.rabbit.start()
    }
    await sending
    await on.quiet(240_000)

    expect(await node.call('GET', '/accounting')).toMatchObject({
      accepted: ALL,
      succeeded: ALL - COUNTS.doomed - COUNTS.unwanted,
      dead: COUNTS.doomed,
      cancelled: COUNTS.unwanted,
      live: 0,
      unaccounted: 0,
    })
    await eachRowOnce(on)
    await eachLineOnce(node)
    const { rows } = await on.installation.database.pool.query(
      `select count(*)::int as parents, sum(children_total)::int as children, sum(children_succeeded)::int as succeeded
       from tasks where exchange = 'fan' and parent_id is null`,
    )
    expect(rows[0]).toEqual({ parents: COUNTS.fan, children: 2 * COUNTS.fan, succeeded: 2 * COUNTS.fan })
    // Every HTTP task was delivered, and no attempt of one twice.
    const attempts = sink.requests.map(({ task, attempt }) => `${task}/${attempt}`)
    expect(new Set(attempts).size).toBe(attempts.length)
    expect(new Set(sink.requests.map(({ task }) => task)).size).toBe(COUNTS.http)
    await node.stop()
  },
  600_000,
)

async function setUp(
  { installation: { database }, declared }: OnRabbitMq,
  node: NodeProcess,
  hook: string,
): Promise<void> {
  await database.pool.query('create schema data')
  await database.pool.query('create table data.mixed (n integer not null)')
  const targets = {
    http: { type: 'http', url: hook },
    rows: { type: 'table', table: 'mixed' },
    lines: { type: 'csv', path: 'mixed.csv' },
    'fan-a': { type: 'noop' },
    'fan-b': { type: 'noop' },
    unsteady: { type: 'noop', failRate: 0.3 },
    doomed: { type: 'noop', deadRate: 1 },
    unwanted: { type: 'noop' },
  }
  const retry = { maxAttempts: 50, backoff: { kind: 'fixed', base: '100ms' } }
  for (const [queue, target] of Object.entries(targets)) {
    await node.call('PUT', `/queues/${queue}`, { retry })
    await node.call('POST', '/consumers', { queue, target, concurrency: 50 })
  }
  await node.call('PUT', '/exchanges/fan', { type: 'fanout' })
  for (const queue of ['fan-a', 'fan-b']) await node.call('PUT', '/exchanges/fan/bindings', { queue, routingKey: '' })
  await declared(Object.keys(targets))
}

/** Of every kind in turn; each batch is sent again until it is answered as stored. */
async function submitAll(node: NodeProcess): Promise<void> {
  const left = new Map<string, number>(Object.entries(COUNTS))
  let n = 0
  while (left.size > 0) {
    for (const [kind, count] of left) {
      const size = Math.min(BATCH, count)
      const tasks = Array.from({ length: size }, () => ({ payload: { n: n++ }, ...addressOf(kind) }))
      const { ids } = await node.call<{ ids: string[] }>('POST', '/tasks/batch', tasks)
      if (kind === 'unwanted') for (const id of ids) await node.call('POST', `/tasks/${id}/cancel`)
      if (count === size) left.delete(kind)
      else left.set(kind, count - size)
    }
  }
}

function addressOf(kind: string): object {
  if (kind === 'fan') return { exchange: 'fan', routingKey: '' }
  return kind === 'unwanted' ? { queue: kind, delay: '1h' } : { queue: kind }
}

async function final({ installation }: OnRabbitMq): Promise<number> {
  const { rows } = await installation.database.pool.query(
    `select count(*)::int as n from tasks where status in ('succeeded', 'dead', 'cancelled')`,
  )
  return rows[0].n
}

async function eachRowOnce({ installation }: OnRabbitMq): Promise<void> {
  const { rows } = await installation.database.pool.query(
    'select count(*)::int as rows, count(distinct n)::int as tasks from data.mixed',
  )
  expect(rows[0]).toEqual({ rows: COUNTS.rows, tasks: COUNTS.rows })
}

async function eachLineOnce(node: NodeProcess): Promise<void> {
  const [header, ...lines] = (await readFile(join(node.dataDir, 'out', 'mixed.csv'), 'utf8')).trim().split(/\r?\n/)
  expect(header).toBe('n')
  expect({ lines: lines.length, tasks: new Set(lines).size }).toEqual({ lines: COUNTS.lines, tasks: COUNTS.lines })
}
