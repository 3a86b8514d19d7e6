import { expect, test } from 'bun:test'
import { createInProcessBroker } from '../../src/broker/in-process.ts'
import { claimedMessage } from '../../src/broker/wire-form.ts'
import { fusedIntake } from '../../src/execution/intake.ts'
import { startWorker } from '../../src/execution/worker.ts'
import { ManualClock } from '../../src/runtime/clock.ts'
import type { ClaimedTask } from '../../src/task/task.ts'
import {
  CountedClock,
  claimedTask,
  consumer,
  heldExecutor,
  heldSettler,
  turns,
  unlimited,
} from '../support/services.ts'

/** A worker on a real broker, with targets and commits that end when the test says so. */
function working(order: Parameters<typeof consumer>[0] = {}, mayStart: () => boolean = () => true) {
  const clock = new CountedClock()
  const broker = createInProcessBroker()
  const executor = heldExecutor()
  const settler = heldSettler()
  const worker = startWorker(consumer(order), {
    intake: fusedIntake(broker),
    executor,
    settler,
    clock,
    mayStart,
    reported: () => undefined,
    ...unlimited,
  })
  /** Hands over as many tasks as there is room, or `count`; gives those taken. */
  const deliver = async (count = broker.room('work'), task: Partial<ClaimedTask> = {}) => {
    const tasks = Array.from({ length: count }, () => claimedTask(task))
    const ends = await broker.publish(tasks.map(claimedMessage))
    return tasks.filter((_, index) => ends[index] === 'confirmed')
  }
  const outcomes = () => settler.settled.map(({ id, outcome }) => ({ id, kind: outcome.kind }))
  /** Tasks that end at once, for so long: the prefetch grows. */
  const warmUp = async (ms = 1_000) => {
    for (let at = 0; at < ms; at += 10) {
      await deliver()
      for (const id of executor.running()) executor.end(id)
      await turns(3)
      clock.advance(10)
    }
    while (executor.running().length > 0) {
      for (const id of executor.running()) executor.end(id)
      await turns(3)
    }
    settler.settled.splice(0)
  }
  return { clock, broker, executor, settler, worker, deliver, outcomes, warmUp }
}

test('concurrency is never exceeded, whatever ends when', async () => {
  const { executor, settler, worker, deliver } = working({ concurrency: 3 })
  let given = 0
  for (let round = 0; round < 200; round++) {
    given += (await deliver()).length
    settler.auto = round % 3 !== 0
    const [first] = executor.running()
    if (first) executor.end(first)
    await turns(2)
    settler.commit()
  }
  while (executor.running().length > 0) {
    for (const id of executor.running()) executor.end(id)
    await turns(3)
    settler.commit()
  }
  await worker.idle()
  expect(executor.peak).toBe(3)
  expect(given).toBeGreaterThan(100)
  expect(settler.settled).toHaveLength(given)
  worker.quiet()
})

test('a slot frees when the target returns, before its outcome is committed; the delivery ends after it', async () => {
  const { broker, executor, settler, worker, deliver, warmUp } = working({ concurrency: 1 })
  await warmUp()
  const room = broker.room('work')
  settler.auto = false
  const [first, second] = await deliver(2)
  expect(executor.running()).toEqual([first?.id as string])
  executor.end(first?.id as string)
  await turns()
  expect(executor.running()).toEqual([second?.id as string])
  expect(settler.settled).toEqual([])
  expect(broker.room('work')).toBe(room - 2)
  expect(worker.hands()).toHaveLength(2)
  executor.end(second?.id as string)
  await turns()
  settler.commit()
  await worker.idle()
  expect(broker.room('work')).toBeGreaterThanOrEqual(room)
  worker.quiet()
})

test('the prefetch grows with quick tasks and stays at the concurrency with slow ones', async () => {
  const quick = working({ concurrency: 5 })
  await quick.warmUp()
  expect(quick.broker.room('work')).toBeGreaterThan(100)
  quick.worker.quiet()

  const slow = working({ concurrency: 5 })
  for (let minute = 0; minute < 5; minute++) {
    await slow.deliver()
    slow.clock.advance(60_000)
    for (const id of slow.executor.running()) slow.executor.end(id)
    await turns()
    expect(slow.broker.room('work')).toBe(5)
  }
  slow.worker.quiet()
})

