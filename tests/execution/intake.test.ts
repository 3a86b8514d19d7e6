import { expect, test } from 'bun:test'
import type { Broker, Delivery, DeliveryEnd, DeliveryHandler } from '../../src/broker/broker.ts'
import { createInProcessBroker } from '../../src/broker/in-process.ts'
import { taskMessage } from '../../src/broker/wire-form.ts'
import { type ClaimingDeps, claimingIntake } from '../../src/execution/intake.ts'
import type { Claim, ClaimAnswer, DeliveryClaim } from '../../src/task/ledger.ts'
import { CountedClock, claimedTask, silent, turns } from '../support/services.ts'

const ID = '01a213b3-5cef-74dd-a855-4a79faaa3b41'

function taking(changes: Partial<ClaimingDeps> = {}) {
  const clock = new CountedClock()
  const claims: Claim[] = []
  const taken: string[] = []
  const facts = {
    node: 'node-1',
    mayStart: true,
    end: 'ack' as DeliveryEnd,
    answer: (claim: Claim): ClaimAnswer[] =>
      claim.deliveries.map((delivery) =>
        delivery.kind === 'task' ? { kind: 'claimed', task: claimedTask(delivery) } : { kind: 'dead' },
      ),
  }
  let handle: DeliveryHandler = () => []
  let cancelled = false
  const broker: Broker = {
    ...createInProcessBroker(),
    consume(_, __, handler) {
      handle = handler
      return {
        setPrefetch() {},
        cancel() {
          cancelled = true
        },
      }
    },
  }
  let ids = 0
  const intake = claimingIntake({
    broker,
    ledger: {
      async claim(claim) {
        claims.push(claim)
        return facts.answer(claim)
      },
    },
    clock,
    log: silent,
    node: () => facts.node,
    newId: () => `claim-${++ids}`,
    mayStart: () => facts.mayStart,
    isBadRow: () => false,
    ...changes,
  })
  const subscription = intake('work', 10, (tasks) => {
    taken.push(...tasks.map((task) => task.id))
    return tasks.map(async () => facts.end)
  })
  const deliver = (...deliveries: Partial<Delivery>[]) =>
    handle(
      deliveries.map((changes) => ({
        queue: 'work',
        redelivered: false,
        ...taskMessage({ ...claimedTask({ id: ID }), attempt: 1 }),
        ...changes,
      })),
    )
  return { clock, claims, taken, facts, subscription, deliver, cancelled: () => cancelled }
}

test('a delivery is claimed before it is run, and deliveries of one turn are claimed together', async () => {
  const { claims, taken, deliver } = taking()
  expect(await Promise.all(deliver({}, {}))).toEqual(['ack', 'ack'])
  expect(claims).toMatchObject([{ node: 'node-1', queue: 'work', deliveries: [{ id: ID, attempt: 1 }, { id: ID }] }])
  expect(taken).toEqual([ID, ID])
})

test('a duplicate is acked and not run', async () => {
  const { taken, facts, deliver } = taking()
  facts.answer = ({ deliveries }) => deliveries.map(() => ({ kind: 'duplicate' }))
  expect(await Promise.all(deliver({}))).toEqual(['ack'])
  expect(taken).toEqual([])
})

test('PROTOCOL 2: a claim whose answer was lost is asked for again under the same id', async () => {
  const { clock, claims, facts, deliver } = taking()
  const { answer } = facts
  facts.answer = () => {
    throw new Error('Connection terminated unexpectedly')
  }
  const ends = deliver({})
  await turns()
  facts.answer = answer
  clock.advance(1_000)
  expect(await Promise.all(ends)).toEqual(['ack'])
  expect(claims.map(({ claimId }) => claimId)).toEqual(['claim-1', 'claim-1'])
})

