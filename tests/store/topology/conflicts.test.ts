import { afterEach, describe, expect, test } from 'bun:test'
import { mendedQueues, saveConflicts } from '../../../src/store/topology/conflicts.ts'
import { queueByName } from '../../../src/store/topology/queues.ts'
import { readTopology } from '../../../src/store/topology/topology.ts'
import { ENGINES, type TestDatabase, testDatabase } from '../../support/database.ts'

const opened: TestDatabase[] = []
afterEach(async () => {
  for (const database of opened.splice(0)) await database.drop()
})

describe.each([...ENGINES])('conflicts with the broker on %s', (engine) => {
  async function rows() {
    const test = await testDatabase(engine)
    opened.push(test)
    const { pool, db } = test.database
    await pool.query(`insert into queues (name, retry, retention) values ('a', '{}', '{}'), ('b', '{}', '{}')`)
    await pool.query(`insert into exchanges (name, type) values ('a', 'topic')`)
    return { pool, db }
  }
  const declared = { queues: [{ name: 'a' }, { name: 'b' }], exchanges: [{ name: 'a' }] }

  test('are shown on the rows that they are about until they are resolved, and written once', async () => {
    const { pool, db } = await rows()
    const conflicts = [{ kind: 'queue', name: 'a', text: 'it is classic' } as const]
    expect(await saveConflicts(pool, declared, conflicts)).toBe(true)
    expect([(await queueByName(db, 'a'))?.conflict, (await queueByName(db, 'b'))?.conflict]).toEqual([
      'it is classic',
      null,
    ])
    expect((await readTopology(pool)).exchanges).toMatchObject([{ name: 'a', type: 'topic', conflict: null }])
    expect(await saveConflicts(pool, declared, conflicts)).toBe(false)
    expect(await saveConflicts(pool, declared, [{ kind: 'exchange', name: 'a', text: 'it is direct' }])).toBe(true)
    expect((await queueByName(db, 'a'))?.conflict).toBeNull()
    expect((await readTopology(pool)).exchanges[0]?.conflict).toBe('it is direct')
  })

  test('that are over are told before they are shown as such', async () => {
    const { pool } = await rows()
    const conflict = (name: string) => ({ kind: 'queue', name, text: 'it is classic' }) as const
    await saveConflicts(pool, declared, [conflict('a'), conflict('b')])
    expect(await mendedQueues(pool, declared, [conflict('a')])).toEqual(['b'])
    expect(await mendedQueues(pool, { queues: [{ name: 'a' }], exchanges: [] }, [])).toEqual(['a'])
    await saveConflicts(pool, declared, [])
    expect(await mendedQueues(pool, declared, [])).toEqual([])
  })

  test('of rows that were not declared stay as they are', async () => {
    const { pool, db } = await rows()
    await pool.query(`update queues set conflict = 'known' where name = 'b'`)
    expect(await saveConflicts(pool, { queues: [{ name: 'a' }, { name: 'gone' }], exchanges: [] }, [])).toBe(false)
    expect((await queueByName(db, 'b'))?.conflict).toBe('known')
  })
})