test('what is buffered for more than five seconds is given back; what runs goes on', async () => {
  const { clock, executor, worker, deliver, outcomes, warmUp } = working({ concurrency: 2 })
  await warmUp()
  const tasks = await deliver(6)
  clock.advance(5_000)
  await turns()
  expect(outcomes()).toEqual([])
  clock.advance(1_000)
  await turns()
  expect(outcomes()).toEqual(tasks.slice(2).map(({ id }) => ({ id, kind: 'returned' })))
  expect(executor.running()).toEqual(tasks.slice(0, 2).map(({ id }) => id))
  // What goes back must not come again at once: the buffer has shrunk to the slots.
  expect(worker.state()).toMatchObject({ running: 2, buffered: 0 })
  worker.quiet()
})

test('quiet gives the buffer back, lets running tasks end and takes nothing more', async () => {
  const { clock, broker, executor, worker, deliver, outcomes, warmUp } = working({ concurrency: 1 })
  await warmUp()
  const [running, ...buffered] = await deliver(4)
  worker.quiet()
  await turns()
  expect(outcomes()).toEqual(buffered.map(({ id }) => ({ id, kind: 'returned' })))
  expect(broker.room('work')).toBe(0)
  expect(clock.timers).toBe(0)
  expect(await deliver(1)).toEqual([])
  let idle = false
  void worker.idle().then(() => {
    idle = true
  })
  clock.advance(60_000)
  await turns()
  expect(idle).toBe(false)
  executor.end(running?.id as string)
  await worker.idle()
  expect(outcomes().at(-1)).toEqual({ id: running?.id as string, kind: 'succeeded' })
})

test('a running task that is lost while its worker is quiet is given back', async () => {
  const { executor, worker, deliver, outcomes } = working()
  const [task] = await deliver(1)
  worker.quiet()
  executor.end(task?.id as string, { kind: 'lost', error: 'closed', started: true })
  await worker.idle()
  expect(outcomes()).toEqual([{ id: task?.id as string, kind: 'returned' }])
})

test('cancel settles a buffered task as cancelled, aborts a running one, and says when a task is not here', async () => {
  const { executor, worker, deliver, outcomes, warmUp } = working({ concurrency: 1 })
  await warmUp()
  const [running, buffered] = await deliver(2)
  expect(worker.cancel(buffered?.id as string)).toBe(true)
  await turns()
  expect(outcomes()).toEqual([{ id: buffered?.id as string, kind: 'cancelled' }])
  expect(worker.cancel(running?.id as string)).toBe(true)
  expect(executor.cancelled).toEqual([running?.id as string])
  expect(worker.cancel('elsewhere')).toBe(false)
  executor.end(running?.id as string, { kind: 'cancelled' })
  await worker.idle()
  worker.quiet()
})

test('an abandoned worker settles nothing, names nothing, and is idle when its targets have returned', async () => {
  const { clock, executor, settler, worker, deliver, warmUp } = working({ concurrency: 2 })
  await warmUp()
  const tasks = await deliver(5)
  worker.abandon()
  expect(clock.timers).toBe(0)
  expect(worker.hands()).toEqual([])
  expect(executor.cancelled).toEqual(tasks.slice(0, 2).map(({ id }) => id))
  for (const id of executor.running()) executor.end(id, { kind: 'cancelled' })
  await worker.idle()
  clock.advance(60_000)
  await turns()
  expect(settler.settled).toEqual([])
  expect(executor.running()).toEqual([])
})

test('a task that lacks a target is dead, with a sentence that says what is missing', async () => {
  const { settler, worker, deliver } = working({ target: { type: 'task' } })
  await deliver(1)
  await worker.idle()
  expect(settler.settled[0]?.outcome).toEqual({
    kind: 'failed',
    retryable: false,
    error: 'The task brings no target, and the consumer of queue "work" delivers to the task\'s own',
  })
  worker.quiet()
})

test('a task with its own target and timeout runs by them, one lost twice runs alone', async () => {
  const { executor, worker, deliver } = working({ target: { type: 'task' }, timeoutMs: 1_000 })
  await deliver(1, { target: '{"type":"noop","delay":"1s"}', timeoutMs: 7, lostStarts: 2 })
  expect(executor.executions[0]).toMatchObject({ target: { type: 'noop', delay: '1s' }, timeoutMs: 7, alone: true })
  executor.end(executor.running()[0] as string)
  await deliver(1, { target: '{"type":"noop"}', lostStarts: 1 })
  await turns()
  expect(executor.executions[1]).toMatchObject({ timeoutMs: 1_000, alone: false })
  executor.end(executor.running()[0] as string)
  await worker.idle()
  worker.quiet()
})

