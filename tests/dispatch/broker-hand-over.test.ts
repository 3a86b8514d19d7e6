import { expect, test } from 'bun:test'
import { v7 } from 'uuid'
import type { Broker, Message, PublishEnd } from '../../src/broker/broker.ts'
import { createInProcessBroker } from '../../src/broker/in-process.ts'
import { taskMessage } from '../../src/broker/wire-form.ts'
import { type BrokerHandOverDeps, createBrokerHandOver } from '../../src/dispatch/broker-hand-over.ts'
import { createPublishNumbers } from '../../src/dispatch/publish-numbers.ts'
import { windowOf } from '../../src/dispatch/window.ts'
import type { BrokerClaim } from '../../src/store/tasks/claim/claim-for-broker.ts'
import type { QueuedTask } from '../../src/task/task.ts'
import type { Destination } from '../../src/task/topology/topology.ts'
import { CountedClock, silent, turns } from '../support/services.ts'

const task = (): QueuedTask => ({
  id: v7(),
  queue: 'work',
  type: null,
  payload: '{}',
  priority: 0,
  attempt: 1,
  createdAt: '2026-01-01T00:00:00.000Z',
})

/** A hand-over whose line is in memory and whose broker answers when the test says what. */
function handingOver(changes: Partial<BrokerHandOverDeps> = {}) {
  const clock = new CountedClock()
  const line: QueuedTask[] = []
  const claims: BrokerClaim[] = []
  const published: { messages: Message[]; answer(...ends: PublishEnd[]): Promise<void> }[] = []
  const finished: string[] = []
  const returned: string[] = []
  const missing: string[] = []
  const refused: Destination[] = []
  const facts = { node: 'node-1', window: 1_000, full: false, room: 1, ledgerIsAway: false }
  const broker: Broker = {
    ...createInProcessBroker(),
    kind: 'rabbitmq',
    room: () => facts.room,
    publish: (messages) =>
      new Promise((resolve) =>
        published.push({
          messages,
          answer(...ends) {
            resolve(ends)
            return turns(5)
          },
        }),
      ),
  }
  const numbers = createPublishNumbers()
  const handOver = createBrokerHandOver({
    numbers,
    publish: (tasks) => broker.publish(tasks.map((one) => taskMessage(one))),
    ledger: {
      async claimForBroker(claim) {
        claims.push(claim)
        return { tasks: line.splice(0, claim.limit), full: facts.full }
      },
      claimedForBroker: async () => undefined,
      async finishConfirmed(_, __, ids) {
        if (facts.ledgerIsAway) throw new Error('connect ECONNREFUSED')
        finished.push(...ids)
      },
      returnQueued: async (ids) => void returned.push(...ids),
    },
    broker,
    clock,
    log: silent,
    node: () => facts.node,
    mayStart: () => true,
    isReady: () => true,
    unreadyExchanges: () => [],
    endsByConfirm: () => false,
    window: () => facts.window,
    orderOf: () => 'due',
    onMissing: (queue) => void missing.push(queue),
    onRefused: (destination) => void refused.push(destination),
    ...changes,
  })
  const { signal } = new AbortController()
  return { clock, line, claims, published, finished, returned, missing, refused, facts, numbers, handOver, signal }
}

test('PROTOCOL 11: a publish counts as confirmed when all before it are', async () => {
  const { line, published, numbers, handOver, signal } = handingOver()
  for (let round = 0; round < 3; round++) {
    line.push(task())
    await handOver.handOver('work', signal)
  }
  await turns()
  expect(numbers.confirmed()).toBe(0)
  await published[1]?.answer('confirmed')
  expect(numbers.confirmed()).toBe(0)
  await published[0]?.answer('confirmed')
  expect(numbers.confirmed()).toBe(2)
  await published[2]?.answer('confirmed')
  expect(numbers.confirmed()).toBe(3)
})

test('PROTOCOL 11: what is not known to be there is published again, and only that', async () => {
  const { clock, line, published, numbers, handOver, signal } = handingOver()
  const [first, second] = [task(), task()]
  line.push(first, second)
  await handOver.handOver('work', signal)
  await published[0]?.answer('confirmed', 'unknown')
  expect(numbers.confirmed()).toBe(0)
  clock.advance(1_000)
  await turns()
  expect(published[1]?.messages.map(({ properties }) => properties.messageId)).toEqual([second.id])
  await published[1]?.answer('confirmed')
  expect(numbers.confirmed()).toBe(1)
})

test('a node that was declared dead publishes nothing again, and who it is now is not held by what it does not know', async () => {
  const { clock, line, published, facts, numbers, handOver, signal } = handingOver()
  line.push(task())
  await handOver.handOver('work', signal)
  facts.node = 'node-2'
  await published[0]?.answer('unknown')
  clock.advance(60_000)
  await turns()
  expect(published).toHaveLength(1)
  expect(numbers.confirmed()).toBe(1)
})

test('PROTOCOL 19: a confirm that comes while the node stops is stored, and one that cannot be leaves its number open', async () => {
  const stop = new AbortController()
  const { line, published, finished, facts, numbers, handOver } = handingOver({ endsByConfirm: () => true })
  const [one, other] = [task(), task()]
  line.push(one)
  await handOver.handOver('work', stop.signal)
  line.push(other)
  await handOver.handOver('work', stop.signal)
  stop.abort()
  await published[0]?.answer('confirmed')
  expect(finished).toEqual([one.id])
  expect(numbers.confirmed()).toBe(1)
  facts.ledgerIsAway = true
  await published[1]?.answer('confirmed')
  await turns()
  expect(numbers.confirmed()).toBe(1)
})

