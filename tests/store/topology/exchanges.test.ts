import { afterEach, describe, expect, test } from 'bun:test'
import { bindQueue, deleteExchange, exchangeByName, putExchange } from '../../../src/store/topology/exchanges.ts'
import { putQueue } from '../../../src/store/topology/queues.ts'
import { ENGINES, type TestDatabase, testDatabase } from '../../support/database.ts'
import { until } from '../../support/until.ts'

const opened: TestDatabase[] = []
afterEach(async () => {
  for (const database of opened.splice(0)) await database.drop()
})

describe.each([...ENGINES])('exchanges on %s', (engine) => {
  async function database() {
    const test = await testDatabase(engine)
    opened.push(test)
    await putQueue(test.database.db, 'q', {})
    return test.database
  }

  test('of many that make the same exchange at once one does, and one that says another type hears so', async () => {
    const { db } = await database()
    const put = await Promise.all(Array.from({ length: 6 }, () => putExchange(db, 'x', 'topic')))
    expect(put.toSorted()).toEqual(['created', ...(Array(5).fill('existing') as 'existing'[])])
    expect(await putExchange(db, 'x', 'direct')).toBe('other-type')
    expect((await exchangeByName(db, 'x'))?.type).toBe('topic')
  })

  test('a binding that is being made keeps its exchange; one that comes later finds it gone', async () => {
    const { db, pool } = await database()
    await putExchange(db, 'x', 'fanout')
    const maker = await pool.connect()
    await maker.query(`begin; insert into bindings (exchange, queue, routing_key) values ('x', 'q', '')`)
    const deletion = deleteExchange(db, 'x', { ifUnused: true })
    await until(
      async () =>
        (
          await pool.query(
            `select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`,
          )
        ).rowCount === 1,
      { what: 'the deletion to wait for the binding' },
    )
    await maker.query('commit')
    maker.release()
    expect(await deletion).toBe('has-bindings')
    expect(await deleteExchange(db, 'x', { ifUnused: false })).toBe('deleted')
    const binding = { exchange: 'x', queue: 'q', routingKey: '' }
    expect(await bindQueue(db, binding)).toBe('unknown-exchange')
    await putExchange(db, 'x', 'fanout')
    expect(await bindQueue(db, { ...binding, queue: 'none' })).toBe('unknown-queue')
    expect(await bindQueue(db, binding)).toBe('created')
    expect(await bindQueue(db, binding)).toBe('existing')
  })
})
