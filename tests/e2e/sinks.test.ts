import { expect, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { pino } from 'pino'
import { openDatabase } from '../../src/store/database/database.ts'
import { embeddedConnection } from '../../src/store/postgres/embedded.ts'
import { ENGINES, type Engine } from '../support/database.ts'
import type { NodeProcess } from '../support/node-process.ts'
import { until } from '../support/until.ts'
import { type Installation, install, reached, submit, type Task } from './installation.ts'

for (const engine of ENGINES) {
  test(`${engine}: tasks end as rows of a table, as lines of a file, and as messages to another queue`, async () => {
    await using home = await install(engine)
    const node = await home.start()
    await using sql = await database(engine, home, node)
    await sql.query('create schema data; create table data.orders (id int primary key, amount decimal(10,2) not null)')
    await consume(node, 'rows', { type: 'table', table: 'orders' })
    await consume(node, 'lines', { type: 'csv', path: 'shop/orders.csv', columns: ['id', 'amount'] })
    await consume(node, 'messages', { type: 'publish', routingKey: 'rows' })
    await consume(node, 'nowhere', { type: 'publish', routingKey: 'no.such.queue' })

    const to = (queue: string, payload: unknown) => submit(node, { queue, payload })
    const numbers = Array.from({ length: 50 }, (_, n) => n)
    const good = await Promise.all([
      ...numbers.map((id) => to('rows', { id, amount: `${id}.10` })),
      ...numbers.map((id) => to('lines', { id, amount: `${id}.10` })),
      ...numbers.map((id) => to('messages', { id: 1_000 + id, amount: 1 })),
    ])
    for (const id of good) expect((await reached(node, id)).error).toBeNull()
    const messages = async () => {
      const { items } = await node.call<{ items: Task[] }>('GET', '/tasks?queue=rows&status=succeeded&limit=500')
      return items.length
    }
    await until(async () => (await messages()) === 100, { what: 'the rows of the messages', timeoutMs: 40_000 })
    expect(await sql.query('select count(*)::int as count, sum(amount)::text as sum from data.orders')).toEqual([
      { count: 100, sum: '1280.00' },
    ])
    const [header, ...lines] = readFileSync(join(node.dataDir, 'out/shop/orders.csv'), 'utf8').split('\r\n')
    expect(header).toBe('id,amount')
    expect(lines.filter(Boolean).sort()).toEqual(numbers.map((id) => `${id},${id}.10`).sort())

    const bad = await reached(node, await to('rows', { id: 1, amount: 'much' }))
    expect(bad).toMatchObject({
      status: 'dead',
      error: expect.stringContaining('column "amount": invalid input syntax'),
    })
    const lost = await reached(node, await to('nowhere', {}))
    expect(lost).toMatchObject({
      status: 'dead',
      error: 'There is no queue "no.such.queue": make it, then replay the task',
    })
    const refused = await node.request('POST', '/tasks', {
      payload: {},
      target: { type: 'table', table: 'public.tasks' },
    })
    expect(refused).toMatchObject({ status: 422, body: { errors: [{ path: '/target/table' }] } })
    await node.stop()
  }, 180_000)
}

/** The test's own way to the database of a node. */
async function database(engine: Engine, home: Installation, node: NodeProcess) {
  const connection = engine === 'embedded' ? await embeddedConnection(node.dataDir) : home.database.connection
  if (!connection) throw new Error('The embedded Postgres does not run')
  const opened = openDatabase({ connection, poolSize: 1, log: pino({ level: 'silent' }) })
  return {
    query: async (text: string) => (await opened.pool.query(text)).rows,
    [Symbol.asyncDispose]: () => opened.close(),
  }
}

async function consume(node: NodeProcess, queue: string, target: object): Promise<void> {
  await node.call('PUT', `/queues/${queue}`, { retry: { maxAttempts: 3, backoff: { kind: 'fixed', base: '50ms' } } })
  await node.call('POST', '/consumers', { queue, target, concurrency: 50, timeout: '30s' })
}
