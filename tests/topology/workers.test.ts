import { expect, test } from 'bun:test'
import { createInProcessBroker } from '../../src/broker/in-process.ts'
import { claimedMessage } from '../../src/broker/wire-form.ts'
import { fusedIntake } from '../../src/execution/intake.ts'
import { startWorker, type Worker } from '../../src/execution/worker.ts'
import { ManualClock } from '../../src/runtime/clock.ts'
import { queuePolicy } from '../../src/task/topology/queue.ts'
import type { ConsumerOrder, QueueOrder } from '../../src/task/topology/topology.ts'
import { createWorkers } from '../../src/topology/workers.ts'
import { claimedTask, consumer, heldExecutor, heldSettler, turns, unlimited } from '../support/services.ts'

const queue = (changes: Partial<QueueOrder> = {}): QueueOrder => ({
  ...queuePolicy(),
  name: 'work',
  paused: false,
  conflict: null,
  ...changes,
})
const order = (changes: Partial<ConsumerOrder> = {}): ConsumerOrder => ({ ...consumer(), paused: false, ...changes })

/** Real workers on a real broker. */
function reconciling() {
  const broker = createInProcessBroker()
  const executor = heldExecutor()
  const settler = heldSettler()
  const clock = new ManualClock()
  const started: string[] = []
  const workers = createWorkers<Worker>({
    start(one) {
      started.push(one.id)
      return startWorker(one, {
        intake: fusedIntake(broker),
        executor,
        settler,
        clock,
        mayStart: () => true,
        reported: () => undefined,
        ...unlimited,
      })
    },
  })
  const deliver = async (count: number) => {
    const tasks = Array.from({ length: count }, () => claimedTask())
    const ends = await broker.publish(tasks.map(claimedMessage))
    return ends.filter((end) => end === 'confirmed').length
  }
  const endAll = async () => {
    for (const id of executor.running()) executor.end(id)
    await turns()
  }
  return { broker, executor, settler, workers, started, deliver, endAll }
}

test('workers are started for what the rows say, but not before they may be', async () => {
  const { broker, workers, started } = reconciling()
  const one = order({ concurrency: 3 })
  workers.reconcile({ queues: [queue()], consumers: [one] })
  expect(started).toEqual([])
  workers.resume()
  expect(started).toEqual([one.id])
  expect(broker.room('work')).toBe(3)
  workers.reconcile({ queues: [queue()], consumers: [{ ...one }] })
  expect(started).toEqual([one.id])
  await workers.quiet()
  expect(workers.all()).toEqual([])
})

test('a paused queue, a paused consumer and one whose row is gone have no worker', async () => {
  const { broker, workers } = reconciling()
  const one = order()
  workers.resume()
  for (const topology of [
    { queues: [queue({ paused: true })], consumers: [one] },
    { queues: [queue()], consumers: [{ ...one, paused: true }] },
    { queues: [queue()], consumers: [] },
  ]) {
    workers.reconcile({ queues: [queue()], consumers: [one] })
    expect(broker.room('work')).toBe(2)
    workers.reconcile(topology)
    await turns()
    expect(broker.room('work')).toBe(0)
    expect(workers.all()).toEqual([])
  }
})

test('a change of target or concurrency applies to the next task, and what runs goes on', async () => {
  const { executor, workers, deliver, endAll, started } = reconciling()
  const one = order({ concurrency: 1 })
  workers.resume()
  workers.reconcile({ queues: [queue()], consumers: [one] })
  await deliver(1)
  workers.reconcile({
    queues: [queue()],
    consumers: [{ ...one, concurrency: 2, target: { type: 'handler', name: 'h' } }],
  })
  expect(await deliver(5)).toBe(1)
  expect(executor.executions.map(({ target }) => target.type)).toEqual(['noop', 'handler'])
  expect(executor.running()).toHaveLength(2)
  expect(executor.cancelled).toEqual([])
  expect(started).toHaveLength(1)
  await endAll()
  await workers.quiet()
})

test('a consumer that is paused and resumed while its tasks run never runs more than its concurrency', async () => {
  const { executor, workers, deliver, endAll } = reconciling()
  const one = order({ concurrency: 2 })
  workers.resume()
  for (let round = 0; round < 3; round++) {
    workers.reconcile({ queues: [queue()], consumers: [one] })
    await deliver(5)
    workers.reconcile({ queues: [queue({ paused: true })], consumers: [one] })
    expect(workers.all()).toHaveLength(1)
    expect(await deliver(1)).toBe(0)
  }
  expect(executor.running()).toHaveLength(2)
  await endAll()
  expect(workers.all()).toEqual([])
  workers.reconcile({ queues: [queue()], consumers: [one] })
  expect(await deliver(5)).toBe(2)
  expect(executor.peak).toBe(2)
  await endAll()
  await workers.quiet()
})

test('quiet waits until everything is settled, those of deleted consumers too, and starts nothing on reconcile', async () => {
  const { executor, settler, workers, deliver, endAll, started } = reconciling()
  const one = order({ concurrency: 1 })
  workers.resume()
  workers.reconcile({ queues: [queue()], consumers: [one] })
  await deliver(1)
  workers.reconcile({ queues: [queue()], consumers: [] })
  let quiet = false
  const done = workers.quiet().then(() => {
    quiet = true
  })
  await turns()
  expect(quiet).toBe(false)
  workers.reconcile({ queues: [queue()], consumers: [one] })
  expect(started).toHaveLength(1)
  expect(executor.running()).toHaveLength(1)
  await endAll()
  await done
  expect(settler.settled).toHaveLength(1)
  expect(workers.all()).toEqual([])
})

test('abandon aborts everything without settling it, and resume begins with new workers', async () => {
  const { executor, settler, workers, deliver, endAll, started } = reconciling()
  const [one, other] = [order({ concurrency: 2 }), order({ concurrency: 1 })]
  workers.resume()
  workers.reconcile({ queues: [queue()], consumers: [one, other] })
  await deliver(3)
  workers.reconcile({ queues: [queue()], consumers: [one] })
  const abandoned = workers.abandon()
  expect(executor.cancelled).toHaveLength(3)
  expect(workers.all().flatMap((worker) => worker.hands())).toEqual([])
  await endAll()
  await abandoned
  expect(settler.settled).toEqual([])
  expect(workers.all()).toEqual([])
  workers.resume()
  expect(started).toEqual([one.id, other.id, one.id])
  await deliver(1)
  await endAll()
  expect(settler.settled).toHaveLength(1)
  await workers.quiet()
})
