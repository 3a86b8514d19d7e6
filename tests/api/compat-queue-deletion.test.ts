import { afterAll, beforeAll, beforeEach, expect, test } from 'bun:test'
import { v7 as uuidv7 } from 'uuid'
import { deleteQueueGuarded, type QueueDeletionDeps } from '../../src/api/compat/consumer-management/queue-deletion.ts'
import { cancelTasks, cancelWaiting } from '../../src/store/tasks/cancel.ts'
import { insertConsumer, listConsumers } from '../../src/store/topology/consumers.ts'
import { insertQueue, queueByName } from '../../src/store/topology/queues.ts'
import { removeQueue } from '../../src/topology/remove-queue.ts'
import { brokerInMemory } from '../support/broker-in-memory.ts'
import { type TestDatabase, testDatabase } from '../support/database.ts'
import { until } from '../support/until.ts'

let database: TestDatabase
let asked: string[]
let deps: QueueDeletionDeps
let broker: ReturnType<typeof brokerInMemory>
beforeAll(async () => {
  database = await testDatabase('server')
})
afterAll(() => database.drop())
beforeEach(async () => {
  const { db, pool } = database.database
  await pool.query('delete from tasks; delete from consumers; delete from queues')
  await insertQueue(db, 'q')
  await insertConsumer(db, {
    id: uuidv7(),
    queue: 'q',
    target: { type: 'noop' },
    concurrency: 1,
    timeoutMs: 1,
    paused: false,
  })
  asked = []
  broker = brokerInMemory()
  await broker.broker.declare({
    queues: [{ name: 'q', type: 'classic', maxPriority: null, deadLetter: false }],
    exchanges: [],
    bindings: [],
  })
  const removal = {
    ...{ pool, db, broker: broker.broker, changed() {}, topologyChanged() {}, recheck() {} },
    async cancelTasks(ids: string[]) {
      asked.push(...ids)
      return cancelTasks(pool, ids)
    },
  }
  deps = {
    db,
    topologyChanged() {},
    cancelWaiting: (queue) => cancelWaiting(pool, queue),
    removeQueue: (queue, guards) => removeQueue(removal, queue, guards),
    drainWithinMs: 200,
  }
})

async function task(status: string): Promise<string> {
  const id = uuidv7()
  await database.database.pool.query(
    `insert into tasks (id, queue, payload, status, priority, due_at, max_attempts, origin)
     values ($1, 'q', '{}', $2, 0, now(), 10, 'compat')`,
    [id, status],
  )
  return id
}
const statusOf = async (id: string) =>
  (await database.database.pool.query('select status from tasks where id = $1', [id])).rows[0].status

const NO_GUARDS = { ifEmpty: false, ifUnused: false }

test('work in hand ends before its queue goes, what waits is cancelled, and nothing is asked to stop', async () => {
  const { db, pool } = database.database
  const running = await task('running')
  const waiting = [await task('pending'), await task('queued'), await task('retrying')]
  const deleted = deleteQueueGuarded({ ...deps, drainWithinMs: 10_000 }, 'q', NO_GUARDS)
  await until(async () => (await queueByName(db, 'q'))?.paused, { what: 'the queue to stand still' })
  await until(async () => (await Promise.all(waiting.map(statusOf))).every((status) => status === 'cancelled'), {
    what: 'what waits to be cancelled',
  })
  expect(await statusOf(running)).toBe('running')
  await pool.query(`update tasks set status = 'succeeded' where id = $1`, [running])
  await deleted
  expect(await queueByName(db, 'q')).toBeUndefined()
  expect(await listConsumers(db, { limit: 9 })).toEqual([])
  expect(asked).toEqual([])
})

test('work in hand that takes too long keeps its queue, which goes on with its consumers', async () => {
  const { db } = database.database
  await task('running')
  await expect(deleteQueueGuarded(deps, 'q', NO_GUARDS)).rejects.toMatchObject({
    code: 'queue-not-empty',
    detail: expect.stringContaining('1 of its tasks still run'),
  })
  await until(async () => (await queueByName(db, 'q'))?.paused === false, { what: 'the queue to go on' })
  expect(await listConsumers(db, { limit: 9 })).toHaveLength(1)
})

test('a queue that was paused stays paused when it cannot go', async () => {
  const { db, pool } = database.database
  await pool.query('update queues set paused = true')
  await task('running')
  await expect(deleteQueueGuarded(deps, 'q', NO_GUARDS)).rejects.toMatchObject({ code: 'queue-not-empty' })
  expect(await queueByName(db, 'q')).toMatchObject({ paused: true })
})

test('guards keep what they are for, and nothing is changed', async () => {
  const { db } = database.database
  const waiting = await task('pending')
  await expect(deleteQueueGuarded(deps, 'q', { ifEmpty: true, ifUnused: false })).rejects.toMatchObject({
    code: 'queue-not-empty',
  })
  await expect(deleteQueueGuarded(deps, 'q', { ifEmpty: false, ifUnused: true })).rejects.toMatchObject({
    code: 'conflict',
  })
  expect(await statusOf(waiting)).toBe('pending')
  expect(await queueByName(db, 'q')).toMatchObject({ paused: false })
  await expect(deleteQueueGuarded(deps, 'none', NO_GUARDS)).rejects.toMatchObject({ code: 'not-found' })
})

test('consumers and messages of others at the broker keep a queue by its guards, and nothing of ours goes before', async () => {
  const { db, pool } = database.database
  await pool.query('update consumers set paused = true')
  broker.control.messages.set('q', 1)
  await expect(deleteQueueGuarded(deps, 'q', { ifEmpty: true, ifUnused: false })).rejects.toMatchObject({
    code: 'queue-not-empty',
  })
  expect(await listConsumers(db, { limit: 9 })).toHaveLength(1)

  await pool.query('delete from consumers')
  const waiting = await task('pending')
  broker.control.consumers.set('q', 1)
  await expect(deleteQueueGuarded(deps, 'q', { ifEmpty: false, ifUnused: true })).rejects.toMatchObject({
    code: 'conflict',
  })
  expect(await statusOf(waiting)).toBe('pending')
})