test('PROTOCOL 14: a message of an unknown task is claimed again as a dead letter, with its bytes and the task’s id', async () => {
  const { claims, taken, facts, deliver } = taking()
  const { answer } = facts
  facts.answer = (claim) =>
    claim.deliveries[0]?.kind === 'task' ? claim.deliveries.map(() => ({ kind: 'unknown' })) : answer(claim)
  expect(await Promise.all(deliver({ body: '{"a":1}' }))).toEqual(['ack'])
  expect(claims[1]).toMatchObject({
    claimId: 'claim-2',
    deliveries: [
      { kind: 'unreadable', id: ID, payload: '{"a":1}', message: { body: Buffer.from('{"a":1}').toString('base64') } },
    ],
  })
  expect(taken).toEqual([])
})

test('a foreign message is adopted, and one that nobody can read is kept as a dead letter, of which the log tells once', async () => {
  const logged: unknown[] = []
  const log = { ...silent, warn: (line: unknown) => void logged.push(line) } as typeof silent
  const { claims, deliver } = taking({ log })
  await Promise.all(deliver({ properties: {}, body: 'text' }, { properties: {}, body: new Uint8Array([0xff]) }))
  expect(claims[0]?.deliveries).toMatchObject([
    { kind: 'foreign', payload: '{"raw":"text"}' },
    { kind: 'unreadable', reason: 'Its body is not UTF-8' },
  ])
  const unreadable = { event: 'message-failed', queue: 'work', retryable: false, error: 'Its body is not UTF-8' }
  expect(logged).toEqual([{ ...unreadable, task: expect.any(String) }])
})

test('PROTOCOL 17: an adopted message is acked whatever becomes of its task; a message of ours goes its task’s way', async () => {
  const { facts, deliver } = taking()
  facts.answer = ({ deliveries }) => deliveries.map(() => ({ kind: 'claimed', task: claimedTask() }))
  for (const end of ['dead-letter', 'requeue'] as const) {
    facts.end = end
    expect(await Promise.all(deliver({ properties: {}, body: '1' }, {}))).toEqual(['ack', end])
  }
})

test('PROTOCOL 5: a node whose beats are late claims nothing, and goes on when they are back', async () => {
  const { clock, claims, facts, deliver } = taking()
  facts.mayStart = false
  const ends = deliver({})
  await turns()
  clock.advance(3_000)
  await turns()
  expect(claims).toEqual([])
  facts.mayStart = true
  clock.advance(5_000)
  expect(await Promise.all(ends)).toEqual(['ack'])
})

test('PROTOCOL 9: what is not claimed when the worker stops goes back to the broker', async () => {
  const { facts, taken, subscription, deliver, cancelled } = taking()
  facts.mayStart = false
  const ends = deliver({})
  await turns()
  subscription.cancel()
  expect(await Promise.all(ends)).toEqual(['requeue'])
  expect(cancelled()).toBe(true)
  expect(taken).toEqual([])
})

test('a node that was declared dead while it claimed runs nothing of it', async () => {
  const { facts, taken, deliver } = taking()
  const { answer } = facts
  facts.answer = (claim) => {
    facts.node = 'node-2'
    return answer(claim)
  }
  // Its row says that it is running: the rescuers have it.
  expect(await Promise.all(deliver({}))).toEqual(['ack'])
  expect(taken).toEqual([])
})

test('PROTOCOL 17: what was claimed when the worker stops is acked and not run: it comes back by its row, and not a second time', async () => {
  const { facts, taken, subscription, deliver } = taking()
  facts.answer = ({ deliveries }) => {
    subscription.cancel()
    return deliveries.map(() => ({ kind: 'claimed', task: claimedTask() }))
  }
  expect(await Promise.all(deliver({ properties: {}, body: '1' }, {}))).toEqual(['ack', 'ack'])
  expect(taken).toEqual([])
})

test('PROTOCOL 3: a claim that took so long that the beats may give it back is acked and not run', async () => {
  const { clock, claims, taken, facts, deliver } = taking()
  const { answer } = facts
  facts.answer = (claim) => {
    clock.advance(4_000)
    return answer(claim)
  }
  expect(await Promise.all(deliver({}))).toEqual(['ack'])
  expect(claims).toHaveLength(1)
  expect(taken).toEqual([])
})

