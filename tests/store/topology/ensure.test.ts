import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { listConsumers } from '../../../src/store/topology/consumers.ts'
import { ensureTopology, type WantedTopology } from '../../../src/store/topology/ensure.ts'
import { putQueue, queueByName } from '../../../src/store/topology/queues.ts'
import { readTopology } from '../../../src/store/topology/topology.ts'
import { ENGINES, type TestDatabase, testDatabase } from '../../support/database.ts'

const CONSUMER = { target: { type: 'noop' as const }, concurrency: 3, timeoutMs: 1_000, paused: false }
const WANTED: WantedTopology = {
  queues: [
    { name: 'b', policy: { type: 'classic', deadLetter: false }, consumers: [CONSUMER] },
    { name: 'a', consumers: [CONSUMER] },
  ],
  exchange: {
    name: 'x',
    type: 'fanout',
    bindings: [
      { queue: 'a', routingKey: '' },
      { queue: 'b', routingKey: '' },
    ],
  },
}

describe.each(ENGINES)('ensured topology on %s', (engine) => {
  let database: TestDatabase
  beforeAll(async () => {
    database = await testDatabase(engine)
  })
  afterEach(async () => {
    await database.database.pool.query('delete from exchanges; delete from consumers; delete from queues')
  })
  afterAll(() => database.drop())

  test('what is missing is made, and the second time there is nothing to do', async () => {
    const { db, pool } = database.database
    expect(await ensureTopology(db, WANTED)).toBe(true)
    const made = await readTopology(pool)
    expect(made.queues.map(({ name, type, deadLetter }) => [name, type, deadLetter]).sort()).toEqual([
      ['a', 'quorum', true],
      ['b', 'classic', false],
    ])
    expect(made.consumers).toHaveLength(2)
    expect(made.exchanges).toMatchObject([{ name: 'x', type: 'fanout' }])
    expect(made.bindings).toHaveLength(2)
    expect(await ensureTopology(db, WANTED)).toBe(false)
    expect(await readTopology(pool)).toEqual(made)
  })

  test('nodes that make it at the same moment make it once', async () => {
    const { db, pool } = database.database
    const made = await Promise.all(Array.from({ length: 8 }, () => ensureTopology(db, WANTED)))
    expect(made.filter(Boolean)).toHaveLength(1)
    expect((await readTopology(pool)).consumers).toHaveLength(2)
  })

  test('what somebody has changed or taken away stays so; a queue that is gone comes back whole', async () => {
    const { db, pool } = database.database
    await putQueue(db, 'a', { window: 7 })
    await ensureTopology(db, WANTED)
    expect(await queueByName(db, 'a')).toMatchObject({ window: 7 })
    expect(await listConsumers(db, { queue: 'a', limit: 9 })).toEqual([])

    await pool.query(`delete from bindings where queue = 'a'; delete from consumers`)
    expect(await ensureTopology(db, WANTED)).toBe(false)
    expect((await readTopology(pool)).bindings.map(({ queue }) => queue)).toEqual(['b'])

    await pool.query(`delete from queues where name = 'b'`)
    expect(await ensureTopology(db, WANTED)).toBe(true)
    expect((await readTopology(pool)).bindings.map(({ queue }) => queue)).toEqual(['b'])
    expect(await listConsumers(db, { limit: 9 })).toMatchObject([{ queue: 'b', concurrency: 3 }])
  })
})
