import { expect, test } from 'bun:test'
import fc from 'fast-check'
import type { DeliveryEnd } from '../../src/broker/broker.ts'
import { createAcknowledger } from '../../src/broker/rabbitmq/acknowledger.ts'
import { CountedClock, turns } from '../support/services.ts'

/** RabbitMQ's side of a channel: what it was told of its deliveries. Throws where RabbitMQ would close the channel. */
function server() {
  const out = new Set<number>()
  const ends = new Map<number, DeliveryEnd>()
  let frames = 0
  const settle = (tag: number, how: DeliveryEnd) => {
    if (!out.delete(tag)) throw new Error(`unknown delivery tag ${tag}`)
    ends.set(tag, how)
  }
  return {
    out,
    ends,
    frames: () => frames,
    deliver: (tag: number) => void out.add(tag),
    read(bytes: Uint8Array) {
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
      for (let at = 0; at < bytes.length; at += 21) {
        frames++
        expect([view.getUint8(at), view.getUint16(at + 1), view.getUint32(at + 3)]).toEqual([1, 7, 13])
        expect([view.getUint16(at + 7), view.getUint8(at + 20)]).toEqual([60, 206])
        const [method, tag, bit] = [view.getUint16(at + 9), Number(view.getBigUint64(at + 11)), view.getUint8(at + 19)]
        if (method === 90) settle(tag, bit === 1 ? 'requeue' : 'dead-letter')
        else if (bit === 1) for (const each of [...out].filter((other) => other < tag)) settle(each, 'ack')
        if (method === 80) settle(tag, 'ack')
      }
    },
  }
}

function acknowledgerTo(remote: ReturnType<typeof server>) {
  const clock = new CountedClock()
  return { clock, acknowledger: createAcknowledger({ channel: 7, write: remote.read, clock }) }
}

test('whatever ends in whatever order, the server is told just that, and each once', async () => {
  const end = fc.constantFrom<DeliveryEnd>('ack', 'ack', 'ack', 'requeue', 'dead-letter')
  const step = fc.oneof(
    { weight: 4, arbitrary: fc.record({ do: fc.constant('end' as const), which: fc.nat(1_000), how: end }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('turn' as const, 'wait' as const) }) },
  )
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 40 }), fc.array(step, { maxLength: 80 }), async (count, steps) => {
      const remote = server()
      const { clock, acknowledger } = acknowledgerTo(remote)
      const expected = new Map<number, DeliveryEnd>()
      const out = Array.from({ length: count }, (_, index) => index + 1)
      for (const tag of out) {
        remote.deliver(tag)
        acknowledger.came()
      }
      for (const one of steps) {
        if (one.do === 'turn') await turns(1)
        if (one.do === 'wait') clock.advance(10)
        if (one.do !== 'end' || out.length === 0) continue
        const [tag] = out.splice(one.which % out.length, 1) as [number]
        expected.set(tag, one.how)
        acknowledger.settle(tag, one.how)
      }
      await turns(1)
      clock.advance(10)
      expect(acknowledger.out).toBe(out.length)
      expect(remote.ends).toEqual(expected)
      expect([...remote.out]).toEqual(out.sort((a, b) => a - b))
      expect(clock.timers).toBe(0)
    }),
  )
})

test('five hundred that end in order are one frame, and in pairs that change places nearly so', async () => {
  const remote = server()
  const { acknowledger } = acknowledgerTo(remote)
  for (let tag = 1; tag <= 1_000; tag++) {
    remote.deliver(tag)
    acknowledger.came()
  }
  for (let tag = 1; tag <= 500; tag++) acknowledger.settle(tag, 'ack')
  await turns(1)
  expect(remote.frames()).toBe(1)
  for (let tag = 501; tag <= 1_000; tag += 2) {
    acknowledger.settle(tag + 1, 'ack')
    if (tag % 50 === 1) await turns(1)
    acknowledger.settle(tag, 'ack')
  }
  await turns(1)
  expect(remote.out.size).toBe(0)
  expect(remote.frames()).toBeLessThan(25)
})

test('an ack behind a delivery that takes its time waits ten milliseconds, not for that one', async () => {
  const remote = server()
  const { clock, acknowledger } = acknowledgerTo(remote)
  for (const tag of [1, 2, 3]) {
    remote.deliver(tag)
    acknowledger.came()
  }
  acknowledger.settle(2, 'ack')
  await turns(1)
  expect(remote.ends.size).toBe(0)
  clock.advance(9)
  expect(remote.ends.size).toBe(0)
  clock.advance(1)
  expect([...remote.ends.keys()]).toEqual([2])
})

test('nothing is told on a channel that is gone, and no timer stays', async () => {
  const remote = server()
  const { clock, acknowledger } = acknowledgerTo(remote)
  for (const tag of [1, 2, 3]) {
    remote.deliver(tag)
    acknowledger.came()
  }
  acknowledger.settle(2, 'ack')
  await turns(1)
  acknowledger.drop()
  acknowledger.settle(1, 'ack')
  acknowledger.settle(3, 'requeue')
  await turns(1)
  clock.advance(100)
  expect(remote.ends.size).toBe(0)
  expect(clock.timers).toBe(0)
})
