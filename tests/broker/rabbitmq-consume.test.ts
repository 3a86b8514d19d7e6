import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import type { AMQPChannel, AMQPClient } from '@cloudamqp/amqp-client'
import { UNREADABLE_HEADER } from '../../src/broker/wire-form.ts'
import { HAS_RABBITMQ, type TestVhost } from '../support/rabbitmq.ts'
import { until } from '../support/until.ts'
import {
  type BrokerUnderTest,
  declareQueue,
  messagesTo,
  taker,
  textOf,
  type VhostUnderTest,
  vhostUnderTest,
} from './rabbitmq-under-test.ts'

describe.if(HAS_RABBITMQ)('a subscription at RabbitMQ', () => {
  let place: VhostUnderTest
  let vhost: TestVhost
  let under: BrokerUnderTest
  let foreign: AMQPClient
  let channel: AMQPChannel
  beforeAll(async () => {
    place = await vhostUnderTest()
    ;({ vhost, under, foreign } = place)
  }, 90_000)
  afterAll(() => place?.[Symbol.asyncDispose]())
  afterEach(async () => {
    for (const { name } of await vhost.manage<{ name: string }[]>('GET', `/queues/${vhost.name}`)) {
      await vhost.manage('DELETE', `/queues/${vhost.name}/${encodeURIComponent(name)}`)
    }
  })
  const consumersOf = async (queue: string) => (await under.broker.inspect(queue))?.consumers

  test('outlives the deletion of its queue: it says so, and takes again when the queue is there', async () => {
    const { broker } = under
    await declareQueue(broker, { name: 'deleted' })
    const { taken, handle } = taker('ack')
    const subscription = broker.consume('deleted', 10, handle)
    await broker.publish(messagesTo('deleted', 1))
    await until(() => taken.length === 1)
    await vhost.manage('DELETE', `/queues/${vhost.name}/deleted`)
    await until(() => broker.state().reason?.includes("no queue 'deleted'"))
    expect(broker.state().status).toBe('up')
    expect(under.log.find(({ event, queue }) => event === 'consumer-lost' && queue === 'deleted')).toBeDefined()
    await declareQueue(broker, { name: 'deleted' })
    await broker.publish(messagesTo('deleted', 1, 1))
    await until(() => taken.length === 2)
    expect(broker.state().reason).toBeNull()
    subscription.cancel()
  })

  test('waits for a queue that comes later', async () => {
    const { broker } = under
    const { taken, handle } = taker('ack')
    const subscription = broker.consume('later', 10, handle)
    await until(() => broker.state().reason !== null)
    channel = await foreign.channel()
    await channel.queueDeclare('later', { durable: true })
    await channel.basicPublish('', 'later', 'hello')
    await until(() => taken.length === 1)
    subscription.cancel()
  })

  test('does not come while another client consumes alone, says so, and comes when that one goes', async () => {
    const { broker } = under
    await declareQueue(broker, { name: 'taken' })
    channel = await foreign.channel()
    const alone = await channel.basicConsume('taken', { exclusive: true }, () => {})
    const { taken, handle } = taker('ack')
    const subscription = broker.consume('taken', 10, handle)
    await until(() => broker.state().reason?.includes("queue 'taken' in vhost"))
    expect(broker.state().reason).toContain('in exclusive use')
    await alone.cancel()
    await broker.publish(messagesTo('taken', 1))
    await until(() => taken.length === 1)
    await until(() => broker.state().reason === null)
    subscription.cancel()
  })

  test('outlives its channel, which the server closes with what is out; that comes again, and late ends break nothing', async () => {
    const { broker } = under
    await declareQueue(broker, { name: 'closed' })
    const { taken, bodies, handle, end } = taker()
    const subscription = broker.consume('closed', 10, handle)
    await broker.publish(messagesTo('closed', 3))
    await until(() => taken.length === 3)
    // The same user, told to go: RabbitMQ has no order to close a channel, but it closes all of a connection.
    await closeConnections('test consume')
    await until(() => taken.length === 6)
    for (const index of [0, 1, 2]) end(index, 'dead-letter')
    for (const index of [3, 4, 5]) end(index)
    expect(bodies().slice(3).sort()).toEqual(['0', '1', '2'])
    await until(async () => (await broker.inspect('closed'))?.messages === 0)
    expect(await broker.inspect('closed.dlq')).toMatchObject({ messages: 0 })
    await until(async () => (await consumersOf('closed')) === 1)
    subscription.cancel()
  }, 60_000)

  /** Closes connections by their name, as an operator would. */
  async function closeConnections(name: string): Promise<void> {
    // It tells of a new connection after seconds.
    const ours = await until(
      async () => {
        const all = await vhost.manage<Connection[]>('GET', `/vhosts/${vhost.name}/connections`)
        const found = all.filter((one) => one.user_provided_name === name)
        return found.length > 0 && found
      },
      { what: `the connections "${name}"`, timeoutMs: 40_000 },
    )
    for (const one of ours) await vhost.manage('DELETE', `/connections/${encodeURIComponent(one.name)}`)
  }

  test('a long delivery does not keep the acks of later ones, and the prefetch stays filled', async () => {
    const { broker } = under
    await declareQueue(broker, { name: 'long' })
    await broker.publish(messagesTo('long', 200))
    const { taken, handle, end } = taker()
    const subscription = broker.consume('long', 10, handle)
    let ended = 1
    // All but the first one end.
    await until(() => {
      while (ended < taken.length) end(ended++)
      return taken.length === 200
    })
    while (ended < 200) end(ended++)
    await until(async () => (await broker.inspect('long'))?.messages === 0)
    end(0)
    subscription.cancel()
    await until(async () => (await consumersOf('long')) === 0)
    // Everything was acked: nothing comes back.
    await until(async () => (await broker.inspect('long'))?.messages === 0)
    const again = taker('ack')
    const second = broker.consume('long', 10, again.handle)
    await until(async () => (await consumersOf('long')) === 1)
    expect(again.taken).toHaveLength(0)
    second.cancel()
  })

  test('a prefetch that changes little does not disturb the consumer at once, one that doubles does', async () => {
    const { broker } = under
    await declareQueue(broker, { name: 'stepped' })
    await broker.publish(messagesTo('stepped', 100))
    const { taken, handle } = taker()
    const subscription = broker.consume('stepped', 10, handle)
    await until(() => taken.length === 10)
    subscription.setPrefetch(15)
    subscription.setPrefetch(20)
    // The ten that are out belonged to the consumer before.
    await until(() => taken.length === 30)
    subscription.setPrefetch(25)
    // In time the exact number counts.
    await until(() => taken.length === 55, { timeoutMs: 30_000 })
    subscription.cancel()
  }, 60_000)

  test('headers of every type of AMQP arrive as plain values, and those that nobody can read do not end the connection', async () => {
    const { broker } = under
    await declareQueue(broker, { name: 'odd' })
    const { taken, handle } = taker('ack')
    const subscription = broker.consume('odd', 10, handle)
    channel = await foreign.channel()
    const headers = {
      bytes: new Uint8Array([0, 255]),
      time: new Date('2026-01-02T03:04:05Z'),
      ages: 2n ** 60n,
      list: [new Date('2026-01-02T03:04:05Z'), [null]],
    }
    await channel.basicPublish('', 'odd', 'one', { headers })
    const depths = [100, 3_000, 10_000, 15_000, 18_000]
    for (const levels of depths) await publishDeep(foreign, channel, 'odd', levels)
    await channel.basicPublish('', 'odd', 'last', {})
    await until(() => taken.length === depths.length + 2)
    expect(taken[0]?.properties.headers).toEqual({
      bytes: 'AP8=',
      time: '2026-01-02T03:04:05.000Z',
      ages: 2 ** 60,
      list: ['2026-01-02T03:04:05.000Z', [null]],
    })
    expect(taken.map(textOf)).toEqual(['one', ...depths.map(() => 'deep'), 'last'])
    for (const one of taken.slice(1, -1)) {
      expect(one.properties.headers).toEqual({ [UNREADABLE_HEADER]: true })
      expect(one.redelivered).toBe(false)
    }
    expect(broker.state().status).toBe('up')
    subscription.cancel()
  })
})

