import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { join } from 'node:path'
import { freePort } from '../support/free-port.ts'
import type { NodeProcess } from '../support/node-process.ts'
import { HAS_RABBITMQ, type TestVhost, testVhost } from '../support/rabbitmq.ts'
import { until } from '../support/until.ts'
import { type Installation, install, makeQueue, reached, read, submit } from './installation.ts'

setDefaultTimeout(90_000)

const ADMIN_KEY = 'ls_wiped_admin_key_for_this_test'

interface Shown {
  state: string
  conflict: string | null
}
interface Managed {
  name: string
  type: string
  messages?: number
  arguments: Record<string, unknown>
}

describe.if(HAS_RABBITMQ)('the topology of RabbitMQ', () => {
  let vhost: TestVhost
  let installation: Installation
  let node: NodeProcess
  beforeAll(async () => {
    vhost = await testVhost()
    installation = await install('server')
    node = await installation.start({ AMQP_URL: vhost.amqpUrl, RABBITMQ_MANAGEMENT_URL: vhost.managementUrl })
  }, 90_000)
  afterAll(async () => {
    await node.stop()
    await installation[Symbol.asyncDispose]()
    await vhost.remove()
  }, 90_000)

  const atBroker = (name: string) =>
    vhost.manage<Managed>('GET', `/queues/${vhost.name}/${name}`).catch(() => undefined)
  const isThere = (name: string) =>
    until(() => atBroker(name), { what: `queue ${name} at the broker`, timeoutMs: 30_000 })
  const isGone = (name: string) =>
    until(async () => !(await atBroker(name)), { what: `the end of ${name}`, timeoutMs: 30_000 })
  /** A queue that nobody consumes, with a task in it. */
  const withTask = async (name: string) => {
    await node.call('PUT', `/queues/${name}`, {})
    const id = await submit(node, { queue: name, payload: { n: 1 } })
    await reached(node, id, ['queued'])
    return id
  }
  const holds = (name: string, messages: number) =>
    until(async () => ((await countIn(name)) === messages ? true : undefined), {
      what: `${messages} messages in ${name}`,
      timeoutMs: 40_000,
    })
  /** As a client sees it, at once; what the management API shows is seconds old. */
  const countIn = async (name: string) => {
    // Not ack_requeue_true, with which they come back some time after the answer.
    const look = { count: 100, ackmode: 'reject_requeue_true', encoding: 'auto' }
    const got = await vhost.manage<unknown[]>('POST', `/queues/${vhost.name}/${name}/get`, look).catch(() => undefined)
    return got?.length
  }

  test('a queue that the broker has otherwise stands still alone, says why, and goes on when it is mended', async () => {
    await vhost.manage('PUT', `/queues/${vhost.name}/differs`, { durable: true, arguments: {} })
    await makeQueue(node, 'differs')
    const shows = (state: string) => async () => {
      const queue = await node.call<Shown>('GET', '/queues/differs')
      return queue.state === state ? queue : undefined
    }
    const differing = await until(shows('conflict'), { what: 'the conflict', timeoutMs: 30_000 })
    expect(differing.conflict).toContain('x-dead-letter-exchange')
    const id = await submit(node, { queue: 'differs', payload: 1, target: { type: 'noop' } })
    const isHeldUp = async () => {
      const task = await read(node, id)
      return task.waitingFor?.cause === 'broker-blocked' ? task : undefined
    }
    // Before its next beat nobody knows that the node has reached the broker.
    const task = await until(isHeldUp, { what: 'the task to say that it is held up', timeoutMs: 30_000 })
    expect(task).toMatchObject({ status: 'pending' })
    expect(await reached(node, await submit(node, { payload: 1, target: { type: 'noop' } }))).toMatchObject({
      status: 'succeeded',
    })

    await vhost.manage('DELETE', `/queues/${vhost.name}/differs`)
    await until(shows('ready'), { what: 'the end of the conflict', timeoutMs: 60_000 })
    expect(await reached(node, id)).toMatchObject({ status: 'succeeded', attempt: 1 })
    expect((await atBroker('differs'))?.type).toBe('quorum')
  }, 150_000)

  test('11: tasks of a queue that somebody deletes are sent again, whether a consumer is on it or not', async () => {
    const id = await withTask('deleted')
    expect((await read(node, id)).waitingFor).toMatchObject({ cause: 'waiting-in-broker' })
    await vhost.manage('DELETE', `/queues/${vhost.name}/deleted`)
    // The next publish finds it gone.
    const next = await submit(node, { queue: 'deleted', payload: 2 })
    await holds('deleted', 2)
    expect(await read(node, next)).toMatchObject({ status: 'queued' })
    await node.call('POST', '/consumers', { queue: 'deleted', target: { type: 'noop' } })
    for (const one of [id, next]) expect(await reached(node, one)).toMatchObject({ status: 'succeeded', attempt: 1 })

    await vhost.manage('DELETE', `/queues/${vhost.name}/deleted`)
    const third = await submit(node, { queue: 'deleted', payload: 3 })
    expect(await reached(node, third)).toMatchObject({ status: 'succeeded', attempt: 1 })
  }, 150_000)

  test('resend sends again what somebody purged; our own purge cancels or returns, and empties the broker', async () => {
    const id = await withTask('purged')
    await holds('purged', 1)
    await vhost.manage('DELETE', `/queues/${vhost.name}/purged/contents`)
    expect(await node.call('POST', '/queues/purged/resend')).toEqual({ returned: 1 })
    await holds('purged', 1)

    await node.call('POST', '/queues/purged/pause')
    const purge = { confirm: 'purged', queued: 'return' }
    expect(await node.call('POST', '/queues/purged/purge', purge)).toEqual({ cancelled: 0, returned: 1 })
    expect(await read(node, id)).toMatchObject({ status: 'pending', waitingFor: { cause: 'queue-paused' } })
    await holds('purged', 0)
    await node.call('POST', '/queues/purged/resume')
    await holds('purged', 1)
    expect(await node.call('POST', '/queues/purged/purge', { confirm: 'purged' })).toMatchObject({ cancelled: 1 })
    await holds('purged', 0)
    expect(await read(node, id)).toMatchObject({ status: 'cancelled' })
  }, 150_000)

  test('a message with headers bears them at the broker, beside our own, for whoever consumes there', async () => {
    await node.call('PUT', '/queues/headed', {})
    const { id } = await node.call<{ id: string }>('POST', '/queues/headed/messages', {
      ...{ body: { to: 'ada' }, headers: { tenant: 'acme', tries: 2 }, priority: 3 },
    })
    const look = { count: 1, ackmode: 'reject_requeue_true', encoding: 'auto' }
    const got = await until(
      async () => {
        const found = await vhost.manage<unknown[]>('POST', `/queues/${vhost.name}/headed/get`, look).catch(() => [])
        return found.length > 0 ? found : undefined
      },
      { what: 'the message', timeoutMs: 40_000 },
    )
    expect(got).toMatchObject([
      {
        payload: '{"to":"ada"}',
        properties: {
          message_id: id,
          headers: { tenant: 'acme', tries: 2, 'x-longshore-task': id, 'x-longshore-attempt': 1 },
        },
      },
    ])
  })

  test('a queue is deleted at the broker with its dead-letter queue; messages that are no tasks keep it', async () => {
    await node.call('PUT', '/queues/leaving', {})
    await isThere('leaving')
    await vhost.publish('leaving', 'hello')
    const kept = await node.request<{ code: string }>('DELETE', '/queues/leaving')
    expect([kept.status, kept.body.code]).toEqual([409, 'queue-not-empty'])
    expect((await node.request('DELETE', '/queues/leaving?confirm=leaving')).status).toBe(204)
    await isGone('leaving')
    await isGone('leaving.dlq')
    expect((await node.request('GET', '/queues/leaving')).status).toBe(404)
  })

  test('exchanges and bindings are made and go at the broker', async () => {
    await node.call('PUT', '/queues/bound', {})
    await node.call('PUT', '/exchanges/orders', { type: 'topic' })
    await node.call('PUT', '/exchanges/orders/bindings', { queue: 'bound', routingKey: 'eu.*' })
    const keys = async () => {
      const found = await vhost
        .manage<{ routing_key: string }[]>('GET', `/bindings/${vhost.name}/e/orders/q/bound`)
        .catch(() => [])
      return found.map(({ routing_key }) => routing_key)
    }
    await until(async () => (await keys()).includes('eu.*'), { what: 'the binding', timeoutMs: 30_000 })
    const unbound = await node.request('DELETE', '/exchanges/orders/bindings', { queue: 'bound', routingKey: 'eu.*' })
    expect([unbound.status, await keys()]).toEqual([204, []])
    expect((await node.request('DELETE', '/exchanges/orders')).status).toBe(204)
    // A declaration that was under way may have made it once more: whoever did takes it away.
    const exchanges = async () =>
      (await vhost.manage<{ name: string }[]>('GET', `/exchanges/${vhost.name}`)).map(({ name }) => name)
    await until(async () => !(await exchanges()).includes('orders'), { what: 'the end of the exchange' })
  })

  test('connections are listed, ours by what they are for, and so is the node’s own view of the broker', async () => {
    const listed = async () => {
      const answer = await node.call<{ items: Record<string, unknown>[]; complete: boolean }>('GET', '/connections')
      // The management API tells of a new connection after seconds.
      return answer.complete && answer.items.length === 2 && answer.items.every(({ user }) => user) ? answer : undefined
    }
    const { items } = await until(listed, { what: 'both connections in full', timeoutMs: 60_000 })
    expect(items.map(({ purpose, ours }) => [purpose, ours])).toEqual([
      ['consume', true],
      ['publish', true],
    ])
    expect(items[0]).toMatchObject({
      user: 'guest',
      peer: expect.stringContaining('127.0.0.1:'),
      node: expect.any(String),
    })
    const { items: nodes } = await node.call<{ items: unknown[] }>('GET', '/nodes')
    expect(nodes).toMatchObject([{ broker: `rabbitmq:${vhost.name}`, state: { link: { status: 'up' } } }])
    const ready = await fetch(`${await node.listening}/health/ready`)
    expect(await ready.json()).toMatchObject({
      status: 'ready',
      checks: expect.arrayContaining([{ name: 'broker', ok: true, detail: 'RabbitMQ' }]),
    })
  }, 100_000)

  test('12: a node with another broker refuses to start, and says which node differs', async () => {
    const other = installation.spawn({ DATA_DIR: 'other' })
    await expect(other.listening).rejects.toThrow(/uses the broker rabbitmq:test-\w+, and this one in-process/)
    expect(await other.exited).toBe(1)
  }, 100_000)
})

