import { afterEach, expect, test } from 'bun:test'
import { v7 as uuidv7 } from 'uuid'
import type { DeliveryEnd, Message } from '../../src/broker/broker.ts'
import { createInProcessBroker } from '../../src/broker/in-process.ts'
import type { Dispatcher } from '../../src/dispatch/dispatcher.ts'
import type { ClaimedTask } from '../../src/task/task.ts'
import {
  CountedClock,
  claimedTask,
  type FusedDispatcherDeps,
  fusedDispatcher,
  silent,
  turns,
} from '../support/services.ts'
import { until } from '../support/until.ts'

type Request = Parameters<FusedDispatcherDeps['ledger']['claimDue']>[0]

const running: Dispatcher[] = []
afterEach(async () => {
  for (const dispatcher of running.splice(0)) await dispatcher.stop()
})

/** A dispatcher over a line of tasks in memory, with a clock that stands still. */
async function dispatching(changes: Partial<FusedDispatcherDeps> = {}) {
  const clock = new CountedClock()
  const broker = createInProcessBroker()
  const line: ClaimedTask[] = []
  const claims: Request[] = []
  const givenBack: ClaimedTask[] = []
  const polled: string[][] = []
  const due = new Map<string, number>()
  const ledger: FusedDispatcherDeps['ledger'] = {
    async claimDue(request) {
      claims.push(request)
      const taken = line.filter((task) => task.queue === request.queue).slice(0, request.limit)
      for (const task of taken) line.splice(line.indexOf(task), 1)
      return taken
    },
    claimed: async () => [],
  }
  const dispatcher = fusedDispatcher({
    ledger,
    async nextDue(queues) {
      polled.push(queues)
      return new Map(due)
    },
    broker,
    clock,
    log: silent,
    node: () => 'node-1',
    newId: uuidv7,
    orderOf: () => 'due',
    mayStart: () => true,
    dispatchedQueues: () => ['work'],
    giveBack: async (tasks) => void givenBack.push(...tasks),
    ...changes,
  })
  running.push(dispatcher)
  await dispatcher.start()
  await turns()
  const put = (count: number, task: Partial<ClaimedTask> = {}) => {
    const tasks = Array.from({ length: count }, () => claimedTask(task))
    line.push(...tasks)
    return tasks
  }
  const consume = (prefetch: number, queue = 'work') => {
    const taken: string[] = []
    const ends: ((end: DeliveryEnd) => void)[] = []
    const subscription = broker.consume(queue, prefetch, (batch: Message[]) => {
      taken.push(...batch.flatMap(({ task }) => task?.id ?? []))
      return batch.map(() => new Promise<DeliveryEnd>((resolve) => ends.push(resolve)))
    })
    const end = (count: number) => {
      for (const resolve of ends.splice(0, count)) resolve('ack')
    }
    return { taken, subscription, end }
  }
  return { clock, broker, dispatcher, ledger, line, claims, givenBack, polled, due, put, consume }
}

test('the dispatcher claims on a signal only, and fills exactly the room', async () => {
  const { claims, put, consume, dispatcher } = await dispatching()
  const { taken, end } = consume(3)
  await turns()
  expect(claims.map((claim) => claim.limit)).toEqual([3])
  const [first, second, third] = put(5).map((task) => task.id)
  await turns()
  expect(claims).toHaveLength(1)
  dispatcher.wake('work')
  await turns()
  expect(taken).toEqual([first, second, third] as string[])
  expect(claims).toHaveLength(2)
  end(2)
  await turns()
  expect(claims.at(-1)?.limit).toBe(2)
  expect(taken).toHaveLength(5)
})

test('room alone is no reason to claim once a queue is drained', async () => {
  const { claims, put, consume, dispatcher } = await dispatching()
  const { taken, end } = consume(10)
  put(1)
  dispatcher.wake('work')
  await turns()
  expect(taken).toHaveLength(1)
  const before = claims.length
  end(1)
  await turns()
  expect(claims).toHaveLength(before)
  put(1)
  dispatcher.wake('work')
  await turns()
  expect(taken).toHaveLength(2)
})

