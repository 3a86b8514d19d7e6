import { expect, test } from 'bun:test'
import fc from 'fast-check'
import type { DeliveryEnd, Message } from '../../src/broker/broker.ts'
import { createInProcessBroker } from '../../src/broker/in-process.ts'
import { claimedMessage } from '../../src/broker/wire-form.ts'
import { claimedTask, turns } from '../support/services.ts'

const messages = (count: number, queue = 'work'): Message[] =>
  Array.from({ length: count }, () => claimedMessage(claimedTask({ queue })))

/** A consumer that ends its deliveries when told to. */
function handler() {
  const taken: Message[] = []
  const ends: ((end: DeliveryEnd) => void)[] = []
  return {
    taken,
    endOne: (end: DeliveryEnd = 'ack') => ends.shift()?.(end),
    handle(batch: Message[]) {
      taken.push(...batch)
      return batch.map(() => new Promise<DeliveryEnd>((resolve) => ends.push(resolve)))
    },
  }
}

test('a consumer never holds more than its prefetch, and gets more as deliveries end', async () => {
  const broker = createInProcessBroker()
  const { taken, endOne, handle } = handler()
  broker.consume('work', 3, handle)
  expect(broker.room('work')).toBe(3)
  const batch = messages(5)
  expect(await broker.publish(batch)).toEqual(['confirmed', 'confirmed', 'confirmed', 'returned', 'returned'])
  expect(taken).toMatchObject(batch.slice(0, 3))
  expect(broker.room('work')).toBe(0)
  endOne('ack')
  endOne('requeue')
  await turns(1)
  expect(broker.room('work')).toBe(2)
})

test('messages of a queue that nobody consumes are given back', async () => {
  const broker = createInProcessBroker()
  const { taken, handle } = handler()
  broker.consume('work', 10, handle)
  const mixed = [...messages(1), ...messages(2, 'elsewhere')]
  expect(await broker.publish(mixed)).toEqual(['confirmed', 'returned', 'returned'])
  expect(taken).toHaveLength(1)
})

test('consumers of a queue share evenly, and what one cannot take falls to the others', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.nat(20), { minLength: 1, maxLength: 5 }), fc.nat(60), async (prefetches, count) => {
      const broker = createInProcessBroker()
      const shares = prefetches.map((prefetch) => {
        const { taken, handle } = handler()
        broker.consume('work', prefetch, handle)
        return { prefetch, taken }
      })
      const refused = (await broker.publish(messages(count))).filter((end) => end === 'returned')
      const room = prefetches.reduce((sum, prefetch) => sum + prefetch, 0)
      expect(refused).toHaveLength(Math.max(0, count - room))
      const open = shares.filter(({ taken, prefetch }) => taken.length < prefetch).map(({ taken }) => taken.length)
      // Those with room left got the same, give or take the odd one, and nobody got more than they did.
      const most = Math.max(...shares.map(({ taken }) => taken.length))
      for (const length of open) expect(most - length).toBeLessThanOrEqual(1)
      for (const { taken, prefetch } of shares) expect(taken.length).toBeLessThanOrEqual(prefetch)
    }),
  )
})

test('room is told when a consumer comes, when its prefetch grows and when a delivery ends, and not when it shrinks', async () => {
  const broker = createInProcessBroker()
  const told: (string | undefined)[] = []
  broker.onChange((queue) => told.push(queue))
  const { endOne, handle } = handler()
  const subscription = broker.consume('work', 1, handle)
  expect(told).toEqual(['work'])
  subscription.setPrefetch(2)
  expect(told).toHaveLength(2)
  subscription.setPrefetch(1)
  expect(told).toHaveLength(2)
  await broker.publish(messages(1))
  endOne()
  await turns(1)
  expect(told).toHaveLength(3)
})

test('a cancelled consumer takes nothing more, and what it holds may still end', async () => {
  const broker = createInProcessBroker()
  const { taken, endOne, handle } = handler()
  const subscription = broker.consume('work', 5, handle)
  await broker.publish(messages(1))
  subscription.cancel()
  expect(broker.room('work')).toBe(0)
  expect(await broker.publish(messages(2))).toEqual(['returned', 'returned'])
  endOne()
  await turns(1)
  expect(taken).toHaveLength(1)
  expect(broker.room('work')).toBe(0)
})

test('a prefetch that shrinks below what is out leaves no room and counts none as negative', async () => {
  const broker = createInProcessBroker()
  const { endOne, handle } = handler()
  const subscription = broker.consume('work', 4, handle)
  broker.consume('work', 1, handler().handle)
  await broker.publish(messages(5))
  subscription.setPrefetch(2)
  expect(broker.room('work')).toBe(0)
  endOne()
  endOne()
  await turns(1)
  expect(broker.room('work')).toBe(0)
  endOne()
  await turns(1)
  expect(broker.room('work')).toBe(1)
})
