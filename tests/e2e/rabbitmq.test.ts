import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import type { NodeProcess } from '../support/node-process.ts'
import { HAS_RABBITMQ, type TestVhost, testVhost } from '../support/rabbitmq.ts'
import { until } from '../support/until.ts'
import { type Installation, install, makeQueue, reached, submit } from './installation.ts'

setDefaultTimeout(90_000)

describe.if(HAS_RABBITMQ)('a node on Postgres and RabbitMQ', () => {
  let vhost: TestVhost
  let installation: Installation
  let node: NodeProcess
  beforeAll(async () => {
    vhost = await testVhost()
    installation = await install('server')
    node = await installation.start({ AMQP_URL: vhost.amqpUrl })
  })
  afterAll(async () => {
    await node.stop()
    await installation[Symbol.asyncDispose]()
    await vhost.remove()
  })

  test('a task goes through its queue at the broker to its target', async () => {
    await makeQueue(node, 'orders')
    const id = await submit(node, { queue: 'orders', payload: { n: 1 }, target: { type: 'noop' } })
    expect(await reached(node, id)).toMatchObject({ status: 'succeeded', attempt: 1, failures: 0 })
    const queues = await vhost.manage<{ name: string; arguments: Record<string, unknown> }[]>(
      'GET',
      `/queues/${vhost.name}`,
    )
    expect(queues.find(({ name }) => name === 'orders')?.arguments).toMatchObject({ 'x-queue-type': 'quorum' })
    expect(queues.map(({ name }) => name)).toContain('orders.dlq')
  })

  test('a failure is tried again, and what failed for good is a dead letter whose message went the way of dead letters', async () => {
    const id = await submit(node, {
      queue: 'orders',
      payload: null,
      target: { type: 'noop', failRate: 1 },
      maxAttempts: 3,
    })
    expect(await reached(node, id)).toMatchObject({ status: 'dead', attempt: 3, failures: 3 })
    const drained = async () => {
      const queue = await vhost.manage<{ messages?: number }>('GET', `/queues/${vhost.name}/orders.dlq`)
      return queue.messages === 0
    }
    await until(drained, { what: 'the listener to have drained the dead letters', timeoutMs: 60_000 })
    expect(await reached(node, id)).toMatchObject({ status: 'dead', attempt: 3 })
  })

  test('a thousand tasks are each run once', async () => {
    await node.call('PUT', '/queues/many', {})
    await node.call('POST', '/consumers', { queue: 'many', target: { type: 'noop' }, concurrency: 50 })
    const tasks = Array.from({ length: 1_000 }, (_, n) => ({ queue: 'many', payload: { n } }))
    await node.call('POST', '/tasks/batch', tasks)
    const { pool } = installation.database
    const done = async () => {
      const { rows } = await pool.query(
        `select count(*)::int as n, max(attempt) as attempt from tasks where queue = 'many' and status = 'succeeded'`,
      )
      return rows[0].n === 1_000 ? rows[0] : undefined
    }
    expect(await until(done, { what: 'all to succeed', timeoutMs: 60_000 })).toEqual({ n: 1_000, attempt: 1 })
  })

  test('a pause keeps tasks from starting, and a resume lets them go on', async () => {
    await makeQueue(node, 'paused')
    await node.call('POST', '/queues/paused/pause')
    const id = await submit(node, { queue: 'paused', payload: 1, target: { type: 'noop' } })
    expect(await reached(node, id, ['pending'])).toMatchObject({ waitingFor: { cause: 'queue-paused' } })
    await node.call('POST', '/queues/paused/resume')
    expect(await reached(node, id)).toMatchObject({ status: 'succeeded', attempt: 1 })
  })
})