test('work that is told while a claim is under way is claimed after it', async () => {
  const answers: (() => void)[] = []
  const { claims, consume, dispatcher, ledger } = await dispatching()
  const claimDue = ledger.claimDue
  ledger.claimDue = async (request) => {
    const tasks = await claimDue(request)
    await new Promise<void>((resolve) => answers.push(resolve))
    return tasks
  }
  consume(5)
  await turns()
  expect(claims).toHaveLength(1)
  dispatcher.wake('work')
  dispatcher.wake('work')
  await turns()
  expect(claims).toHaveLength(1)
  answers.shift()?.()
  await turns()
  expect(claims).toHaveLength(2)
  answers.shift()?.()
  await turns()
  expect(claims).toHaveLength(2)
})

test('a queue never has two claims under way, and at most three queues have one', async () => {
  const under = new Map<string, number>()
  let most = 0
  let mostOfOne = 0
  const answers: (() => void)[] = []
  const { dispatcher, consume, ledger } = await dispatching()
  ledger.claimDue = async ({ queue }) => {
    under.set(queue, (under.get(queue) ?? 0) + 1)
    mostOfOne = Math.max(mostOfOne, under.get(queue) ?? 0)
    most = Math.max(
      most,
      [...under.values()].reduce((sum, count) => sum + count),
    )
    await new Promise<void>((resolve) => answers.push(resolve))
    under.set(queue, (under.get(queue) ?? 0) - 1)
    return []
  }
  const queues = ['a', 'b', 'c', 'd', 'e']
  for (const queue of queues) consume(5, queue)
  for (let round = 0; round < 10; round++) {
    for (const queue of queues) dispatcher.wake(queue)
    await turns(3)
    answers.shift()?.()
  }
  for (let round = 0; round < 10; round++) {
    await turns(3)
    for (const answer of answers.splice(0)) answer()
  }
  expect(most).toBe(3)
  expect(mostOfOne).toBe(1)
})

test('a claim whose answer was lost is repeated under the same id, and its tasks are handed over once', async () => {
  const { clock, claims, put, consume, ledger, givenBack } = await dispatching()
  const claimDue = ledger.claimDue
  const asked: Request[] = []
  const committed = new Map<string, ClaimedTask[]>()
  ledger.claimDue = async (request) => {
    const tasks = await claimDue(request)
    if (claims.length > 1) return tasks
    committed.set(request.claimId, tasks)
    throw new Error('Connection terminated unexpectedly')
  }
  ledger.claimed = async (request) => {
    asked.push(request)
    return committed.get(request.claimId) ?? []
  }
  const tasks = put(4)
  const { taken } = consume(4)
  await turns()
  expect(taken).toEqual([])
  clock.advance(250)
  await turns()
  expect(asked).toEqual([claims[0] as Request])
  expect(taken.sort()).toEqual(tasks.map((task) => task.id).sort())
  expect(claims).toHaveLength(1)
  expect(givenBack).toEqual([])
})

test('a claim that took nothing before its connection broke is made again under the same id', async () => {
  const { clock, claims, put, consume, ledger } = await dispatching()
  const claimDue = ledger.claimDue
  let broken = true
  const ids: string[] = []
  ledger.claimDue = async (request) => {
    ids.push(request.claimId)
    if (broken) throw new Error('Connection terminated unexpectedly')
    return claimDue(request)
  }
  put(1)
  const { taken } = consume(4)
  await turns()
  broken = false
  clock.advance(250)
  await turns()
  expect(taken).toHaveLength(1)
  expect(new Set(ids).size).toBe(1)
  expect(claims).toHaveLength(1)
})

test('a claim that is answered after five seconds is given back, because the beats may have returned it', async () => {
  const { clock, put, consume, ledger, givenBack } = await dispatching()
  const claimDue = ledger.claimDue
  const answer = Promise.withResolvers<void>()
  ledger.claimDue = async (request) => {
    const tasks = await claimDue(request)
    await answer.promise
    return tasks
  }
  const tasks = put(2)
  const { taken } = consume(2)
  await turns()
  clock.advance(5_000)
  answer.resolve()
  await turns()
  expect(givenBack.map((task) => task.id)).toEqual(tasks.map((task) => task.id))
  expect(taken).toEqual([])
})

test('what was claimed for a node that was declared dead meanwhile is not handed over', async () => {
  let node = 'node-1'
  const { put, consume, ledger, givenBack } = await dispatching({ node: () => node })
  const claimDue = ledger.claimDue
  const answer = Promise.withResolvers<void>()
  ledger.claimDue = async (request) => {
    const tasks = await claimDue(request)
    await answer.promise
    return tasks
  }
  put(1)
  const { taken } = consume(2)
  await turns()
  node = 'node-2'
  answer.resolve()
  await turns()
  expect(taken).toEqual([])
  expect(givenBack).toEqual([])
})