test('nothing is started while the node may not start, and the buffer starts when it may again', async () => {
  let may = false
  const { clock, executor, worker, deliver } = working({ concurrency: 2 }, () => may)
  await deliver(2)
  clock.advance(2_000)
  expect(executor.running()).toEqual([])
  expect(worker.hands().map((hand) => hand.started)).toEqual([false, false])
  may = true
  clock.advance(1_000)
  expect(executor.running()).toHaveLength(2)
  expect(worker.hands().map((hand) => hand.started)).toEqual([true, true])
  for (const id of executor.running()) executor.end(id)
  await worker.idle()
  worker.quiet()
})

test('the next attempt of a task that still runs here counts against the concurrency like any other', async () => {
  const { executor, settler, worker, deliver, warmUp } = working({ concurrency: 2 })
  await warmUp()
  // Somebody settled attempt 1 by REST while it ran, and the ledger handed out attempt 2.
  const [task] = await deliver(1)
  await deliver(1, { ...task, attempt: 2 })
  await deliver(1)
  expect(executor.running()).toHaveLength(2)
  executor.end(task?.id as string)
  await turns()
  expect(executor.running()).toHaveLength(2)
  expect(worker.state().running).toBe(2)
  for (const id of executor.running()) executor.end(id)
  await worker.idle()
  expect(executor.peak).toBeLessThanOrEqual(2)
  expect(settler.settled.map(({ attempt }) => attempt).sort()).toEqual([1, 1, 2])
  worker.quiet()
})

test('update changes concurrency and target under way and takes a quiet worker back, within the concurrency', async () => {
  const order = consumer({ concurrency: 2 })
  const { clock, executor, worker, deliver } = working(order)
  await deliver()
  worker.update({ ...order, concurrency: 3, target: { type: 'noop', delay: '1s' } })
  expect(await deliver()).toHaveLength(1)
  expect(executor.executions.map(({ target }) => target)).toEqual([
    { type: 'noop' },
    { type: 'noop' },
    { type: 'noop', delay: '1s' },
  ])
  worker.quiet()
  worker.update({ ...order, concurrency: 3 })
  // What it had before it was quiet still takes its places: nothing is hoarded behind it.
  expect(await deliver()).toEqual([])
  expect(executor.running()).toHaveLength(3)
  for (const id of executor.running()) executor.end(id)
  await worker.idle()
  clock.advance(10_000)
  expect(await deliver()).toHaveLength(3)
  worker.abandon()
  worker.update(order)
  expect(await deliver(1)).toEqual([])
})

test('an outcome waits for what its task reported', async () => {
  const clock = new ManualClock()
  const broker = createInProcessBroker()
  const executor = heldExecutor()
  const settler = heldSettler()
  const written = Promise.withResolvers<void>()
  const worker = startWorker(consumer(), {
    intake: fusedIntake(broker),
    executor,
    settler,
    clock,
    mayStart: () => true,
    reported: () => written.promise,
    ...unlimited,
  })
  const task = claimedTask()
  await broker.publish([claimedMessage(task)])
  executor.end(task.id)
  await turns()
  expect(settler.settled).toEqual([])
  expect(worker.hands()).toEqual([{ id: task.id, started: true }])
  written.resolve()
  await worker.idle()
  expect(settler.settled).toHaveLength(1)
  worker.quiet()
})

test('PROTOCOL 13: what may take longer than the broker waits is acked when it is claimed, and counts as held all the same', async () => {
  const broker = createInProcessBroker()
  const executor = heldExecutor()
  const settler = heldSettler()
  const worker = startWorker(consumer({ concurrency: 2, timeoutMs: 3_600_000 }), {
    intake: fusedIntake(broker),
    executor,
    settler,
    clock: new ManualClock(),
    mayStart: () => true,
    reported: () => undefined,
    ...unlimited,
    longestDeliveryMs: 60_000,
  })
  const tasks = [claimedTask(), claimedTask(), claimedTask()]
  expect(broker.room('work')).toBe(2)
  expect(await broker.publish(tasks.map(claimedMessage))).toEqual(['confirmed', 'confirmed', 'returned'])
  await turns()
  // Both deliveries have ended, and nothing more is taken: no slot is free.
  expect(broker.room('work')).toBe(0)
  expect(executor.running()).toHaveLength(2)
  executor.end(tasks[0]?.id ?? '')
  await turns()
  expect(broker.room('work')).toBe(1)
  executor.end(tasks[1]?.id ?? '')
  await turns()
  expect(settler.settled).toHaveLength(2)
  worker.quiet()
  await worker.idle()
})