test('PROTOCOL 3: a claim that had no answer for too long is made anew: what the first one took is a duplicate', async () => {
  const { clock, claims, taken, facts, deliver } = taking()
  const { answer } = facts
  facts.answer = () => {
    clock.advance(5_000)
    throw new Error('Connection terminated unexpectedly')
  }
  const ends = deliver({}, { properties: {}, body: '1' })
  await turns()
  facts.answer = (claim) => answer(claim).map((one, index) => (index === 0 ? one : { kind: 'duplicate' }))
  clock.advance(1_000)
  expect(await Promise.all(ends)).toEqual(['ack', 'ack'])
  expect(claims.map(({ claimId }) => claimId)).toEqual(['claim-1', 'claim-2'])
  expect(claims[1]?.deliveries).toEqual(claims[0]?.deliveries as DeliveryClaim[])
  expect(taken).toEqual([ID])
})

test('PROTOCOL 3: what is claimed runs at once, however long messages of unknown tasks take to be kept', async () => {
  const { clock, taken, facts, deliver } = taking()
  const other = { ...taskMessage({ ...claimedTask(), attempt: 1 }) }
  facts.answer = ({ deliveries }) => {
    if (deliveries.length === 1) throw new Error('Connection terminated unexpectedly')
    return [{ kind: 'claimed', task: claimedTask({ id: ID }) }, { kind: 'unknown' }]
  }
  const ends = deliver({}, other)
  await turns()
  expect(taken).toEqual([ID])
  facts.answer = ({ deliveries }) => deliveries.map(() => ({ kind: 'dead' }))
  clock.advance(1_000)
  expect(await Promise.all(ends)).toEqual(['ack', 'ack'])
})

test('one claim holds no more deliveries and bytes than it may', async () => {
  const { claims, deliver } = taking({ maxClaim: 3, maxClaimBytes: 10 })
  const bodies = ['1', '2', '3', '4', '555555', '666666', '7777777777777']
  await Promise.all(deliver(...bodies.map((body) => ({ body }))))
  expect(claims.map(({ deliveries }) => deliveries.length)).toEqual([3, 2, 1, 1])
})

test('a message that cannot even be read is a dead letter with its bytes, and costs no other', async () => {
  const { claims, taken, deliver } = taking()
  const broken = { properties: { type: 5 as never }, body: 'kept' }
  expect(await Promise.all(deliver({}, broken, {}))).toEqual(['ack', 'ack', 'ack'])
  expect(claims[0]?.deliveries[1]).toMatchObject({
    kind: 'unreadable',
    payload: 'null',
    message: { unreadable: true, body: Buffer.from('kept').toString('base64'), properties: {}, headers: {} },
  })
  expect(taken).toEqual([ID, ID])
})

test('a task whose claim is refused is no dead letter: it is delivered again, later', async () => {
  const { clock, deliver } = taking({
    isBadRow: () => true,
    ledger: { claim: () => Promise.reject(new Error('value out of range')) },
  })
  let end: DeliveryEnd | undefined
  void deliver({})[0]?.then((told) => {
    end = told
  })
  await turns()
  expect(end).toBeUndefined()
  clock.advance(5_000)
  await turns()
  expect(end).toBe('requeue')
})

test('one delivery that the ledger cannot hold costs no other, and goes to the dead letters', async () => {
  const { taken, facts, deliver } = taking({ isBadRow: () => true })
  const { answer } = facts
  facts.answer = (claim) => {
    if (claim.deliveries.some(({ kind }) => kind === 'foreign')) throw new Error('invalid input syntax')
    return answer(claim)
  }
  expect(await Promise.all(deliver({}, { properties: {}, body: '1' }, {}))).toEqual(['ack', 'dead-letter', 'ack'])
  expect(taken).toEqual([ID, ID])
})
