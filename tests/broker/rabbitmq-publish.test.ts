import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import type { AMQPChannel, AMQPClient } from '@cloudamqp/amqp-client'
import type { Message } from '../../src/broker/broker.ts'
import { HAS_RABBITMQ } from '../support/rabbitmq.ts'
import { until } from '../support/until.ts'
import {
  type BrokerUnderTest,
  brokerAt,
  declareQueue,
  isUp,
  messagesTo,
  taker,
  type VhostUnderTest,
  vhostUnderTest,
} from './rabbitmq-under-test.ts'

describe.if(HAS_RABBITMQ)('publishing to RabbitMQ', () => {
  let place: VhostUnderTest
  let under: BrokerUnderTest
  let foreign: AMQPClient
  let channel: AMQPChannel
  beforeAll(async () => {
    place = await vhostUnderTest()
    ;({ under, foreign } = place)
    channel = await foreign.channel()
  }, 90_000)
  afterAll(() => place?.[Symbol.asyncDispose]())
  const depth = async (queue: string) => (await under.broker.inspect(queue))?.messages

  test('messages are kept on disk, and ask to be returned', async () => {
    await declareQueue(under.broker, { name: 'kept' })
    await under.broker.publish(messagesTo('kept', 1))
    const message = await channel.basicGet('kept')
    expect(message?.properties.deliveryMode).toBe(2)
  })

  test('an exchange that somebody deletes costs its own messages at most an unknown, and others nothing', async () => {
    const { broker } = under
    await declareQueue(broker, { name: 'other' })
    await broker.declare({ queues: [], exchanges: [{ name: 'doomed', type: 'fanout' }], bindings: [] })
    const to = (count: number) => messagesTo('', count).map((one): Message => ({ ...one, exchange: 'doomed' }))
    expect(await broker.publish(to(1))).toEqual(['returned'])
    await channel.exchangeDelete('doomed')
    const [doomed, other] = await Promise.all([broker.publish(to(100)), broker.publish(messagesTo('other', 100))])
    expect(new Set(other)).toEqual(new Set(['confirmed']))
    expect(doomed).not.toContain('confirmed')
    expect(new Set(await broker.publish(to(100)))).toEqual(new Set(['returned']))
    await broker.declare({ queues: [], exchanges: [{ name: 'doomed', type: 'fanout' }], bindings: [] })
    await channel.queueBind('other', 'doomed', '')
    await until(async () => (await broker.publish(to(1)))[0] === 'confirmed')
  })

  test('what does not fit into a frame is returned and said, and its neighbours go', async () => {
    const { broker } = under
    await declareQueue(broker, { name: 'frames' })
    const [first, second] = messagesTo('frames', 2) as [Message, Message]
    const ends = await broker.publish([
      first,
      { ...first, properties: { headers: { large: 'x'.repeat(131_073) } } },
      { ...first, properties: { messageId: 'ü'.repeat(128) } },
      { ...first, exchange: 'e'.repeat(256) },
      // A type has 128 characters of any width.
      { ...second, properties: { type: '€'.repeat(128) } },
    ])
    expect(ends).toEqual(['confirmed', 'returned', 'returned', 'returned', 'confirmed'])
    expect(under.log.some(({ event, reason }) => event === 'publish-refused' && `${reason}`.includes('131072'))).toBe(
      true,
    )
    const { taken, handle } = taker('ack')
    const subscription = broker.consume('frames', 10, handle)
    await until(() => taken.length === 2)
    expect(taken[1]?.properties.type).toStartWith('€€€')
    subscription.cancel()
  })

  test('what its user may not write to is refused, all of it at once, and is taken when the right is given', async () => {
    const { amqpUrl, allow } = await place.vhost.writer('^(?!amq[.]default$|closed$).*')
    await using restricted = await brokerAt(amqpUrl)
    const { broker } = restricted
    await isUp(broker)
    await declareQueue(broker, { name: 'refused' })
    const exchanges = (['closed', 'open'] as const).map((name) => ({ name, type: 'fanout' as const }))
    await broker.declare({ queues: [], exchanges, bindings: [] })
    for (const { name } of exchanges) await channel.queueBind('refused', name, '')
    const to = (exchange: string) => messagesTo('', 1).map((one): Message => ({ ...one, exchange }))
    expect(await broker.publish(messagesTo('refused', 1))).toEqual(['refused'])
    expect([await broker.publish(to('closed')), await broker.publish(to('open'))]).toEqual([['refused'], ['confirmed']])
    expect(restricted.log.filter(({ event }) => event === 'publish-refused').map(({ reason }) => reason)).toEqual([
      expect.stringContaining("access to exchange 'amq.default'"),
      expect.stringContaining("access to exchange 'closed'"),
    ])
    // Of many in flight it is not known which was refused; of those one at a time it is, and the rest is not tried.
    const many = await broker.publish(messagesTo('refused', 1_000))
    expect(many).not.toContain('confirmed')
    const again = await broker.publish(messagesTo('refused', 1_000))
    expect(new Set(again)).toEqual(new Set(['refused']))
    await allow('.*')
    expect(new Set(await broker.publish(messagesTo('refused', 100)))).toEqual(new Set(['confirmed']))
  })

  test('a queue that takes no more leaves a publish unknown, and the queue as it is', async () => {
    const { broker } = under
    await channel.queueDeclare('full', { durable: true }, { 'x-max-length': 2, 'x-overflow': 'reject-publish' })
    const ends = await broker.publish(messagesTo('full', 5))
    expect(ends.filter((end) => end === 'confirmed').length).toBe(2)
    expect(ends.filter((end) => end === 'unknown').length).toBe(3)
    expect(await depth('full')).toBe(2)
  })

  test('a message that a missing binding returns is told from one of the same kind that had one', async () => {
    const { broker } = under
    await declareQueue(broker, { name: 'told' })
    await broker.declare({
      queues: [],
      exchanges: [{ name: 'tells', type: 'direct' }],
      bindings: [],
    })
    await channel.queueBind('told', 'tells', 'yes')
    const to = (routingKey: string, messageId: string): Message => ({
      ...{ exchange: 'tells', routingKey, body: '', properties: { messageId } },
    })
    const keys = Array.from({ length: 400 }, (_, index) => (index % 3 === 0 ? 'yes' : 'no'))
    const ends = await broker.publish(keys.map((key, index) => to(key, String(index))))
    expect(ends).toEqual(keys.map((key) => (key === 'yes' ? 'confirmed' : 'returned')))
  })

  test('more destinations than lanes all get theirs, each in order', async () => {
    const { broker } = under
    const queues = Array.from({ length: 100 }, (_, index) => `lane-${index}`)
    await broker.declare({
      queues: queues.map((name) => ({ name, type: 'classic', maxPriority: null, deadLetter: false })),
      exchanges: [],
      bindings: [],
    })
    const messages = Array.from({ length: 20 }, (_, round) => queues.flatMap((queue) => messagesTo(queue, 1, round)))
    const ends = await Promise.all(messages.map((round) => broker.publish(round)))
    expect(new Set(ends.flat())).toEqual(new Set(['confirmed']))
    for (const queue of [queues[0], queues[63], queues[64], queues[99]] as string[]) {
      const { taken, bodies, handle } = taker('ack')
      const subscription = broker.consume(queue, 20, handle)
      await until(() => taken.length === 20)
      expect(bodies()).toEqual(Array.from({ length: 20 }, (_, round) => String(round)))
      subscription.cancel()
    }
  }, 30_000)
})
