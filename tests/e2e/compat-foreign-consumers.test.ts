import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import type { AMQPMessage } from '@cloudamqp/amqp-client'
import { messageOf } from '../../src/runtime/errors.ts'
import { type ForeignClient, foreignClient } from '../support/foreign-client.ts'
import type { NodeProcess } from '../support/node-process.ts'
import { HAS_RABBITMQ, type TestVhost, testVhost } from '../support/rabbitmq.ts'
import { until } from '../support/until.ts'
import { consumersFollowed, type Installation, install } from './installation.ts'
import { callOld, expectOld } from './old-client.ts'

const ATTEMPT = 'x-longshore-attempt'

describe.if(HAS_RABBITMQ)('consumers of older systems at RabbitMQ', () => {
  let vhost: TestVhost
  let home: Installation
  let node: NodeProcess
  const clients: ForeignClient[] = []
  beforeAll(async () => {
    vhost = await testVhost()
    home = await install('embedded')
    node = await home.start({ AMQP_URL: vhost.amqpUrl })
  })
  afterAll(async () => {
    await Promise.allSettled(clients.map((client) => client[Symbol.asyncDispose]()))
    await node.stop()
    await home[Symbol.asyncDispose]()
    await vhost.remove()
  })

  /** Takes from a queue as soon as the broker has it; what is taken stays in the consumer's hands until the test ends it. */
  async function consume(queue: string): Promise<() => Promise<AMQPMessage>> {
    const taken: AMQPMessage[] = []
    const begun = async () => {
      const client = await foreignClient(vhost)
      try {
        await client.channel.basicConsume(queue, { noAck: false }, (message) => void taken.push(message))
        clients.push(client)
        return true
      } catch (error) {
        await Promise.resolve(client[Symbol.asyncDispose]()).catch(() => {})
        // A queue that is not there costs the channel, and one without a leader yet the connection.
        if (!/NOT_FOUND|INTERNAL_ERROR|closed/i.test(messageOf(error))) throw error
        return false
      }
    }
    await until(begun, { what: `the broker to have ${queue}`, timeoutMs: 40_000 })
    return () => until(() => taken.shift(), { what: `a message of ${queue}`, timeoutMs: 60_000 })
  }
  const bodyOf = (message: AMQPMessage) => JSON.parse(message.bodyToString() ?? '')
  const attemptOf = ({ properties }: AMQPMessage) => Number(properties.headers?.[ATTEMPT])

  test('of the task service take a task with its id and attempt, report over REST, and then ack, requeue or reject', async () => {
    await node.call('PUT', '/queues/ipr.task', { retry: { maxAttempts: 5, backoff: { kind: 'fixed', base: '50ms' } } })
    const { key } = await node.call<{ key: string }>('POST', '/keys', { name: 'old consumer', scopes: ['work'] })
    const next = await consume('ipr.task')
    const make = async (text: string) =>
      (await expectOld(node, 201, 'POST', '/api/v1/create-task', { json: { text } })).id as string
    const report = async (taskId: string, taskStatus: string, attempt?: number) => {
      const query = new URLSearchParams({ taskId, taskStatus, ...(attempt && { attempt: String(attempt) }) })
      return (await callOld(node, 'PUT', `/api/v1/update-task-status?${query}`, { key })).status
    }
    const became = (id: string, status: string) =>
      until(async () => (await expectOld(node, 200, 'GET', `/api/v1/get-task-data?taskId=${id}`)).status === status, {
        what: `${id} to become ${status}`,
        timeoutMs: 60_000,
      })

    const done = await make('Tu etwas ✓')
    const message = await next()
    expect([bodyOf(message), attemptOf(message)]).toEqual([{ id: done, text: 'Tu etwas ✓' }, 1])
    await became(done, 'WAIT_WORK')
    expect([await report(done, 'IN_PROGRESS'), await report(done, 'SUCCESS')]).toEqual([200, 200])
    await message.ack()
    await became(done, 'SUCCESS')

    const requeued = await make('requeue me')
    await (await next()).nack(true)
    const again = await next()
    expect([bodyOf(again).id, attemptOf(again), again.redelivered]).toEqual([requeued, 1, true])
    expect(await report(requeued, 'IN_PROGRESS')).toBe(200)
    await again.nack(true)
    const third = await next()
    expect([bodyOf(third).id, attemptOf(third)]).toEqual([requeued, 1])
    expect([await report(requeued, 'IN_PROGRESS'), await report(requeued, 'SUCCESS')]).toEqual([200, 200])
    await third.ack()
    await became(requeued, 'SUCCESS')

    const retried = await make('fails once')
    const failing = await next()
    expect([await report(retried, 'IN_PROGRESS'), await report(retried, 'WAIT_WORK')]).toEqual([200, 200])
    await failing.ack()
    const second = await next()
    expect([bodyOf(second).id, attemptOf(second)]).toEqual([retried, 2])
    expect(await report(retried, 'IN_PROGRESS')).toBe(409)
    expect([await report(retried, 'IN_PROGRESS', 2), await report(retried, 'SUCCESS', 2)]).toEqual([200, 200])
    await second.ack()

    for (const begun of [false, true]) {
      const rejected = await make('reject me')
      const refused = await next()
      if (begun) expect(await report(rejected, 'IN_PROGRESS')).toBe(200)
      await refused.reject(false)
      await became(rejected, 'ERROR')
    }
    expect((await node.call<{ unaccounted: number }>('GET', '/accounting')).unaccounted).toBe(0)
  }, 240_000)

  test('of jobs are told by the notification queue which one is over, and how, and need not report', async () => {
    const post = async () =>
      (await expectOld(node, 201, 'POST', '/api/jobs', { json: { type: 'report', payload: { n: 1 } } })).id as string
    const first = await post()
    const next = await consume('notification_queue')
    const message = await next()
    expect(bodyOf(message)).toEqual({ id: first, status: 'COMPLETED' })
    await message.ack()

    const consumers = await node.call<{ items: { id: string }[] }>('GET', '/consumers?queue=job_csv_updates_queue')
    for (const { id } of consumers.items) {
      await node.call('PATCH', `/consumers/${id}`, { target: { type: 'noop', deadRate: 1 } })
    }
    await consumersFollowed(node)
    const failed = await post()
    const bad = await next()
    expect(bodyOf(bad)).toEqual({ id: failed, status: 'FAILED' })
    await bad.ack()
  }, 180_000)
})
