import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import type { NodeProcess } from '../support/node-process.ts'
import { BROKERS, type TestVhost, testVhost } from '../support/rabbitmq.ts'
import { startSink } from '../support/sink.ts'
import { until } from '../support/until.ts'
import { type Installation, install, makeQueue, reached, read, submit } from './installation.ts'

setDefaultTimeout(120_000)

interface Listed {
  id: string
  queue: string
  status: string
  attempt: number
}

describe.each(BROKERS)('exchanges of a node on %s', (broker) => {
  let vhost: TestVhost | undefined
  let installation: Installation
  let node: NodeProcess
  beforeAll(async () => {
    vhost = broker === 'rabbitmq' ? await testVhost() : undefined
    installation = await install('server')
    node = await installation.start(vhost ? { AMQP_URL: vhost.amqpUrl } : {})
    await node.call('PUT', '/exchanges/orders', { type: 'topic' })
    for (const [queue, routingKey] of [
      ['mail', 'eu.*'],
      ['audit', '#'],
    ] as const) {
      await makeQueue(node, queue)
      await node.call('PUT', '/exchanges/orders/bindings', { queue, routingKey })
    }
  }, 60_000)
  afterAll(async () => {
    await node?.stop()
    await installation?.[Symbol.asyncDispose]()
    await vhost?.remove()
  })

  const children = async (id: string) => {
    const { items } = await node.call<{ items: Listed[] }>('GET', `/tasks?parentId=${id}`)
    return items.toSorted((a, b) => (a.queue < b.queue ? -1 : 1))
  }
  const target = (url: string) => ({ type: 'http', url })

  test('every bound queue works on its own child, and the parent ends with the last', async () => {
    await using sink = await startSink()
    const id = await submit(node, {
      ...{ exchange: 'orders', routingKey: 'eu.new', payload: { n: 1 } },
      target: target(sink.url('/hook')),
    })
    expect(await reached(node, id, ['succeeded'])).toMatchObject({
      ...{ queue: 'exchange/orders', exchange: 'orders', routingKey: 'eu.new', attempt: 0 },
      children: { total: 2, succeeded: 2, dead: 0, live: 0 },
    })
    expect(await children(id)).toMatchObject([
      { queue: 'audit', status: 'succeeded', attempt: 1 },
      { queue: 'mail', status: 'succeeded', attempt: 1 },
    ])
    expect(sink.requests).toHaveLength(2)
  })

  test('a child that fails is tried again by itself, makes the parent dead at last, and is replayed with it', async () => {
    await using sink = await startSink()
    let broken = 'mail'
    sink.reply = async ({ task }) => ({ status: (await read(node, task)).queue === broken ? 503 : 200 })
    const id = await submit(node, {
      ...{ exchange: 'orders', routingKey: 'eu.new', payload: 1 },
      target: target(sink.url('/hook')),
    })
    expect(await reached(node, id, ['dead'])).toMatchObject({ children: { succeeded: 1, dead: 1 } })
    expect(await children(id)).toMatchObject([
      { queue: 'audit', status: 'succeeded', attempt: 1 },
      { queue: 'mail', status: 'dead', attempt: 3 },
    ])
    broken = ''
    await node.call('POST', `/tasks/${id}/replay`)
    expect(await reached(node, id, ['succeeded'])).toMatchObject({ children: { succeeded: 2, dead: 0 } })
    expect(sink.requests).toHaveLength(5)
  })

  test('a delayed fan-out waits with all its children, and can be run now or cancelled', async () => {
    const delayed = { exchange: 'orders', routingKey: 'eu.later', payload: 1, delay: '1h', target: { type: 'noop' } }
    const [first, second] = [await submit(node, delayed), await submit(node, delayed)]
    for (const child of await children(first))
      expect(await read(node, child.id)).toMatchObject({ waitingFor: { cause: 'due-later' }, attempt: 0 })
    await node.call('POST', `/tasks/${first}/run-now`)
    expect(await reached(node, first, ['succeeded'])).toMatchObject({ children: { succeeded: 2 } })
    await node.call('POST', `/tasks/${second}/cancel`)
    expect(await reached(node, second, ['cancelled'])).toMatchObject({ children: { dead: 2, live: 0 } })
  })

  test('a schedule may send to an exchange', async () => {
    const task = { exchange: 'orders', routingKey: 'eu.tick', payload: 1, target: { type: 'noop' } }
    await node.call('PUT', '/schedules/tick', { cron: '0 0 1 1 *', timezone: 'UTC', task })
    const { taskId } = await node.call<{ taskId: string }>('POST', '/schedules/tick/run')
    expect(await reached(node, taskId, ['succeeded'])).toMatchObject({ children: { succeeded: 2 }, origin: 'schedule' })
    const unknown = await node.request('PUT', '/schedules/tock', {
      ...{ cron: '0 0 1 1 *', timezone: 'UTC' },
      task: { ...task, exchange: 'nowhere' },
    })
    expect(unknown).toMatchObject({ status: 422, body: { code: 'unknown-exchange' } })
  })

  test('many fan-outs from many callers each reach every queue once', async () => {
    const ids = await Promise.all(
      Array.from({ length: 200 }, (_, n) =>
        submit(node, { exchange: 'orders', routingKey: 'eu.many', payload: { n }, target: { type: 'noop' } }),
      ),
    )
    const { pool } = installation.database
    const done = async () => {
      const { rows } = await pool.query(
        `select count(*)::int as n from tasks where id = any($1::uuid[]) and status = 'succeeded'`,
        [ids],
      )
      return rows[0].n === ids.length
    }
    await until(done, { what: 'all parents to succeed', timeoutMs: 60_000 })
    const { rows } = await pool.query(
      `select count(*)::int as children, count(distinct (parent_id, queue))::int as places, max(attempt) as attempt
       from tasks where parent_id = any($1::uuid[])`,
      [ids],
    )
    expect(rows).toEqual([{ children: 400, places: 400, attempt: 1 }])
    expect(await node.call('GET', '/accounting')).toMatchObject({ unaccounted: 0 })
  })

  if (broker === 'in-process') return
  describe('beside others', () => {
    const manage: TestVhost['manage'] = (method, path, body) => (vhost as TestVhost).manage(method, path, body)
    const there = (path: string) => `/${path}/${vhost?.name}`
    interface Taken {
      payload: string
      exchange: string
      properties: { message_id: string; headers: Record<string, unknown> }
    }
    /** Takes all that a queue holds. */
    const take = (queue: string) =>
      manage<Taken[]>('POST', `${there('queues')}/${queue}/get`, {
        ...{ count: 100, ackmode: 'ack_requeue_false', encoding: 'auto' },
      })
    const bind = (queue: string, exchange: string, key: string) =>
      manage('POST', `${there('bindings')}/e/${exchange}/q/${queue}`, { routing_key: key, arguments: {} })

    test('a queue that is not Longshore’s gets one copy of what is sent, and none of what is tried again', async () => {
      await manage('PUT', `${there('queues')}/foreign`, { durable: true })
      await bind('foreign', 'orders', 'eu.#')
      await node.call('PUT', '/exchanges/files', { type: 'direct' })
      await makeQueue(node, 'csv')
      await node.call('PUT', '/exchanges/files/bindings', { queue: 'csv', routingKey: 'csv' })
      const exchangeIsThere = () => manage('GET', `${there('exchanges')}/files`).catch(() => undefined)
      await until(exchangeIsThere, { what: 'the exchange to be declared', timeoutMs: 30_000 })
      await bind('foreign', 'files', 'csv')
      await using sink = await startSink()
      sink.reply = ({ attempt }) => ({ status: attempt === 1 ? 503 : 200 })
      const hook = target(sink.url('/hook'))
      const many = await submit(node, { exchange: 'orders', routingKey: 'eu.new', payload: { n: 1 }, target: hook })
      const one = await submit(node, { exchange: 'files', routingKey: 'csv', payload: { n: 2 }, target: hook })
      expect(await reached(node, many, ['succeeded'])).toMatchObject({ children: { total: 2 } })
      expect(await reached(node, one, ['succeeded'])).toMatchObject({ queue: 'csv', attempt: 2, children: null })
      const copies = await take('foreign')
      expect(copies.map(({ payload, properties }) => [properties.message_id, payload]).sort()).toEqual(
        [
          [many, '{"n":1}'],
          [one, '{"n":2}'],
        ].sort(),
      )
      expect(copies.map(({ exchange }) => exchange).sort()).toEqual(['files', 'orders'])
    })

    test('a queue of ours that others bound gets a child as well, and the parent waits for it', async () => {
      await makeQueue(node, 'late')
      await until(() => manage('GET', `${there('queues')}/late`).catch(() => undefined), {
        what: 'the queue',
        timeoutMs: 30_000,
      })
      await bind('late', 'orders', 'eu.adopted')
      const id = await submit(node, {
        ...{ exchange: 'orders', routingKey: 'eu.adopted', payload: 1, target: { type: 'noop' } },
      })
      await until(async () => (await read(node, id)).children?.total === 3, {
        what: 'the third child',
        timeoutMs: 30_000,
      })
      await reached(node, id, ['succeeded'])
      expect((await children(id)).map(({ queue, status }) => [queue, status])).toEqual([
        ['audit', 'succeeded'],
        ['late', 'succeeded'],
        ['mail', 'succeeded'],
      ])
    })

    test('a consumer that knows nothing of Longshore reports by the parent and its queue', async () => {
      await node.call('PUT', '/queues/reported', {})
      await node.call('PUT', '/exchanges/orders/bindings', { queue: 'reported', routingKey: 'eu.reported' })
      // Until RabbitMQ has the binding, the queue gets its child by itself.
      const sent = async () => {
        // What an earlier round has brought twice.
        await take('reported').catch(() => [])
        const id = await submit(node, {
          ...{ exchange: 'orders', routingKey: 'eu.reported', payload: { n: 3 }, target: { type: 'noop' } },
        })
        const copy = await until(async () => (await take('reported').catch(() => []))[0], {
          what: 'the copy',
          timeoutMs: 30_000,
        })
        return copy.properties.headers['x-longshore-parent'] === id ? { id, copy } : undefined
      }
      const { id, copy } = await until(sent, { what: 'a copy through the exchange', timeoutMs: 60_000 })
      expect(copy).toMatchObject({ payload: '{"n":3}', exchange: 'orders', properties: { message_id: id } })
      await node.call('PUT', `/tasks/${id}/status`, { status: 'succeeded', queue: 'reported' })
      expect(await reached(node, id, ['succeeded'])).toMatchObject({ children: { total: 3, succeeded: 3 } })
    })

    test('a binding that was just made is used by the very next task', async () => {
      for (let n = 0; n < 10; n++) {
        const queue = `fresh-${n}`
        await makeQueue(node, queue)
        await node.call('PUT', '/exchanges/orders/bindings', { queue, routingKey: 'eu.fresh' })
        const id = await submit(node, {
          ...{ exchange: 'orders', routingKey: 'eu.fresh', payload: n, target: { type: 'noop' } },
        })
        const { status, children: counted } = await reached(node, id, ['succeeded'])
        expect([status, counted?.total]).toEqual(['succeeded', 3 + n])
      }
    }, 200_000)
  })
})