test('tasks that nobody takes any more are given back', async () => {
  const { put, consume, ledger, givenBack } = await dispatching()
  const claimDue = ledger.claimDue
  const answer = Promise.withResolvers<void>()
  ledger.claimDue = async (request) => {
    const tasks = await claimDue(request)
    await answer.promise
    return tasks
  }
  put(2)
  const { subscription } = consume(2)
  await turns()
  subscription.cancel()
  answer.resolve()
  await turns()
  expect(givenBack).toHaveLength(2)
})

test('tasks that come due at different times are each claimed at their own', async () => {
  const { clock, claims, consume, dispatcher, put } = await dispatching()
  const { taken } = consume(10)
  await turns()
  const before = claims.length
  dispatcher.wake('work', 3_000)
  dispatcher.wake('work', 1_000)
  dispatcher.wake('work', 1_001)
  clock.advance(1_000)
  await turns()
  expect(claims).toHaveLength(before)
  put(1)
  clock.advance(10)
  await turns()
  expect(taken).toHaveLength(1)
  expect(claims).toHaveLength(before + 1)
  put(1)
  clock.advance(2_000)
  await turns()
  expect(taken).toHaveLength(2)
})

test('a poll every five seconds finds what no signal told, and what comes due before the next one', async () => {
  const { clock, claims, polled, due, consume, put } = await dispatching()
  const { taken } = consume(10)
  await turns()
  expect(polled).toEqual([['work']])
  put(1)
  due.set('work', 0)
  clock.advance(4_999)
  await turns()
  expect(taken).toEqual([])
  clock.advance(1)
  await turns()
  expect(taken).toHaveLength(1)
  const before = claims.length
  due.set('work', 5_500)
  clock.advance(5_000)
  await turns()
  put(1)
  clock.advance(5_500)
  await turns()
  // The second poll was at 5,000 of these; the task's own time came half a second after it.
  expect(taken).toHaveLength(1)
  clock.advance(10)
  await turns()
  expect(taken).toHaveLength(2)
  expect(claims.length).toBe(before + 1)
})

test('a node that may not start anything claims nothing', async () => {
  let may = false
  const { claims, consume, put, dispatcher } = await dispatching({ mayStart: () => may })
  put(1)
  const { taken } = consume(5)
  dispatcher.wake('work')
  await turns()
  expect(claims).toEqual([])
  may = true
  dispatcher.wake('work')
  await turns()
  expect(taken).toHaveLength(1)
})

test('while the database is down, a queue asks four times a second and no more', async () => {
  let calls = 0
  const refuse = async () => {
    calls++
    throw new Error('connect ECONNREFUSED')
  }
  const { clock, consume, ledger, dispatcher } = await dispatching({ nextDue: refuse })
  ledger.claimDue = refuse
  ledger.claimed = refuse
  consume(5)
  for (let ms = 0; ms < 10_000; ms += 50) {
    dispatcher.wake('work')
    await turns(3)
    clock.advance(50)
  }
  expect(calls).toBeGreaterThanOrEqual(40)
  expect(calls).toBeLessThanOrEqual(43)
})

test('stop waits for the claim in flight and hands it over or gives it back; nothing is claimed after it', async () => {
  const { clock, claims, put, consume, dispatcher, ledger } = await dispatching()
  const claimDue = ledger.claimDue
  const answer = Promise.withResolvers<void>()
  ledger.claimDue = async (request) => {
    const tasks = await claimDue(request)
    await answer.promise
    return tasks
  }
  put(5)
  const { taken, end } = consume(2)
  dispatcher.wake('work', 1_000)
  await turns()
  let stopped = false
  const stop = dispatcher.stop().then(() => {
    stopped = true
  })
  await turns()
  expect(stopped).toBe(false)
  answer.resolve()
  await stop
  expect(clock.timers).toBe(0)
  expect(taken).toHaveLength(2)
  end(2)
  dispatcher.wake('work')
  clock.advance(60_000)
  await turns()
  expect(claims).toHaveLength(1)
})

test('stop does not wait for a database that is down', async () => {
  const { consume, ledger, dispatcher } = await dispatching()
  ledger.claimDue = async () => {
    throw new Error('connect ECONNREFUSED')
  }
  consume(1)
  await turns()
  const stopped = dispatcher.stop().then(() => true)
  expect(await until(() => stopped, { timeoutMs: 1_000, what: 'the stop' })).toBe(true)
})