test('a queue that the broker does not confirm gets no more, and takes no room of the others', async () => {
  const { clock, line, published, handOver, signal } = handingOver()
  for (const queue of ['stuck', 'stuck', 'lost', 'lost', 'work']) {
    line.push(...Array.from({ length: 1_000 }, task))
    await handOver.handOver(queue, signal)
  }
  for (const queue of ['stuck', 'lost', 'work', 'other']) expect(handOver.room(queue)).toBe(0)
  const told: (string | undefined)[] = []
  handOver.onRoom((queue) => told.push(queue))
  const unknown = Array.from({ length: 1_000 }, () => 'unknown' as const)
  for (const publish of [0, 1, 2, 3]) await published[publish]?.answer(...unknown)
  expect(told).toContain(undefined)
  expect(handOver.room('stuck')).toBe(0)
  expect(handOver.room('work')).toBe(1_000)
  expect(handOver.room('other')).toBe(1_000)
  // It is published again all the time, and has room when it is confirmed.
  clock.advance(1_000)
  await turns()
  expect(published).toHaveLength(9)
  for (const publish of [5, 6, 7, 8]) {
    await published[publish]?.answer(...unknown.map(() => 'confirmed' as const))
  }
  expect(handOver.room('stuck')).toBe(1_000)
})

test('what is not to be published through its exchange now goes back to the line', async () => {
  const { line, claims, returned, missing, numbers, handOver, signal } = handingOver({
    unreadyExchanges: () => ['orders'],
    publish: async (tasks) => tasks.map(() => 'undeclared' as const),
  })
  const one = task()
  line.push(one)
  await handOver.handOver('work', signal)
  await turns()
  expect(claims[0]?.notThrough).toEqual(['orders'])
  expect(returned).toEqual([one.id])
  expect(missing).toEqual([])
  expect(numbers.confirmed()).toBe(1)
})

test('what the broker does not let this node publish goes back to the line, and that is told', async () => {
  const { line, published, returned, missing, refused, numbers, handOver, signal } = handingOver()
  const one = task()
  line.push(one)
  await handOver.handOver('work', signal)
  await published[0]?.answer('refused')
  expect([returned, missing, refused]).toEqual([[one.id], [], [{ kind: 'queue', name: 'work' }]])
  expect(numbers.confirmed()).toBe(1)
})

test('what no queue took goes back to the line, and the queue is told as missing', async () => {
  const { line, published, returned, missing, numbers, handOver, signal } = handingOver()
  const one = task()
  line.push(one)
  await handOver.handOver('work', signal)
  await published[0]?.answer('returned')
  expect(returned).toEqual([one.id])
  expect(missing).toEqual(['work'])
  expect(numbers.confirmed()).toBe(1)
})

test('PROTOCOL 19: a confirm finishes the task, and its number waits until the ledger has that', async () => {
  const { clock, line, published, finished, facts, numbers, handOver, signal } = handingOver({
    endsByConfirm: () => true,
  })
  facts.ledgerIsAway = true
  const one = task()
  line.push(one)
  await handOver.handOver('work', signal)
  await published[0]?.answer('confirmed')
  expect(numbers.confirmed()).toBe(0)
  facts.ledgerIsAway = false
  clock.advance(1_000)
  await turns()
  expect(finished).toEqual([one.id])
  expect(numbers.confirmed()).toBe(1)
})

test('a full window is looked at again sooner while it moves than when it stands still', async () => {
  const { line, facts, handOver, signal } = handingOver()
  facts.full = true
  line.push(task())
  const moving = await handOver.handOver('work', signal)
  const standing = await handOver.handOver('work', signal)
  const still = await handOver.handOver('work', signal)
  expect(moving).toBe(50)
  expect(standing).toBe(100)
  expect(still).toBe(200)
  for (let round = 0; round < 10; round++) await handOver.handOver('work', signal)
  expect(await handOver.handOver('work', signal)).toBe(400)
  // What this node's workers take from it is news.
  const told: (string | undefined)[] = []
  handOver.onRoom((queue) => told.push(queue))
  handOver.taken('work', 450)
  expect(told).toEqual([])
  handOver.taken('work', 50)
  expect(told).toEqual(['work'])
})

test('without room at the broker, or with too much unconfirmed, it has no room for a claim', async () => {
  const { line, facts, published, handOver, signal } = handingOver()
  expect(handOver.room('work')).toBe(1_000)
  for (const queue of ['work', 'work', 'other', 'other', 'third']) {
    line.push(...Array.from({ length: 1_000 }, task))
    expect(await handOver.handOver(queue, signal)).toBe('more')
  }
  expect(handOver.room('work')).toBe(0)
  expect(handOver.room('fourth')).toBe(0)
  // Who was turned away is told when there is room again.
  const told: (string | undefined)[] = []
  handOver.onRoom((queue) => told.push(queue))
  await published[0]?.answer(...Array.from({ length: 1_000 }, () => 'confirmed' as const))
  expect(told).toEqual([undefined])
  expect(handOver.room('work')).toBe(1_000)
  facts.room = 0
  expect(handOver.room('other')).toBe(0)
})

test('the window is what the queue says, else four tasks a slot or two seconds of work, at least 100, and for a rate at most 1,000', () => {
  expect(windowOf({ given: 7, slots: 50, rate: 1_000 })).toBe(7)
  expect(windowOf({ given: null, slots: 2, rate: 0 })).toBe(100)
  expect(windowOf({ given: null, slots: 50, rate: 10 })).toBe(200)
  expect(windowOf({ given: null, slots: 50, rate: 400.5 })).toBe(801)
  expect(windowOf({ given: null, slots: 50, rate: 50_000 })).toBe(1_000)
  expect(windowOf({ given: null, slots: 1_000, rate: 50_000 })).toBe(4_000)
  expect(windowOf({ given: null, slots: 0, rate: 0 })).toBe(1_000)
})
