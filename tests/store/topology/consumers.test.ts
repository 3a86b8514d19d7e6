import { afterEach, describe, expect, test } from 'bun:test'
import { v7 as uuidv7 } from 'uuid'
import {
  consumerById,
  deleteConsumer,
  insertConsumer,
  listConsumers,
  updateConsumer,
} from '../../../src/store/topology/consumers.ts'
import { putQueue } from '../../../src/store/topology/queues.ts'
import { DEFAULT_RETRY_POLICY } from '../../../src/task/retry-policy.ts'
import { DEFAULT_RETENTION } from '../../../src/task/topology/queue.ts'
import { ENGINES, type TestDatabase, testDatabase } from '../../support/database.ts'

let opened: TestDatabase | undefined
afterEach(async () => {
  await opened?.drop()
  opened = undefined
})

describe.each([...ENGINES])('on %s Postgres', (engine) => {
  async function database() {
    opened = await testDatabase(engine)
    const { db } = opened.database
    await putQueue(db, 'q', { type: 'quorum', retry: DEFAULT_RETRY_POLICY, retention: DEFAULT_RETENTION })
    return db
  }
  const NEW = {
    queue: 'q',
    target: { type: 'noop', delay: '5ms' },
    concurrency: 10,
    timeoutMs: 30_000,
    paused: false,
  } as const

  test('a consumer comes back as it was stored', async () => {
    const db = await database()
    const id = uuidv7()
    const made = await insertConsumer(db, { id, ...NEW })
    expect(made).toMatchObject({ id, ...NEW })
    expect(await consumerById(db, id)).toEqual(made)
    expect(made?.createdAt).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
  })

  test('a change touches what it names and nothing else', async () => {
    const db = await database()
    const id = uuidv7()
    await insertConsumer(db, { id, ...NEW })
    expect(await updateConsumer(db, id, { paused: true })).toMatchObject({ ...NEW, paused: true })
    expect(await updateConsumer(db, id, { concurrency: 3, target: { type: 'task' } })).toMatchObject({
      ...NEW,
      paused: true,
      concurrency: 3,
      target: { type: 'task' },
    })
    expect(await updateConsumer(db, id, {})).toMatchObject({ concurrency: 3 })
    expect(await updateConsumer(db, uuidv7(), { paused: true })).toBeUndefined()
  })

  test('a consumer of an unknown queue is not stored', async () => {
    const db = await database()
    expect(await insertConsumer(db, { id: uuidv7(), ...NEW, queue: 'none' })).toBeUndefined()
    expect(await listConsumers(db, { limit: 10 })).toEqual([])
  })

  test('consumers are listed oldest first, by queue, from a place on', async () => {
    const db = await database()
    await putQueue(db, 'r', { type: 'quorum', retry: DEFAULT_RETRY_POLICY, retention: DEFAULT_RETENTION })
    const ids = Array.from({ length: 4 }, () => uuidv7())
    for (const [i, id] of ids.entries()) await insertConsumer(db, { id, ...NEW, queue: i === 1 ? 'r' : 'q' })
    const idsOf = async (filter: Parameters<typeof listConsumers>[1]) =>
      (await listConsumers(db, filter)).map(({ id }) => id)
    expect(await idsOf({ limit: 10 })).toEqual(ids)
    expect(await idsOf({ limit: 10, queue: 'q', after: ids[0] })).toEqual(ids.slice(2))
    expect(await idsOf({ limit: 2 })).toEqual(ids.slice(0, 2))
  })

  test('a consumer is deleted once', async () => {
    const db = await database()
    const id = uuidv7()
    await insertConsumer(db, { id, ...NEW })
    expect([await deleteConsumer(db, id), await deleteConsumer(db, id)]).toEqual([true, false])
  })
})
