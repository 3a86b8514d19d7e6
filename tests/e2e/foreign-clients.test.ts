import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { type ChannelModel, type ConsumeMessage, connect } from 'amqplib'
import { messageOf } from '../../src/runtime/errors.ts'
import type { NodeProcess } from '../support/node-process.ts'
import { HAS_RABBITMQ, type TestVhost, testVhost } from '../support/rabbitmq.ts'
import { until } from '../support/until.ts'
import { type Installation, install, reached, read, submit, type Task } from './installation.ts'
import { callOld, expectOld } from './old-client.ts'

const TIMEOUT_MS = 180_000

/** What clients of others' making tell the API of themselves. */
interface Key {
  id: string
  key: string
}

/** What came as a message. */
interface Adopted extends Task {
  type: string | null
  payload: unknown
  message: { unreadable?: true; body?: string; headers: object; properties: { messageId?: string } }
}

// Side by side: one of them waits until a rescuer may act.
describe.if(HAS_RABBITMQ)('amqplib, which knows nothing of Longshore', () => {
  let vhost: TestVhost
  let installation: Installation
  let node: NodeProcess
  const connections: ChannelModel[] = []
  let mine: Key
  beforeAll(async () => {
    vhost = await testVhost()
    installation = await install('server')
    node = await installation.start({ AMQP_URL: vhost.amqpUrl })
    mine = await node.call<Key>('POST', '/keys', { name: 'the consumer', scopes: ['work'] })
  })
  afterAll(async () => {
    // One that is closed already says so.
    await Promise.allSettled(connections.map((connection) => connection.close()))
    await node?.stop()
    await installation?.[Symbol.asyncDispose]()
    await vhost?.remove()
  })

  /** Reports what became of a message as `PUT /tasks/:id/status`, by its headers unless `body` says otherwise. */
  async function report(message: ConsumeMessage, body: object) {
    const { 'x-longshore-task': id, 'x-longshore-attempt': attempt } = message.properties.headers ?? {}
    const response = await fetch(`${await node.listening}/api/v1/tasks/${id}/status`, {
      method: 'PUT',
      headers: { authorization: `Bearer ${mine.key}`, 'content-type': 'application/json' },
      body: JSON.stringify({ attempt, ...body }),
    })
    return { status: response.status, body: (await response.json()) as { code?: string } }
  }

  /** A connection of its own, which ends with the test's file at the latest. */
  async function connected(): Promise<ChannelModel> {
    const connection = await connect(vhost.amqpUrl)
    connections.push(connection)
    connection.on('error', () => {})
    return connection
  }

  /** A consumer, begun as soon as the queue is there, and its messages in the order of their arrival. */
  async function consume(queue: string) {
    const waiting: ConsumeMessage[] = []
    const begun = async () => {
      const connection = await connected()
      const channel = await connection.createChannel()
      channel.on('error', () => {})
      try {
        await channel.prefetch(10)
        await channel.consume(queue, (message) => void (message && waiting.push(message)))
        return channel
      } catch (error) {
        // What is not there costs the channel, and what has no leader yet the connection.
        if (!/NOT_FOUND|INTERNAL_ERROR|Channel ended/.test(messageOf(error))) throw error
        await connection.close().catch(() => {})
        return undefined
      }
    }
    const channel = await until(begun, { what: `queue ${queue} to be there`, timeoutMs: 40_000 })
    const next = () => until(() => waiting.shift(), { what: `a message of ${queue}`, timeoutMs: 80_000 })
    return { channel, next }
  }

  /** A queue without consumers of ours, a task in it, and the consumer that gets it. */
  async function given(queue: string, policy: object = {}) {
    await node.call('PUT', `/queues/${queue}`, policy)
    const id = await submit(node, { queue, payload: { of: queue } })
    const { channel, next } = await consume(queue)
    const message = await next()
    expect(message.properties.headers).toMatchObject({ 'x-longshore-task': id, 'x-longshore-attempt': 1 })
    return { id, channel, next, message }
  }

  /** Closes the channel, which gives back what is not acked, and tells how much the queue then has. */
  async function left({ channel }: Pick<Awaited<ReturnType<typeof consume>>, 'channel'>, queue: string) {
    await channel.close()
    const other = await (await connected()).createChannel()
    const { messageCount } = await other.checkQueue(queue)
    await other.close()
    return messageCount
  }

  test.concurrent(
    'takes a task, reports its result and acks',
    async () => {
      const { id, channel, message } = await given('reported')
      expect(JSON.parse(message.content.toString())).toEqual({ of: 'reported' })
      expect(message.properties).toMatchObject({ messageId: id, contentType: 'application/json' })
      expect((await report(message, { status: 'succeeded', result: { seen: 1 } })).status).toBe(200)
      channel.ack(message)
      expect(await reached(node, id)).toMatchObject({
        ...{ status: 'succeeded', attempt: 1, failures: 0, result: { seen: 1 } },
        attempts: [{ number: 1, outcome: 'succeeded', node: `foreign:${mine.id}` }],
      })
      expect(await left({ channel }, 'reported')).toBe(0)
    },
    TIMEOUT_MS,
  )

  test.concurrent(
    'reports that it began and then rejects: the task is dead at once, by the one that had it',
    async () => {
      const { id, channel, message } = await given('begun')
      expect((await report(message, { status: 'running' })).status).toBe(200)
      expect(await read(node, id)).toMatchObject({ status: 'running', attempt: 1 })
      channel.reject(message, false)
      expect(await reached(node, id)).toMatchObject({
        ...{ status: 'dead', attempt: 1, failures: 1, error: 'A consumer rejected it' },
        attempts: [{ number: 1, outcome: 'failed', node: `foreign:${mine.id}`, error: 'A consumer rejected it' }],
      })
      expect((await report(message, { status: 'succeeded' })).status).toBe(409)
      await channel.close()
    },
    TIMEOUT_MS,
  )

  test.concurrent(
    'rejects what it never reported: the task is dead, and its replay is taken as the next attempt',
    async () => {
      const { id, channel, next, message } = await given('rejected')
      channel.reject(message, false)
      expect(await reached(node, id)).toMatchObject({
        ...{ status: 'dead', attempt: 1, failures: 1, error: 'A consumer rejected it' },
        attempts: [{ number: 1, outcome: 'failed', node: null }],
      })
      await node.call('POST', `/tasks/${id}/replay`)
      const again = await next()
      expect(again.properties.headers?.['x-longshore-attempt']).toBe(2)
      await report(again, { status: 'succeeded' })
      channel.ack(again)
      expect(await reached(node, id)).toMatchObject({ status: 'succeeded', attempt: 2 })
      await channel.close()
    },
    TIMEOUT_MS,
  )

  test.concurrent(
    'gives a message back to the queue: it comes again as the same attempt, and succeeds',
    async () => {
      const { id, channel, next, message } = await given('returned')
      expect(message.fields.redelivered).toBe(false)
      expect((await report(message, { status: 'running' })).status).toBe(200)
      channel.nack(message, false, true)
      const again = await next()
      expect(again.fields.redelivered).toBe(true)
      expect(again.properties.headers).toMatchObject({ 'x-longshore-task': id, 'x-longshore-attempt': 1 })
      for (const status of ['running', 'succeeded']) expect((await report(again, { status })).status).toBe(200)
      channel.ack(again)
      expect(await reached(node, id)).toMatchObject({
        ...{ status: 'succeeded', attempt: 1, failures: 0 },
        attempts: [{ number: 1, outcome: 'succeeded' }],
      })
      expect(await left({ channel }, 'returned')).toBe(0)
    },
    TIMEOUT_MS,
  )

  test.concurrent(
    'says nothing for longer than the queue allows: the next attempt is sent, and a report for the first is refused',
    async () => {
      // Over before a rescuer looks for the first time, after 15 s; and time enough for the second attempt.
      const { id, channel, next, message } = await given('silent', { reportWithin: '10s' })
      const again = await next()
      expect(again.properties.headers).toMatchObject({ 'x-longshore-task': id, 'x-longshore-attempt': 2 })
      // By the same key, as two consumers of one program have: only the number of the attempt tells them apart.
      expect((await report(again, { status: 'running' })).status).toBe(200)

      const late = { status: 'succeeded', result: 'of the first attempt' }
      expect(await report(message, late)).toMatchObject({ status: 409, body: { code: 'conflict' } })
      expect(await report(message, { ...late, attempt: undefined })).toMatchObject({
        status: 409,
        body: { code: 'conflict' },
      })
      // Nor does its rejection end what the other one has begun: that was judged when a later one is.
      channel.reject(message, false)
      const later = await submit(node, { queue: 'silent', payload: 'later' })
      channel.reject(await next(), false)
      expect(await reached(node, later)).toMatchObject({ status: 'dead', attempt: 1 })
      expect(await read(node, id)).toMatchObject({ status: 'running', attempt: 2 })

      expect((await report(again, { status: 'succeeded', result: 'of the second' })).status).toBe(200)
      channel.ack(again)
      expect(await report(message, late)).toMatchObject({ status: 409 })
      expect(await reached(node, id)).toMatchObject({
        ...{ status: 'succeeded', attempt: 2, failures: 0, result: 'of the second' },
        attempts: [
          { number: 1, outcome: 'lost', error: 'no consumer reported in time' },
          { number: 2, outcome: 'succeeded', node: `foreign:${mine.id}` },
        ],
      })
      expect(await left({ channel }, 'silent')).toBe(0)
    },
    TIMEOUT_MS,
  )

  test.concurrent(
    'publishes JSON, text and bytes: each is a task once, and poison a dead letter with its bytes',
    async () => {
      const queue = 'published'
      await node.call('PUT', `/queues/${queue}`, {})
      await node.call('POST', '/consumers', { queue, target: { type: 'noop' } })
      // A task that went through it shows that the broker has it.
      await reached(node, await submit(node, { queue, payload: 0 }))
      const channel = await (await connected()).createConfirmChannel()
      const returned: unknown[] = []
      channel.on('return', (message) => returned.push(message))
      const send = (body: string | Uint8Array, options: object = {}) =>
        channel.sendToQueue(queue, Buffer.from(body), { mandatory: true, ...options })
      const order = { messageId: 'order-17', headers: { from: 'amqplib', tries: 3 }, type: 'order' }
      send('{"order": 17}', order)
      send('{"order": 17}', order)
      send('text and no JSON')
      send(new Uint8Array([0xff, 0xfe, 0x00]), { messageId: 'bytes', headers: { from: 'amqplib' } })
      send('{"n": "\\u0000"}', { messageId: 'json' })
      await channel.waitForConfirms()
      expect(returned).toEqual([])

      const adopted = async () => {
        const { items } = await node.call<{ items: Adopted[] }>('GET', `/tasks?queue=${queue}&origin=message`)
        return items.length >= 4 && items.every(({ status }) => ['succeeded', 'dead'].includes(status))
          ? items
          : undefined
      }
      const items = await until(adopted, { what: 'the messages to be tasks that are over', timeoutMs: 60_000 })
      expect(items).toHaveLength(4)
      const withPayload = (payload: unknown) => items.find((task) => Bun.deepEquals(task.payload, payload))
      expect(withPayload({ order: 17 })).toMatchObject({
        ...{ status: 'succeeded', type: 'order', attempt: 1 },
        message: { headers: order.headers, properties: { messageId: 'order-17' } },
      })
      expect(withPayload({ raw: 'text and no JSON' })).toMatchObject({ status: 'succeeded', attempt: 1 })
      const poison = (messageId: string) => items.find(({ message }) => message.properties.messageId === messageId)
      expect(poison('bytes')).toMatchObject({
        ...{ status: 'dead', error: 'Its body is not UTF-8' },
        message: { unreadable: true, body: '//4A', headers: { from: 'amqplib' } },
      })
      expect(poison('json')).toMatchObject({
        ...{ status: 'dead', error: expect.stringContaining('JSON that cannot be kept') },
        message: { unreadable: true, body: btoa('{"n": "\\u0000"}') },
      })

      // A producer that never saw its confirm sends it again, when the task is long over.
      send('{"order": 17}', order)
      send('"the last"')
      await channel.waitForConfirms()
      const all = await until(async () => ((await adopted())?.length === 5 ? adopted() : undefined), {
        what: 'the last one to be over',
        timeoutMs: 60_000,
      })
      expect(all.map(({ payload }) => payload)).toContain('the last')
      await channel.close()
    },
    TIMEOUT_MS,
  )

  test.concurrent(
    'of the older task service reports IN_PROGRESS and rejects: the task is an ERROR',
    async () => {
      const queue = 'ipr.task'
      // A queue that is there already comes without a consumer that imitates work.
      await node.call('PUT', `/queues/${queue}`, {})
      const { id } = await expectOld(node, 201, 'POST', '/api/v1/create-task', { json: { text: 'to be rejected' } })
      const { channel, next } = await consume(queue)
      const message = await next()
      const payload = JSON.parse(message.content.toString())
      expect(payload).toEqual({ id, text: 'to be rejected' })
      const status = async () =>
        (await expectOld(node, 200, 'GET', `/api/v1/get-task-data?taskId=${payload.id}`)).status as string
      const json = { taskId: payload.id, taskStatus: 'IN_PROGRESS' }
      await expectOld(node, 200, 'PUT', '/api/v1/update-task-status', { json, key: mine.key })
      expect(await status()).toBe('IN_PROGRESS')
      channel.reject(message, false)
      await until(async () => (await status()) === 'ERROR', { what: 'the task to be an ERROR', timeoutMs: 60_000 })
      const success = { taskId: payload.id, taskStatus: 'SUCCESS' }
      expect((await callOld(node, 'PUT', '/api/v1/update-task-status', { json: success, key: mine.key })).status).toBe(
        409,
      )
      expect(await read(node, id)).toMatchObject({ status: 'dead', attempts: [{ node: `foreign:${mine.id}` }] })
      await channel.close()
    },
    TIMEOUT_MS,
  )
})