interface Connection {
  name: string
  user_provided_name?: string
}

/** Publishes a message whose headers hold so many tables within each other. */
async function publishDeep(client: AMQPClient, channel: AMQPChannel, queue: string, levels: number): Promise<void> {
  // Written from the inside out: each level is a name, a type and a length.
  let table = Buffer.alloc(4)
  const parts: Buffer[] = []
  for (let level = 0, length = 4; level < levels; level++, length += 7) {
    const head = Buffer.from([0, 0, 0, 0, 1, 0x61, 0x46])
    head.writeUInt32BE(length + 3, 0)
    parts.unshift(head)
  }
  table = Buffer.concat([...parts, table])
  const frame = (type: number, payload: Buffer) => {
    const head = Buffer.alloc(7)
    head.writeUInt8(type, 0)
    head.writeUInt16BE(channel.id, 1)
    head.writeUInt32BE(payload.length, 3)
    return Buffer.concat([head, payload, Buffer.from([206])])
  }
  const name = Buffer.from(queue)
  const method = Buffer.concat([Buffer.from([0, 60, 0, 40, 0, 0, 0, name.length]), name, Buffer.from([0])])
  const body = Buffer.from('deep')
  const header = Buffer.concat([Buffer.from([0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, body.length, 0x20, 0]), table])
  await client.send(Buffer.concat([frame(1, method), frame(2, header), frame(3, body)]))
}