describe.if(HAS_RABBITMQ)('a RabbitMQ that lost everything', () => {
  test('11: everything is made anew, and what it held is sent again, by whichever node comes first', async () => {
    await using vhost = await testVhost()
    await using installation = await install('server')
    const nodes = await Promise.all(
      ['one', 'two'].map((dir) =>
        installation.start({
          ...{ AMQP_URL: vhost.amqpUrl, DATA_DIR: join(installation.path, dir), LONGSHORE_ADMIN_KEY: ADMIN_KEY },
        }),
      ),
    )
    const [node] = nodes as [NodeProcess]
    for (const queue of ['wiped', 'quiet']) await node.call('PUT', `/queues/${queue}`, {})
    const ids = await Promise.all(Array.from({ length: 200 }, (_, n) => submit(node, { queue: 'wiped', payload: n })))
    const quiet = await submit(node, { queue: 'quiet', payload: 0 })
    const queued = async () => {
      const { rows } = await installation.database.pool.query(
        `select count(*)::int as n from tasks where status = 'queued'`,
      )
      return rows[0].n
    }
    await until(async () => (await queued()) === 201, { what: 'all to be at the broker', timeoutMs: 30_000 })

    await vhost.manage('DELETE', `/vhosts/${vhost.name}`)
    await vhost.manage('PUT', `/vhosts/${vhost.name}`)
    await vhost.manage('PUT', `/permissions/${vhost.name}/guest`, { configure: '.*', write: '.*', read: '.*' })
    const messages = (queue: string) =>
      vhost
        .manage<unknown[]>('POST', `/queues/${vhost.name}/${queue}/get`, {
          ...{ count: 500, ackmode: 'reject_requeue_true', encoding: 'auto' },
        })
        .then(({ length }) => length)
        .catch(() => 0)
    await until(async () => (await messages('quiet')) >= 1, { what: 'the quiet task at the broker', timeoutMs: 60_000 })
    for (const queue of ['wiped', 'quiet']) {
      await node.call('POST', '/consumers', { queue, target: { type: 'noop' } })
    }
    for (const id of [...ids, quiet]) expect(await reached(node, id)).toMatchObject({ status: 'succeeded', attempt: 1 })
    expect(nodes.flatMap((one) => one.logged('broker-wiped')).length).toBeGreaterThan(0)
    for (const one of nodes) await one.stop()
  }, 240_000)
})

describe.if(HAS_RABBITMQ)('a RabbitMQ that is not there', () => {
  test('tasks are accepted and say that the broker is down; the node is degraded, and nothing of the broker is half-done', async () => {
    await using installation = await install('server')
    const node = await installation.start({ AMQP_URL: `amqp://127.0.0.1:${await freePort()}` })
    await makeQueue(node, 'waits')
    const id = await submit(node, { queue: 'waits', payload: 1, target: { type: 'noop' } })
    const told = await until(
      async () => {
        const task = await read(node, id)
        return task.waitingFor?.detail.includes('refuses connections') ? task : undefined
      },
      // Its first beat is before its first try.
      { what: 'the cause', timeoutMs: 30_000 },
    )
    expect(told.waitingFor).toMatchObject({ cause: 'broker-down' })
    const ready = await fetch(`${await node.listening}/health/ready`)
    expect([ready.status, ((await ready.json()) as { status: string }).status]).toEqual([200, 'degraded'])
    const removal = await node.request<{ code: string }>('DELETE', '/queues/waits?confirm=waits')
    expect([removal.status, removal.body.code]).toEqual([503, 'broker-unavailable'])
    expect((await read(node, id)).status).toBe('pending')
    await node.stop()
  }, 100_000)
})
