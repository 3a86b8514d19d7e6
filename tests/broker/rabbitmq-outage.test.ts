import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import type { Message } from '../../src/broker/broker.ts'
import { HAS_RABBITMQ } from '../support/rabbitmq.ts'
import { prepareRabbitMqServer, type RabbitMqServer } from '../support/rabbitmq-server.ts'
import { until } from '../support/until.ts'
import {
  type BrokerUnderTest,
  brokerAt,
  declareQueue,
  isUp,
  messagesTo,
  publishUntilConfirmed,
  taker,
  textOf,
} from './rabbitmq-under-test.ts'

/*
 * A server of this file's own, which is killed, wiped and alarmed.
 */
describe.if(HAS_RABBITMQ)('a RabbitMQ that fails', () => {
  let server: RabbitMqServer
  beforeAll(async () => {
    server = await prepareRabbitMqServer()
  })
  afterAll(() => server?.[Symbol.asyncDispose]())

  async function started(options: Parameters<typeof brokerAt>[1] = {}): Promise<BrokerUnderTest> {
    await server.start()
    const under = await brokerAt(server.amqpUrl, options)
    await isUp(under.broker)
    return under
  }

  test('absent at start: it is down with a reason, takes no messages, and is up by itself when the server appears', async () => {
    await using under = await brokerAt(server.amqpUrl, { publishTimeoutMs: 500 })
    const { broker } = under
    const changes: unknown[] = []
    broker.onChange(() => changes.push(broker.state().status))
    await until(() => under.log.some(({ event }) => event === 'broker-down'))
    expect(broker.state()).toMatchObject({ status: 'down', connections: [] })
    expect(broker.state().reason).toBe(
      `the broker at 127.0.0.1:${server.port} refuses connections (is AMQP_URL right?)`,
    )
    expect(broker.room('work')).toBe(0)
    expect(await broker.publish(messagesTo('work', 2))).toEqual(['unknown', 'unknown'])
    await expect(broker.inspect('work')).rejects.toThrow('refuses connections')
    const { taken, handle } = taker('ack')
    broker.consume('work', 10, handle)

    await server.start()
    await isUp(broker)
    expect(changes).toContain('up')
    expect(broker.state().connections.map(({ name }) => name)).toEqual(['test publish', 'test consume'])
    await declareQueue(broker)
    // The first confirm of a server that was just started may take longer than half a second.
    await publishUntilConfirmed(broker, messagesTo('work', 1))
    await until(() => taken.length >= 1)
  }, 120_000)

  test.each(['classic', 'quorum'] as const)(
    'killed in the middle of 20,000 publishes to a %s queue: what was confirmed is there, the rest is known as unknown',
    async (type) => {
      await using under = await started()
      const { broker } = under
      const queue = `killed.${type}`
      await declareQueue(broker, { name: queue, type })
      await server.queuesOnDisk()
      const confirmed = new Set<string>()
      let unknown = 0
      let killing: Promise<void> | undefined
      const all = messagesTo(queue, 20_000)
      async function publish(batch: Message[]): Promise<void> {
        for (let left = batch; left.length > 0; ) {
          const ends = await broker.publish(left)
          for (const [index, message] of left.entries()) if (ends[index] === 'confirmed') confirmed.add(textOf(message))
          expect(ends).not.toContain('returned')
          left = left.filter((_, index) => ends[index] === 'unknown')
          unknown += left.length
          if (confirmed.size > 5_000) killing ??= server.kill().then(() => server.start())
        }
      }
      const batches = Array.from({ length: 40 }, (_, index) => all.slice(index * 500, index * 500 + 500))
      const before = batches.map(publish)
      await Promise.all(before)
      await killing
      expect(killing).toBeDefined()
      expect(unknown).toBeGreaterThan(0)
      expect(confirmed.size).toBe(20_000)

      const { taken, handle } = taker('ack')
      const found = new Set<string>()
      await isUp(broker)
      broker.consume(queue, 500, (deliveries) => {
        for (const delivery of deliveries) found.add(textOf(delivery))
        return handle(deliveries)
      })
      await until(() => found.size === 20_000, { timeoutMs: 60_000, what: 'every confirmed message' })
      // Sent again because nobody knew: no more than were unknown.
      expect(taken.length - 20_000).toBeLessThanOrEqual(unknown)
    },
    120_000,
  )

  test('killed in the middle of a drain: every message is handed over, and consumers come back by themselves', async () => {
    await using under = await started()
    const { broker } = under
    await declareQueue(broker, { name: 'drained', type: 'quorum' })
    await server.queuesOnDisk()
    await publishUntilConfirmed(broker, messagesTo('drained', 5_000))
    const found = new Set<string>()
    let killing: Promise<void> | undefined
    broker.consume('drained', 200, (deliveries) =>
      deliveries.map(async (delivery) => {
        found.add(textOf(delivery))
        if (found.size > 1_000) killing ??= server.kill().then(() => server.start())
        await new Promise((resolve) => setTimeout(resolve, 5))
        return 'ack'
      }),
    )
    await until(() => found.size === 5_000, { timeoutMs: 60_000, what: 'all of 5,000' })
    await killing
    await until(async () => (await broker.inspect('drained').catch(() => undefined))?.messages === 0, {
      timeoutMs: 30_000,
    })
    expect(under.log.filter(({ event }) => event === 'broker-down').length).toBeGreaterThan(0)
  }, 120_000)

  test('a memory alarm blocks publishes and nothing else, says so, and its end lets them go on', async () => {
    // A blocked connection is not read, and lives all the same.
    await using under = await started({ publishTimeoutMs: 60_000, heartbeatSeconds: 2 })
    const { broker } = under
    await declareQueue(broker, { name: 'alarmed' })
    const { taken, handle } = taker('ack')
    broker.consume('alarmed', 10, handle)
    expect(await broker.publish(messagesTo('alarmed', 1))).toEqual(['confirmed'])
    await until(() => taken.length === 1)
    await server.rabbitmqctl('set_vm_memory_high_watermark', '0.000001')
    // The server says so to whoever publishes.
    const publishing = broker.publish(messagesTo('alarmed', 3, 1))
    await until(() => broker.state().status === 'blocked')
    expect(broker.state().reason).toContain('the broker takes no messages: low on memory')
    expect(broker.room('alarmed')).toBe(0)
    const { since } = broker.state()
    const later = broker.publish(messagesTo('alarmed', 3, 4))
    // What is not published goes on.
    expect(await broker.inspect('alarmed')).toMatchObject({ messages: 0 })
    await declareQueue(broker, { name: 'declared-meanwhile' })
    const began = performance.now()
    await until(() => performance.now() - began > 6_500)
    expect(broker.state()).toMatchObject({ status: 'blocked', since })
    await server.rabbitmqctl('set_vm_memory_high_watermark', '0.4')
    expect(await Promise.all([publishing, later])).toEqual([
      ['confirmed', 'confirmed', 'confirmed'],
      ['confirmed', 'confirmed', 'confirmed'],
    ])
    await until(() => taken.length === 7)
    expect(broker.state()).toMatchObject({ status: 'up', reason: null })
    expect(under.log.map(({ event }) => event)).toEqual(expect.arrayContaining(['broker-blocked', 'broker-unblocked']))
  }, 120_000)

  test('publishes that wait in vain at a blocked broker end unknown after their time', async () => {
    await using under = await started({ publishTimeoutMs: 400 })
    const { broker } = under
    await declareQueue(broker, { name: 'alarmed' })
    await server.rabbitmqctl('set_vm_memory_high_watermark', '0.000001')
    const sent = broker.publish(messagesTo('alarmed', 1))
    await until(() => broker.state().status === 'blocked')
    expect(await broker.publish(messagesTo('alarmed', 2))).toEqual(['unknown', 'unknown'])
    expect(await sent).toEqual(['unknown'])
    await server.rabbitmqctl('set_vm_memory_high_watermark', '0.4')
    await isUp(broker)
    await until(async () => (await broker.publish(messagesTo('alarmed', 1)))[0] === 'confirmed', { timeoutMs: 60_000 })
  }, 120_000)

  test('a quorum queue without a leader keeps its own messages waiting and nobody else’s', async () => {
    await using under = await started({ publishTimeoutMs: 5_000 })
    const { broker } = under
    for (const name of ['sick', 'well']) await declareQueue(broker, { name, type: 'quorum', deadLetter: false })
    expect(await broker.publish([...messagesTo('sick', 1), ...messagesTo('well', 1)])).toEqual([
      'confirmed',
      'confirmed',
    ])
    const member = `{'%2F_sick', node()}`
    await server.rabbitmqctl('eval', `ra:stop_server(quorum_queues, ${member}).`)
    const stuck = broker.publish(messagesTo('sick', 2_000))
    await until(() => broker.state().reason?.includes('queue "sick"'))
    expect(broker.state()).toMatchObject({ status: 'up', unconfirmed: [{ kind: 'queue', name: 'sick' }] })
    for (let round = 0; round < 20; round++) {
      const began = performance.now()
      expect(await broker.publish(messagesTo('well', 100))).not.toContain('unknown')
      expect(performance.now() - began).toBeLessThan(4_000)
    }
    expect(new Set(await stuck)).toEqual(new Set(['unknown']))
    await server.rabbitmqctl('eval', `ra:restart_server(quorum_queues, ${member}).`)
    await until(async () => (await broker.publish(messagesTo('sick', 1)))[0] === 'confirmed', { timeoutMs: 60_000 })
    await until(() => broker.state().reason === null)
    expect(broker.state()).not.toHaveProperty('unconfirmed')
  }, 120_000)

  test('one message for whose fault the server closes the channel is found and returned; the others go', async () => {
    await server.start()
    const limit = (bytes: number) =>
      server.rabbitmqctl('eval', `application:set_env(rabbit, max_message_size, ${bytes}).`)
    await limit(1_000)
    await using under = await started()
    const { broker } = under
    await declareQueue(broker, { name: 'sized', deadLetter: false })
    const messages = messagesTo('sized', 50).map((one, index) =>
      index === 20 ? { ...one, body: 'x'.repeat(2_000) } : one,
    )
    const ends = new Map<string, string>()
    for (let left = messages; left.length > 0; left = left.filter((one) => ends.get(textOf(one)) === 'unknown')) {
      for (const [index, end] of (await broker.publish(left)).entries()) ends.set(textOf(left[index] as Message), end)
    }
    const returned = [...ends].flatMap(([body, end]) => (end === 'returned' ? body.length : []))
    expect(returned).toEqual([2_000])
    expect([...ends.values()].filter((end) => end === 'confirmed')).toHaveLength(49)
    expect(
      under.log.some(({ event, reason }) => event === 'publish-refused' && `${reason}`.includes('message size')),
    ).toBe(true)
    await limit(134_217_728)
  }, 120_000)

  test('a channel that the server closes for a delivery held too long is opened again, and costs nobody else anything', async () => {
    await server.start()
    const setting = (timeout: number, tick: number) =>
      server.rabbitmqctl(
        'eval',
        `[application:set_env(rabbit, K, V) || {K, V} <- [{consumer_timeout, ${timeout}}, {channel_tick_interval, ${tick}}]].`,
      )
    // What `quick` and the second deliveries of `slow` may take to be settled, too.
    await setting(8_000, 100)
    await using under = await started()
    const { broker } = under
    const { since } = broker.state()
    const reasons: (string | null)[] = []
    broker.onChange(() => reasons.push(broker.state().reason))
    for (const name of ['slow', 'quick']) await declareQueue(broker, { name })
    const slow = taker()
    const quick = taker()
    broker.consume('slow', 10, slow.handle)
    broker.consume('quick', 10, quick.handle)
    await broker.publish(messagesTo('slow', 2))
    await until(() => slow.taken.length === 2)
    await until(() => under.log.some(({ event, queue }) => event === 'consumer-lost' && queue === 'slow'))
    expect(reasons).toContainEqual(expect.stringContaining('delivery acknowledgement on channel'))
    await broker.publish(messagesTo('quick', 1))
    await until(() => quick.taken.length === 1)
    quick.end(0)
    await until(() => slow.taken.length === 4)
    slow.end(0)
    slow.end(1)
    slow.end(2)
    slow.end(3)
    await until(async () => (await broker.inspect('slow'))?.messages === 0)
    await until(() => broker.state().reason === null)
    expect(slow.taken.map(({ redelivered }) => redelivered)).toEqual([false, false, true, true])
    expect(broker.state()).toMatchObject({ status: 'up', since })
    expect(quick.taken).toHaveLength(1)
    await setting(1_800_000, 60_000)
  }, 120_000)

  test('a wipe shows as a missing queue and an epoch that is gone, and can be committed before anything is made again', async () => {
    const queue = { name: 'kept', type: 'quorum' as const, maxPriority: null, deadLetter: true }
    const topology = { queues: [queue], exchanges: [], bindings: [], epoch: '0190aaaa' }
    await using under = await started()
    const { broker } = under
    expect(await broker.declare(topology)).toEqual({ missing: ['kept'], conflicts: [], wiped: true })
    expect(await broker.declare(topology)).toEqual({ missing: [], conflicts: [], wiped: false })
    await server.wipe()
    await isUp(broker)
    const crash = broker.declare(topology, () => Promise.reject(new Error('no ledger')))
    await expect(crash).rejects.toThrow('no ledger')
    // Nothing was made, so whoever comes next still sees it.
    const told: unknown[] = []
    const declared = await broker.declare(topology, async (lost) => {
      told.push(lost, await broker.inspect('kept'))
    })
    expect(told).toEqual([{ missing: ['kept'], wiped: true }, undefined])
    expect(declared).toEqual({ missing: ['kept'], conflicts: [], wiped: true })
    expect(await broker.declare(topology)).toEqual({ missing: [], conflicts: [], wiped: false })
  }, 120_000)
})
