import { expect, test } from 'bun:test'
import type { Broker, Delivery, DeliveryHandler, HeaderValue } from '../../src/broker/broker.ts'
import { createInProcessBroker } from '../../src/broker/in-process.ts'
import { taskMessage } from '../../src/broker/wire-form.ts'
import { createDeadLetterListener, type DeadLetterListenerDeps } from '../../src/execution/dead-letter-listener.ts'
import type { DeadDelivery } from '../../src/store/tasks/dead-letters/dead-letters.ts'
import { CountedClock, claimedTask, silent, turns } from '../support/services.ts'

function listening(changes: Partial<DeadLetterListenerDeps> = {}) {
  const clock = new CountedClock()
  const judged: DeadDelivery[] = []
  const handlers = new Map<string, DeliveryHandler>()
  const broker: Broker = {
    ...createInProcessBroker(),
    consume(queue, _, handler) {
      handlers.set(queue, handler)
      return { setPrefetch() {}, cancel: () => void handlers.delete(queue) }
    },
  }
  const listener = createDeadLetterListener({
    broker,
    clock,
    log: silent,
    judge: async (deliveries) => void judged.push(...deliveries),
    isBadRow: () => false,
    ...changes,
  })
  const deliver = (queue: string, properties: Delivery['properties'], body = '{}') =>
    Promise.all(
      handlers.get(queue)?.([
        { queue, exchange: 'longshore.dlx', routingKey: queue, body, properties, redelivered: false },
      ]) ?? [],
    )
  return { clock, judged, handlers, listener, deliver }
}

const death = (reason: string): HeaderValue => [{ reason, queue: 'orders', count: 1 }]

test('it listens to the dead letters of the queues that keep them, and follows when these change', () => {
  const { handlers, listener } = listening()
  listener.follow([
    { name: 'orders', deadLetter: true },
    { name: 'mails', deadLetter: false },
  ])
  expect([...handlers.keys()]).toEqual(['orders.dlq'])
  listener.follow([{ name: 'mails', deadLetter: true }])
  expect([...handlers.keys()]).toEqual(['mails.dlq'])
  listener.stop()
  expect([...handlers.keys()]).toEqual([])
})

test.each([
  ['rejected', 'rejected'],
  ['delivery_limit', 'lost'],
  ['expired', 'lost'],
  ['maxlen', 'lost'],
  ['something new', 'rejected'],
  ['constructor', 'rejected'],
])(
  'PROTOCOL 15: what was taken out of its queue as %s is told as %s, and acked when it is judged',
  async (reason, end) => {
    const { judged, listener, deliver } = listening()
    listener.follow([{ name: 'orders', deadLetter: true }])
    const { properties } = taskMessage({ ...claimedTask({ id: '01a213b3-5cef-74dd-a855-4a79faaa3b41' }), attempt: 3 })
    const headers = { ...properties.headers, 'x-death': death(reason) }
    expect(await deliver('orders.dlq', { ...properties, headers })).toEqual(['ack'])
    expect(judged).toMatchObject([
      { of: { kind: 'task', attempt: 3 }, queue: 'orders', end, stray: { id: '01a213b3-5cef-74dd-a855-4a79faaa3b41' } },
    ])
  },
)

test('a message of somebody else is judged with its bytes', async () => {
  const { judged, listener, deliver } = listening()
  listener.follow([{ name: 'orders', deadLetter: true }])
  await deliver('orders.dlq', { headers: { 'x-death': death('rejected') } }, 'no JSON')
  expect(judged).toMatchObject([
    { of: { kind: 'foreign' }, stray: { message: { body: Buffer.from('no JSON').toString('base64') } } },
  ])
})

test('a dead letter that cannot even be read is judged with its bytes', async () => {
  const { judged, listener, deliver } = listening()
  listener.follow([{ name: 'orders', deadLetter: true }])
  expect(await deliver('orders.dlq', { type: 5 as never }, 'kept')).toEqual(['ack'])
  expect(judged).toMatchObject([
    { stray: { message: { unreadable: true, body: Buffer.from('kept').toString('base64') } } },
  ])
})

test('while the ledger is away a dead letter stays with the broker, and is judged when it is back', async () => {
  let away = true
  const { clock, listener, deliver } = listening({
    async judge() {
      if (away) throw new Error('connect ECONNREFUSED')
    },
  })
  listener.follow([{ name: 'orders', deadLetter: true }])
  let ends: unknown
  void deliver('orders.dlq', {}).then((all) => {
    ends = all
  })
  await turns()
  clock.advance(600)
  await turns()
  expect(ends).toBeUndefined()
  away = false
  clock.advance(600)
  await turns()
  expect(ends).toEqual(['ack'])
})
