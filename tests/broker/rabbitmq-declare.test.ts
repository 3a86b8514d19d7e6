import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import type { AMQPChannel, AMQPClient } from '@cloudamqp/amqp-client'
import type { BrokerQueue } from '../../src/broker/broker.ts'
import { queueArguments } from '../../src/broker/rabbitmq/queue-arguments.ts'
import { HAS_RABBITMQ, type TestVhost } from '../support/rabbitmq.ts'
import { type BrokerUnderTest, type VhostUnderTest, vhostUnderTest } from './rabbitmq-under-test.ts'

const queue = (changes: Partial<BrokerQueue> = {}): BrokerQueue => ({
  ...{ name: 'work', type: 'quorum', maxPriority: null, deadLetter: true },
  ...changes,
})

describe('the arguments of a queue', () => {
  test('RabbitMQ 4 is told that a quorum queue has no delivery limit, which RabbitMQ 3 would refuse', () => {
    expect(queueArguments(queue(), '4.1.0')[0]).toMatchObject({ 'x-delivery-limit': -1 })
    expect(queueArguments(queue(), '3.13.7')[0]).not.toHaveProperty('x-delivery-limit')
    expect(queueArguments(queue({ type: 'classic' }), '4.1.0')[0]).not.toHaveProperty('x-delivery-limit')
  })

  test('a queue that was made by another major version is as good', () => {
    const made = queueArguments(queue(), '3.13.7')[0]
    expect(queueArguments(queue(), '4.1.0')).toContainEqual(made as never)
  })
})

describe.if(HAS_RABBITMQ)('declaring at RabbitMQ', () => {
  let place: VhostUnderTest
  let vhost: TestVhost
  let under: BrokerUnderTest
  let foreign: AMQPClient
  let channel: AMQPChannel
  beforeAll(async () => {
    place = await vhostUnderTest()
    ;({ vhost, under, foreign } = place)
    channel = await foreign.channel()
  }, 90_000)
  afterAll(() => place?.[Symbol.asyncDispose]())
  const shown = (name: string) =>
    vhost.manage<{ type: string; durable: boolean; arguments: object }>('GET', `/queues/${vhost.name}/${name}`)

  test('a quorum queue keeps its dead letters until their queue has them; that one is a quorum queue, too', async () => {
    await under.broker.declare({ queues: [queue({ name: 'q' })], exchanges: [], bindings: [] })
    expect(await shown('q')).toMatchObject({
      durable: true,
      arguments: {
        'x-queue-type': 'quorum',
        'x-dead-letter-exchange': 'longshore.dlx',
        'x-dead-letter-routing-key': 'q.dlq',
        'x-dead-letter-strategy': 'at-least-once',
        'x-overflow': 'reject-publish',
      },
    })
    expect((await shown('q.dlq')).arguments).toEqual({ 'x-queue-type': 'quorum' })
    expect(await vhost.manage('GET', `/bindings/${vhost.name}/e/longshore.dlx/q/q.dlq`)).toMatchObject([
      { routing_key: 'q.dlq' },
    ])
  })

  test('a classic queue has its priorities, and dead letters in a classic queue', async () => {
    const classic = queue({ name: 'c', type: 'classic', maxPriority: 9 })
    await under.broker.declare({ queues: [classic], exchanges: [], bindings: [] })
    expect((await shown('c')).arguments).toEqual({
      'x-queue-type': 'classic',
      'x-max-priority': 9,
      'x-dead-letter-exchange': 'longshore.dlx',
      'x-dead-letter-routing-key': 'c.dlq',
    })
    expect((await shown('c.dlq')).arguments).toEqual({ 'x-queue-type': 'classic' })
  })

  test('what is there otherwise is a conflict in words, is not touched, and keeps nothing else from being made', async () => {
    const quorum = { 'x-queue-type': 'quorum' }
    await channel.queueDeclare('other-type', { durable: true }, { 'x-queue-type': 'classic' })
    await channel.queueDeclare('other-priority', { durable: true }, { 'x-queue-type': 'classic', 'x-max-priority': 3 })
    await channel.queueDeclare('other-letters', { durable: true }, { ...quorum, 'x-dead-letter-exchange': 'theirs' })
    await channel.queueDeclare('not-durable', { durable: false, autoDelete: false }, { 'x-queue-type': 'classic' })
    await channel.queueDeclare('exclusive', { durable: false, exclusive: true })
    await channel.exchangeDeclare('other-exchange', 'direct', { durable: true })
    const plain = { deadLetter: false } as const
    const declared = await under.broker.declare({
      queues: [
        queue({ name: 'other-type', ...plain }),
        queue({ name: 'other-priority', type: 'classic', maxPriority: 5, ...plain }),
        queue({ name: 'other-letters' }),
        queue({ name: 'not-durable', type: 'classic', ...plain }),
        queue({ name: 'exclusive', type: 'classic', ...plain }),
        queue({ name: 'fine' }),
      ],
      exchanges: [
        { name: 'other-exchange', type: 'topic' },
        { name: 'amq.reserved', type: 'topic' },
        { name: 'fine-exchange', type: 'topic' },
      ],
      bindings: [
        { exchange: 'other-exchange', queue: 'fine', routingKey: 'a' },
        { exchange: 'fine-exchange', queue: 'other-type', routingKey: 'a' },
        { exchange: 'fine-exchange', queue: 'fine', routingKey: 'a' },
      ],
    })
    const found = Object.fromEntries(declared.conflicts.map(({ name, difference }) => [name, difference]))
    expect(found).toEqual({
      'other-type': "its x-queue-type is 'classic' and should be 'quorum'",
      'other-priority': "its x-max-priority is '3' and should be '5'",
      'other-letters': "its x-dead-letter-exchange is 'theirs' and should be 'longshore.dlx'",
      'not-durable': "its durable is 'false' and should be 'true'",
      exclusive: 'it belongs to another connection alone (exclusive)',
      'other-exchange': "its type is 'direct' and should be 'topic'",
      'amq.reserved': expect.stringContaining('reserved'),
    })
    expect(declared.missing).toEqual(['fine'])
    expect((await shown('other-type')).type).toBe('classic')
    const bindings = await vhost.manage<object[]>('GET', `/exchanges/${vhost.name}/fine-exchange/bindings/source`)
    expect(bindings).toMatchObject([{ destination: 'fine', routing_key: 'a' }])
    // It is no news when it is asked again.
    expect(
      await under.broker.publish([{ exchange: 'fine-exchange', routingKey: 'a', body: '', properties: {} }]),
    ).toEqual(['confirmed'])
  })

  test('a queue that an older server made, without a strategy for dead letters, is taken as it is', async () => {
    const args = {
      'x-queue-type': 'quorum',
      'x-dead-letter-exchange': 'longshore.dlx',
      'x-dead-letter-routing-key': 'old.dlq',
    }
    await channel.queueDeclare('old', { durable: true }, args)
    const declared = await under.broker.declare({ queues: [queue({ name: 'old' })], exchanges: [], bindings: [] })
    expect(declared).toEqual({ missing: [], conflicts: [], wiped: false })
  })

  test('a hundred queues are declared in seconds', async () => {
    const queues = Array.from({ length: 100 }, (_, index) => queue({ name: `many-${index}`, type: 'classic' }))
    const topology = { queues, exchanges: [], bindings: [] }
    const began = performance.now()
    expect((await under.broker.declare(topology)).missing).toHaveLength(100)
    expect(await under.broker.declare(topology)).toEqual({ missing: [], conflicts: [], wiped: false })
    expect(performance.now() - began).toBeLessThan(20_000)
  })
})
