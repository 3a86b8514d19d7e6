import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import type { Broker, BrokerQueue, BrokerTopology, Message } from '../../src/broker/broker.ts'
import type { Service } from '../../src/runtime/service.ts'
import { until } from '../support/until.ts'
import { messagesTo, publishUntilConfirmed, taker, textOf } from './rabbitmq-under-test.ts'

export interface BrokerHarness {
  /** A broker that is up; the same one until `reopen`. */
  broker: Broker & Service
  /** Ends the broker as a node that leaves; gives another one that sees the same queues. */
  reopen(): Promise<Broker & Service>
  close(): Promise<void>
}

/** What every broker does with queues of that type. Each test has queues of its own names, which are removed after it. */
export function describeBroker(name: string, type: BrokerQueue['type'], open: () => Promise<BrokerHarness>): void {
  describe(`the ${name} broker with ${type} queues`, () => {
    let harness: BrokerHarness
    let broker: Broker & Service
    const declared: BrokerTopology[] = []
    beforeAll(async () => {
      harness = await open()
      broker = harness.broker
    }, 90_000)
    afterAll(() => harness?.close())
    afterEach(async () => {
      for (const { queues, exchanges } of declared.splice(0)) {
        for (const queue of queues) {
          await broker.remove({ kind: 'queue', name: queue.name, ifEmpty: false, ifUnused: false })
        }
        for (const exchange of exchanges) {
          await broker.remove({ kind: 'exchange', name: exchange.name, ifUnused: false })
        }
      }
    })

    async function declare({ queues = [], exchanges = [], bindings = [] }: Partial<BrokerTopology>) {
      const topology = { queues, exchanges, bindings }
      declared.push(topology)
      return broker.declare(topology)
    }
    const queue = (name: string, changes: Partial<BrokerQueue> = {}): BrokerQueue => ({
      ...{ name, type, maxPriority: null, deadLetter: true },
      ...changes,
    })
    const depth = async (name: string) => (await broker.inspect(name))?.messages
    const hasDepth = (name: string, messages: number) =>
      until(async () => (await depth(name)) === messages, { what: `${messages} messages in ${name}` })
    /** Takes everything out of a queue, in its order. */
    async function drained(name: string, count: number): Promise<string[]> {
      const { taken, bodies, handle } = taker('ack')
      const subscription = broker.consume(name, 100, handle)
      await until(() => taken.length >= count, { what: `${count} messages out of ${name}` })
      subscription.cancel()
      await hasDepth(name, 0)
      return bodies()
    }

    test('tells which queues were missing, and makes only what is missing', async () => {
      const topology = { queues: [queue('there'), queue('there too')] }
      expect(await declare(topology)).toEqual({ missing: ['there', 'there too'], conflicts: [], wiped: false })
      await publishUntilConfirmed(broker, messagesTo('there', 1))
      const more = await declare({ queues: [...topology.queues, queue('new')] })
      expect(more).toEqual({ missing: ['new'], conflicts: [], wiped: false })
      await hasDepth('there', 1)
    })

    test('an epoch that it does not know is a wipe, once', async () => {
      const epoch = { queues: [], exchanges: [], bindings: [], epoch: crypto.randomUUID() }
      expect(await broker.declare(epoch)).toMatchObject({ wiped: true })
      expect(await broker.declare(epoch)).toMatchObject({ wiped: false })
    })

    test('what is lost is told before anything is made, and nothing is made when that fails', async () => {
      const topology = { queues: [queue('lost')], exchanges: [], bindings: [] }
      const failing = broker.declare(topology, () => Promise.reject(new Error('no ledger')))
      await expect(failing).rejects.toThrow('no ledger')
      expect(await broker.inspect('lost')).toBeUndefined()
      declared.push(topology)
      const seen: unknown[] = []
      await broker.declare(topology, async (lost) => void seen.push(lost, await broker.inspect('lost')))
      expect(seen).toEqual([{ missing: ['lost'], wiped: false }, undefined])
      expect(await broker.inspect('lost')).toEqual({ messages: 0, consumers: 0 })
    })

    test('a message arrives as it was sent', async () => {
      await declare({ queues: [queue('whole')] })
      const { taken, handle } = taker('ack')
      const subscription = broker.consume('whole', 1, handle)
      const message: Message = {
        exchange: '',
        routingKey: 'whole',
        body: '{"größe":"1\u202f000 €"}',
        properties: {
          messageId: 'm-1',
          correlationId: 'c-1',
          type: 'über',
          contentType: 'application/json',
          contentEncoding: 'utf-8',
          priority: 3,
          timestamp: '2026-01-02T03:04:05.000Z',
          replyTo: 'back',
          appId: 'app',
          headers: {
            text: 'é',
            count: 5,
            large: 3_000_000_000,
            huge: 2 ** 52,
            negative: -7,
            ratio: 0.1,
            yes: true,
            nothing: null,
            list: [1, 'two', { three: 3.5 }],
            table: { nested: { deep: 'x' } },
          },
        },
      }
      expect(await broker.publish([message])).toEqual(['confirmed'])
      await until(() => taken.length === 1)
      const [delivery] = taken
      expect(textOf(delivery as Message)).toBe(message.body as string)
      const { properties, queue: from, exchange, routingKey, redelivered } = delivery as (typeof taken)[0]
      expect({ properties, from, exchange, routingKey, redelivered }).toEqual({
        ...{ properties: message.properties, from: 'whole', exchange: '', routingKey: 'whole', redelivered: false },
      })
      subscription.cancel()
    })

    test.each([0, 1, 131_064, 131_065, 1_048_576])('a body of %d bytes arrives whole', async (size) => {
      await declare({ queues: [queue('large')] })
      const body = new Uint8Array(size).map((_, index) => index % 251)
      const [message] = messagesTo('large', 1)
      expect(await broker.publish([{ ...(message as Message), body }, ...messagesTo('large', 1)])).toEqual([
        'confirmed',
        'confirmed',
      ])
      const { taken, handle } = taker('ack')
      const subscription = broker.consume('large', 2, handle)
      await until(() => taken.length === 2)
      expect(Buffer.from(taken[0]?.body as Uint8Array).equals(Buffer.from(body))).toBe(true)
      expect(textOf(taken[1] as Message)).toBe('0')
      subscription.cancel()
    })

    test('a message that no queue takes is returned, among others that are taken', async () => {
      await declare({
        queues: [queue('bound')],
        exchanges: [{ name: 'ex', type: 'direct' }],
        bindings: [{ exchange: 'ex', queue: 'bound', routingKey: 'yes' }],
      })
      const to = (exchange: string, routingKey: string): Message => ({
        ...{ exchange, routingKey, body: `${exchange}/${routingKey}`, properties: {} },
      })
      const messages = [
        to('ex', 'no'),
        to('ex', 'yes'),
        to('', 'no such queue'),
        to('', 'bound'),
        to('no such exchange', 'yes'),
        to('ex', 'no'),
        to('ex', 'yes'),
      ]
      const ends = ['returned', 'confirmed', 'returned', 'confirmed', 'returned', 'returned', 'confirmed']
      expect(await broker.publish(messages)).toEqual(ends as never)
      expect(await Promise.all(messages.map(async (one) => (await broker.publish([one]))[0]))).toEqual(ends as never)
      await hasDepth('bound', 6)
    })

    test('exchanges route by their type, and into a queue once', async () => {
      const exchanges = [
        { name: 'd', type: 'direct' as const },
        { name: 't', type: 'topic' as const },
        { name: 'f', type: 'fanout' as const },
      ]
      await declare({
        queues: [queue('one'), queue('two')],
        exchanges,
        bindings: [
          { exchange: 'd', queue: 'one', routingKey: 'a.b' },
          { exchange: 't', queue: 'one', routingKey: 'a.*' },
          { exchange: 't', queue: 'one', routingKey: '#' },
          { exchange: 't', queue: 'two', routingKey: '*.*.c' },
          { exchange: 'f', queue: 'one', routingKey: '' },
          { exchange: 'f', queue: 'two', routingKey: 'whatever' },
        ],
      })
      for (const { name } of exchanges) {
        for (const routingKey of ['a.b', 'a.b.c']) {
          await broker.publish([{ exchange: name, routingKey, body: `${name} ${routingKey}`, properties: {} }])
        }
      }
      expect(await drained('one', 5)).toEqual(['d a.b', 't a.b', 't a.b.c', 'f a.b', 'f a.b.c'])
      expect(await drained('two', 3)).toEqual(['t a.b.c', 'f a.b', 'f a.b.c'])
      await broker.remove({ kind: 'binding', exchange: 't', queue: 'one', routingKey: '#' })
      expect(await broker.publish([{ exchange: 't', routingKey: 'x', body: '', properties: {} }])).toEqual(['returned'])
    })

    test('many calls at once keep the order of each, and of them all where nothing else says so', async () => {
      await declare({ queues: [queue('ordered')] })
      const calls = Array.from({ length: 40 }, (_, call) => broker.publish(messagesTo('ordered', 50, call * 50)))
      expect((await Promise.all(calls)).flat()).toEqual(new Array(2_000).fill('confirmed'))
      expect(await drained('ordered', 2_000)).toEqual(Array.from({ length: 2_000 }, (_, index) => String(index)))
    })

    test('a consumer never holds more than its prefetch, and gets more as deliveries end', async () => {
      await declare({ queues: [queue('limited')] })
      await publishUntilConfirmed(broker, messagesTo('limited', 10))
      const { taken, bodies, handle, end } = taker()
      const subscription = broker.consume('limited', 3, handle)
      await until(() => taken.length === 3)
      await hasDepth('limited', 7)
      end(1)
      await until(() => taken.length === 4)
      end(0)
      end(2)
      await until(() => taken.length === 6)
      await hasDepth('limited', 4)
      expect(bodies()).toEqual(['0', '1', '2', '3', '4', '5'])
      subscription.cancel()
      for (const index of [3, 4, 5]) end(index)
    })

    test('the prefetch grows under way, shrinks, and stops everything at 0', async () => {
      await declare({ queues: [queue('sized')] })
      await publishUntilConfirmed(broker, messagesTo('sized', 60))
      const { taken, handle, end } = taker()
      const subscription = broker.consume('sized', 2, handle)
      await until(() => taken.length === 2)
      end(0)
      end(1)
      await until(() => taken.length === 4)
      subscription.setPrefetch(0)
      end(2)
      end(3)
      await until(async () => (await broker.inspect('sized'))?.consumers === 0 || harness.broker.kind === 'in-process')
      const before = taken.length
      subscription.setPrefetch(20)
      await until(() => taken.length >= before + 18)
      subscription.setPrefetch(1)
      let ended = 4
      const endAll = () => {
        while (ended < taken.length) end(ended++)
      }
      // Those that were on their way; then one at a time.
      await until(async () => {
        const [count, waiting] = [taken.length, await depth('sized')]
        if (taken.length - ended === 1 && taken.length === count && waiting === 60 - count) return true
        endAll()
        return false
      })
      for (let step = 0; step < 5; step++) {
        const next = taken.length + 1
        endAll()
        await until(() => taken.length >= next)
        expect(taken.length).toBe(next)
      }
      subscription.cancel()
      endAll()
    })

    test('a delivery that is requeued comes again, marked; before those behind it, but for a quorum queue', async () => {
      await declare({ queues: [queue('again')] })
      await publishUntilConfirmed(broker, messagesTo('again', 3))
      const { taken, bodies, handle, end } = taker()
      const subscription = broker.consume('again', 1, handle)
      await until(() => taken.length === 1)
      end(0, 'requeue')
      await until(() => taken.length === 2)
      end(1)
      await until(() => taken.length === 3)
      end(2)
      await until(() => taken.length === 4)
      end(3)
      // Without a delivery limit a quorum queue puts it behind the others.
      expect(bodies()).toEqual(type === 'quorum' ? ['0', '1', '2', '0'] : ['0', '0', '1', '2'])
      expect(taken.flatMap((delivery) => (delivery.redelivered ? textOf(delivery) : []))).toEqual(['0'])
      await hasDepth('again', 0)
      subscription.cancel()
    })

    test('a dead letter goes to the queue for them, with its reason; without one it is gone', async () => {
      await declare({ queues: [queue('mourned'), queue('forgotten', { deadLetter: false })] })
      const dead = taker('dead-letter')
      const subscriptions = ['mourned', 'forgotten'].map((name) => broker.consume(name, 10, dead.handle))
      await publishUntilConfirmed(broker, [...messagesTo('mourned', 2), ...messagesTo('forgotten', 2)])
      await until(() => dead.taken.length === 4)
      await hasDepth('mourned.dlq', 2)
      await hasDepth('forgotten', 0)
      expect(await broker.inspect('forgotten.dlq')).toBeUndefined()
      for (const subscription of subscriptions) subscription.cancel()
      const { taken, handle } = taker('ack')
      const graveyard = broker.consume('mourned.dlq', 10, handle)
      await until(() => taken.length === 2)
      expect(taken.map(textOf).sort()).toEqual(['0', '1'])
      for (const delivery of taken) {
        const deaths = [{ queue: 'mourned', reason: 'rejected', count: 1 }]
        expect(delivery.properties.headers?.['x-death']).toMatchObject(deaths)
        expect(delivery.properties.messageId).toBe(textOf(delivery))
      }
      graveyard.cancel()
    })

    test('one that fails among many that succeed is the only one that comes again', async () => {
      await declare({ queues: [queue('mixed')] })
      await publishUntilConfirmed(broker, messagesTo('mixed', 100))
      const ends: string[] = []
      const subscription = broker.consume('mixed', 20, (deliveries) =>
        deliveries.map(async (delivery) => {
          const text = textOf(delivery)
          const how = Number(text) % 10 > 0 ? 'ack' : delivery.redelivered ? 'dead-letter' : 'requeue'
          // In no order.
          for (let turn = Number(text) % 7; turn > 0; turn--) await new Promise((resolve) => setImmediate(resolve))
          ends.push(`${text} ${how}`)
          return how
        }),
      )
      await hasDepth('mixed.dlq', 10)
      await hasDepth('mixed', 0)
      expect(ends).toHaveLength(110)
      expect(new Set(ends).size).toBe(110)
      subscription.cancel()
    })

    // Quorum queues of RabbitMQ 3.10 have none.
    const testRanked = type === 'classic' ? test : () => {}
    testRanked(
      'with priorities the higher ones go first, each in its order, and those above the highest count as that',
      async () => {
        await declare({ queues: [queue('ranked', { maxPriority: 5 })] })
        const priorities = [0, 5, 3, 9, 0, 3, 5]
        const messages = messagesTo('ranked', 7).map((message, index) => ({
          ...message,
          properties: { priority: priorities[index] as number },
        }))
        await publishUntilConfirmed(broker, messages)
        expect(await drained('ranked', 7)).toEqual(['1', '3', '6', '2', '5', '0', '4'])
      },
    )

    test('counts what waits and who consumes, and a purge throws away what waits and nothing else', async () => {
      await declare({ queues: [queue('purged')] })
      expect(await broker.inspect('no such queue')).toBeUndefined()
      await publishUntilConfirmed(broker, messagesTo('purged', 10))
      const { taken, handle, end } = taker()
      const subscription = broker.consume('purged', 2, handle)
      await until(() => taken.length === 2)
      await until(async () => (await depth('purged')) === 8)
      expect(await broker.inspect('purged')).toEqual({ messages: 8, consumers: 1 })
      expect(await broker.inspect('purged', { purge: true })).toEqual({ messages: 0, consumers: 1 })
      end(0, 'requeue')
      await until(() => taken.length === 3)
      expect(textOf(taken[2] as Message)).toBe('0')
      subscription.cancel()
      end(1)
      end(2)
    })

    test('what is full or in use is removed only without the conditions, its dead letters with it', async () => {
      await declare({
        queues: [queue('guarded')],
        exchanges: [{ name: 'guarding', type: 'fanout' }],
        bindings: [{ exchange: 'guarding', queue: 'guarded', routingKey: '' }],
      })
      const whole = { kind: 'queue', name: 'guarded', ifEmpty: true, ifUnused: true } as const
      await publishUntilConfirmed(broker, messagesTo('guarded', 1))
      await hasDepth('guarded', 1)
      expect(await broker.remove(whole)).toBe('not-empty')
      const { taken, handle } = taker('ack')
      const subscription = broker.consume('guarded', 1, handle)
      await until(() => taken.length === 1)
      await hasDepth('guarded', 0)
      expect(await broker.remove(whole)).toBe('in-use')
      expect(await broker.remove({ kind: 'exchange', name: 'guarding', ifUnused: true })).toBe('in-use')
      subscription.cancel()
      await until(async () => (await broker.inspect('guarded'))?.consumers === 0)
      expect(await broker.remove(whole)).toBe('removed')
      expect(await broker.inspect('guarded')).toBeUndefined()
      expect(await broker.inspect('guarded.dlq')).toBeUndefined()
      expect(await broker.remove({ kind: 'exchange', name: 'guarding', ifUnused: true })).toBe('removed')
      expect(await broker.remove(whole)).toBe('removed')
      expect(await broker.remove({ kind: 'exchange', name: 'guarding', ifUnused: true })).toBe('removed')
      expect(await broker.remove({ kind: 'binding', exchange: 'guarding', queue: 'guarded', routingKey: '' })).toBe(
        'removed',
      )
    })

    test('a cancelled consumer takes nothing more, and what it holds may still end', async () => {
      await declare({ queues: [queue('left')] })
      await publishUntilConfirmed(broker, messagesTo('left', 5))
      const { taken, handle, end } = taker()
      const subscription = broker.consume('left', 2, handle)
      await until(() => taken.length === 2)
      subscription.cancel()
      // A quorum queue counts a consumer as long as it holds something.
      await until(async () => type === 'quorum' || (await broker.inspect('left'))?.consumers === 0)
      end(0)
      end(1, 'requeue')
      await hasDepth('left', 4)
      expect(taken).toHaveLength(2)
      expect((await drained('left', 4)).sort()).toEqual(['1', '2', '3', '4'])
    })

    test('several consumers share, and each delivery goes to one of them', async () => {
      await declare({ queues: [queue('shared')] })
      const consumers = [taker('ack'), taker('ack'), taker('ack')]
      const subscriptions = consumers.map(({ handle }) => broker.consume('shared', 5, handle))
      await until(async () => (await broker.inspect('shared'))?.consumers === 3)
      await publishUntilConfirmed(broker, messagesTo('shared', 300))
      const all = () => consumers.flatMap(({ bodies }) => bodies())
      await until(() => all().length === 300)
      expect(new Set(all()).size).toBe(300)
      for (const { taken } of consumers) expect(taken.length).toBeGreaterThan(20)
      for (const subscription of subscriptions) subscription.cancel()
    })

    test('what is handed over in one turn comes in batches', async () => {
      await declare({ queues: [queue('batched')] })
      await publishUntilConfirmed(broker, messagesTo('batched', 1_000))
      const { taken, batches, handle } = taker('ack')
      const subscription = broker.consume('batched', 500, handle)
      await until(() => taken.length === 1_000)
      // As many as one turn has read: how many is the server's and the machine's.
      expect(batches.length).toBeLessThan(1_000)
      expect(Math.max(...batches)).toBeLessThanOrEqual(500)
      subscription.cancel()
    })

    test('a change of its state or room is told', async () => {
      let told = 0
      broker.onChange(() => told++)
      await declare({ queues: [queue('told')] })
      const subscription = broker.consume('told', 1, taker('ack').handle)
      expect(broker.room('told')).toBeGreaterThan(0)
      expect(broker.state()).toMatchObject({ status: 'up', reason: null })
      if (broker.kind === 'in-process') expect(told).toBeGreaterThan(0)
      subscription.cancel()
    })

    test('closing returns what is unsettled, marked as redelivered', async () => {
      await declare({ queues: [queue('kept')] })
      await publishUntilConfirmed(broker, messagesTo('kept', 4))
      const { taken, handle, end } = taker()
      broker.consume('kept', 3, handle)
      await until(() => taken.length === 3)
      end(1)
      await until(async () => (await broker.inspect('kept'))?.messages === 0 || taken.length === 4)
      broker = await harness.reopen()
      // Too late: nobody hears of it.
      end(0)
      end(2, 'requeue')
      await hasDepth('kept', 3)
      const after = taker('ack')
      const subscription = broker.consume('kept', 10, after.handle)
      await until(() => after.taken.length === 3)
      expect(after.bodies()).toEqual(['0', '2', '3'])
      expect(after.taken.map(({ redelivered }) => redelivered)).toEqual([true, true, true])
      subscription.cancel()
    })
  })
}
