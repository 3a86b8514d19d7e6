import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { startFaultProxy } from '../support/fault-proxy.ts'
import { foreignClient } from '../support/foreign-client.ts'
import type { NodeProcess } from '../support/node-process.ts'
import { HAS_RABBITMQ, type TestVhost, testVhost } from '../support/rabbitmq.ts'
import { startSink } from '../support/sink.ts'
import { until } from '../support/until.ts'
import { type Installation, install, reached, type Task } from './installation.ts'
import { expectOld } from './old-client.ts'

describe.if(HAS_RABBITMQ)('what the older systems meet on RabbitMQ', () => {
  let vhost: TestVhost
  let home: Installation
  beforeAll(async () => {
    vhost = await testVhost()
    home = await install('embedded')
  })
  afterAll(async () => {
    await home[Symbol.asyncDispose]()
    await vhost.remove()
  })

  /** Publishes bytes as a client that knows nothing of Longshore. */
  const publish = (queue: string, body: Uint8Array | string) => vhost.publish(queue, body, { delivery_mode: 2 })
  /** The tasks of a queue that came as messages, when there are `count` and all are over. */
  const adopted = (node: NodeProcess, queue: string, count: number) =>
    until(
      async () => {
        const { items } = await node.call<{ items: Task[] }>('GET', `/tasks?queue=${queue}&origin=message`)
        return items.length === count && items.every(({ status }) => ['succeeded', 'dead'].includes(status))
          ? items
          : undefined
      },
      { what: `${count} messages of ${queue} to be over`, timeoutMs: 60_000 },
    )
  const exists = (queue: string) =>
    until(
      async () => {
        const queues = await vhost.manage<{ name: string }[]>('GET', `/queues/${vhost.name}`)
        return queues.some(({ name }) => name === queue)
      },
      { what: `the broker to have ${queue}`, timeoutMs: 30_000 },
    )

  test('an old producer’s texts are printed, one that is not UTF-8 is a dead letter, and the old declarations still fit', async () => {
    const node = await home.start({ AMQP_URL: vhost.amqpUrl })
    await expectOld(node, 202, 'POST', '/create-job', { json: { message: 'the first' } })
    await exists('task_queue')
    await publish('task_queue', 'Hello World')
    await publish('task_queue', new Uint8Array([0x48, 0xff, 0xfe]))
    await publish('task_queue', '"json text"')
    const tasks = await adopted(node, 'task_queue', 3)
    expect(tasks.map(({ status }) => status).sort()).toEqual(['dead', 'succeeded', 'succeeded'])
    expect(tasks.find(({ status }) => status === 'dead')?.error).toContain('not UTF-8')
    const logs = await Promise.all(
      tasks.filter(({ status }) => status === 'succeeded').map(async ({ id }) => (await reached(node, id)).logs),
    )
    expect(logs.flat().sort()).toEqual(['Hello World', 'json text'])
    // What a client declares must be what is there, or its channel is closed.
    await vhost.manage('PUT', `/queues/${vhost.name}/task_queue`, { durable: true, auto_delete: false, arguments: {} })
    expect((await node.call<{ unaccounted: number }>('GET', '/accounting')).unaccounted).toBe(0)
    await node.stop()
  }, 180_000)

  test('what the clients of files and of jobs declare is what is there, and an old producer’s list entry is a dead letter', async () => {
    const node = await home.start({ AMQP_URL: vhost.amqpUrl })
    const connection = { host: '127.0.0.1', port: 21, username: 'bank', password: 'secret', content_type: 'csv' }
    await expectOld(node, 201, 'POST', '/ftp/api/create/', { json: connection })
    await expectOld(node, 201, 'POST', '/api/jobs', { json: { type: 'report', payload: null } })
    const files = ['ftp.csv', 'ftp.json', 'ftp.xml']
    const sinks = ['job_db_updates_queue', 'job_csv_updates_queue']
    for (const queue of [...files, ...sinks, 'notification_queue']) await exists(queue)
    await using foreign = await foreignClient(vhost)
    const { channel } = foreign
    await channel.exchangeDeclare('ftp_exchange', 'topic', { durable: true })
    for (const queue of files) {
      await channel.queueDeclare(queue, { durable: true })
      await channel.queueBind(queue, 'ftp_exchange', queue)
    }
    await channel.exchangeDeclare('fanout_exchange', 'fanout', { durable: true })
    for (const queue of [...sinks, 'notification_queue']) await channel.queueDeclare(queue, { durable: true })
    for (const queue of sinks) await channel.queueBind(queue, 'fanout_exchange', '')

    await channel.confirmSelect()
    await channel.basicPublish('ftp_exchange', 'ftp.csv', JSON.stringify(connection), { deliveryMode: 2 })
    const [task] = await adopted(node, 'ftp.csv', 1)
    expect(task).toMatchObject({ status: 'dead', attempt: 1, error: expect.stringContaining('make it a source') })
    await node.stop()
  }, 180_000)

  test('a consumer of orders keeps poison of other producers as dead letters, sends the good ones, and shows its connections', async () => {
    await using sink = await startSink()
    const node = await home.start({
      AMQP_URL: vhost.amqpUrl,
      PROCESS_ORDER_URL: sink.url('/order'),
      SECRET_KEY: 'hush hush',
    })
    await expectOld(node, 201, 'POST', '/createQueue', { json: { queueName: 'orders' } })
    await expectOld(node, 201, 'POST', '/createConsumer', { json: { queueName: 'orders' } })
    await exists('orders')
    await publish('orders', 'clientId=1&shipmentPackageId=2')
    await publish('orders', new Uint8Array([0xc3, 0x28]))
    await publish('orders', '{"clientId":1}')
    await publish('orders', '{"clientId":1,"shipmentPackageId":2}')
    const tasks = await adopted(node, 'orders', 4)
    expect(tasks.map(({ status }) => status).sort()).toEqual(['dead', 'dead', 'dead', 'succeeded'])
    const errors = tasks.map(({ error }) => error ?? '').join('\n')
    for (const reason of ['not a JSON object', 'not UTF-8', 'lacks shipmentPackageId']) expect(errors).toContain(reason)
    expect(sink.requests.map(({ body }) => new URLSearchParams(body).get('client_id'))).toEqual(['1'])
    const unread = tasks.find(({ error }) => error?.includes('not UTF-8'))?.id
    await until(() => node.logged('message-failed').length >= 3, { what: 'the log to tell of the dead letters' })
    const lines = node.logged('message-failed')
    expect(lines.map(({ task }) => task).sort()).toEqual(
      tasks.flatMap(({ id, status }) => (status === 'dead' ? [id] : [])).sort(),
    )
    expect(lines.find(({ task }) => task === unread)).toMatchObject({
      queue: 'orders',
      retryable: false,
      error: 'Its body is not UTF-8',
    })
    const connections = await until(
      async () => {
        const found = await expectOld(node, 200, 'GET', '/getConnections')
        return found.length > 0 ? found : undefined
      },
      { what: 'the beat to tell of connections', timeoutMs: 60_000 },
    )
    expect(connections[0]).toMatchObject({ connectionId: expect.any(String), host: expect.any(String) })
    expect(JSON.stringify(connections)).not.toContain(new URL(vhost.amqpUrl).password)
    await node.stop()
  }, 180_000)

  test('queues are told with the messages and consumers of others, and by the ledger alone while the broker is away', async () => {
    const url = new URL(vhost.amqpUrl)
    await using proxy = await startFaultProxy({ host: url.hostname, port: Number(url.port) })
    url.host = `${proxy.host}:${proxy.port}`
    const node = await home.start({ AMQP_URL: url.href })
    const queueName = 'shared'
    const told = () => expectOld(node, 200, 'POST', '/getQueueInfo', { json: { queueName } })
    await expectOld(node, 201, 'POST', '/createQueue', { json: { queueName } })
    await exists(queueName)
    expect(await told()).toEqual({ queueName, messages: 0, consumers: 0 })

    const ours = await expectOld(node, 200, 'POST', '/messagePublish', { json: { queueName, message: 1 } })
    // While it is on its way it may be counted here and, by the other message, there.
    await reached(node, ours.taskId, ['queued'])
    await publish(queueName, 'of somebody else')
    const both = { queueName, messages: 2, consumers: 0 }
    const isListed = async () =>
      (await expectOld(node, 200, 'GET', '/getQueues')).some((one: object) => Bun.deepEquals(one, both))
    await until(isListed, { what: 'both messages to be listed', timeoutMs: 30_000 })
    await until(async () => Bun.deepEquals(await told(), both), { what: 'both messages to be told', timeoutMs: 30_000 })
    await expectOld(node, 409, 'POST', '/deleteQueue', { json: { queueName, ifEmpty: true } })

    await using foreign = await foreignClient(vhost)
    await foreign.channel.prefetch(1)
    await foreign.channel.basicConsume(queueName, { noAck: false }, () => {})
    await until(async () => (await told()).consumers === 1, { what: 'the consumer to be told', timeoutMs: 30_000 })
    await expectOld(node, 409, 'POST', '/deleteQueue', { json: { queueName, ifUnused: true } })

    proxy.setFault({ kind: 'refuse' })
    proxy.cutAll()
    await until(async () => (await told()).consumers === 0, { what: 'the ledger to tell alone', timeoutMs: 30_000 })
    expect(await told()).toEqual({ queueName, messages: 1, consumers: 0 })
    expect(await expectOld(node, 200, 'GET', '/getQueues')).toContainEqual({ queueName, messages: 1, consumers: 0 })
    await node.kill()
  }, 180_000)

  test('a job is accepted while the broker is away, and runs when it is back', async () => {
    const url = new URL(vhost.amqpUrl)
    await using proxy = await startFaultProxy({ host: url.hostname, port: Number(url.port) })
    url.host = `${proxy.host}:${proxy.port}`
    proxy.setFault({ kind: 'refuse' })
    const node = await home.start({ AMQP_URL: url.href })
    const before = await expectOld(node, 202, 'GET', '/create-job/before')
    proxy.setFault({ kind: 'none' })
    expect((await reached(node, before.id, ['succeeded'], 90_000)).logs).toEqual(['before'])
    proxy.setFault({ kind: 'refuse' })
    proxy.cutAll()
    const during = await Promise.all(
      Array.from({ length: 50 }, (_, n) => expectOld(node, 202, 'GET', `/create-job/${n}`)),
    )
    proxy.setFault({ kind: 'none' })
    for (const { id } of during) await reached(node, id, ['succeeded'], 90_000)
    expect((await node.call<{ unaccounted: number }>('GET', '/accounting')).unaccounted).toBe(0)
    await node.stop()
  }, 240_000)
})
