import { afterEach, describe, expect, test } from 'bun:test'
import { randomBytes } from 'node:crypto'
import { sql } from 'kysely'
import { pino } from 'pino'
import { parseTimestamp } from '../../../src/store/database/column-types.ts'
import {
  type ConnectionOptions,
  databaseProblem,
  isConnectionLoss,
  openDatabase,
} from '../../../src/store/database/database.ts'
import { connectClient, ENGINES, type TestDatabase, testDatabase } from '../../support/database.ts'
import { until } from '../../support/until.ts'

const log = pino({ level: 'silent' })
const cleanups: (() => Promise<unknown>)[] = []

afterEach(async () => {
  for (const clean of cleanups.splice(0).reverse()) await clean()
})

function open(connection: ConnectionOptions, options: { poolSize?: number; statementTimeoutMs?: number } = {}) {
  const database = openDatabase({ connection, poolSize: 2, log, ...options })
  cleanups.push(() => database.close())
  return database
}

async function fresh(engine: (typeof ENGINES)[number]): Promise<TestDatabase> {
  const made = await testDatabase(engine)
  cleanups.push(() => made.drop())
  return made
}

const caught = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => undefined,
    (error: unknown) => error,
  )

describe.each(ENGINES)('%s', (engine) => {
  test('columns are read as the ledger writes them', async () => {
    const { database } = await fresh(engine)
    const { rows } = await sql`select
      '2026-03-04 05:06:07.123456+02'::timestamptz as time, '2026-03-04 05:06:07+00'::timestamptz as whole,
      'infinity'::timestamptz as forever, array['2026-01-01 00:00:00+00'::timestamptz, null] as times,
      9007199254740991::bigint as big, array[1, null]::bigint[] as bigs,
      '{"b": 1.0, "a": 12345678901234567890}'::json as text, '{"b": 1.0}'::jsonb as parsed,
      array['a,"b', null]::text[] as texts, array['00000000-0000-7000-8000-000000000001']::uuid[] as ids,
      '\\x00ff'::bytea as bytes`.execute(database.db)
    expect(rows[0]).toEqual({
      time: '2026-03-04T03:06:07.123Z',
      whole: '2026-03-04T05:06:07.000Z',
      forever: 'infinity',
      times: ['2026-01-01T00:00:00.000Z', null],
      big: 9007199254740991,
      bigs: [1, null],
      text: '{"b": 1.0, "a": 12345678901234567890}',
      parsed: { b: 1 },
      texts: ['a,"b', null],
      ids: ['00000000-0000-7000-8000-000000000001'],
      bytes: Buffer.from([0, 255]),
    })
    const tooBig = caught(sql`select 9007199254740992::bigint`.execute(database.db))
    expect(String(await tooBig)).toContain('9007199254740992 does not fit')
  })

  test('every statement is planned for what it is given, as a plan made on a tiny table would be slow on a large one', async () => {
    const { database } = await fresh(engine)
    const plans = 'select generic_plans::int as generic, custom_plans::int as custom from pg_prepared_statements'
    const client = await database.pool.connect()
    try {
      for (let run = 0; run < 10; run++) {
        await client.query({ name: 'by-queue', text: 'select id from tasks where queue = $1', values: ['default'] })
      }
      expect((await client.query(plans)).rows).toEqual([{ generic: 0, custom: 10 }])
    } finally {
      client.release()
    }
  })

  test("the parsers belong to the pool: pg's own stay as they are", async () => {
    const { connection, database } = await fresh(engine)
    await sql`select 1`.execute(database.db)
    if (!('url' in connection)) throw new Error('a test database has a URL')
    const plain = await connectClient({ connectionString: connection.url })
    const { rows } = await plain.query(`select '{}'::json as json, 1::bigint as big`)
    await plain.end()
    expect(rows).toEqual([{ json: {}, big: '1' }])
  })

  test('a statement that takes too long is ended, and that is "database-unavailable", not a loss', async () => {
    const { connection } = await fresh(engine)
    const { db } = open(connection, { statementTimeoutMs: 3_000 })
    const error = await caught(sql`select pg_sleep(20)`.execute(db))
    expect(databaseProblem(error)).toMatchObject({ code: 'database-unavailable', status: 503 })
    expect(isConnectionLoss(error)).toBe(false)
  })

  test('a connection ended in a transaction is a loss, ends no process, and the pool goes on', async () => {
    const { connection, database } = await fresh(engine)
    const { db } = open(connection, { poolSize: 1 })
    const error = await caught(
      db.transaction().execute(async (tx) => {
        const { rows } = await sql<{ pid: number }>`select pg_backend_pid() as pid`.execute(tx)
        const pid = rows[0]?.pid
        await sql`select pg_terminate_backend(${pid})`.execute(database.db)
        // Between two statements: nothing here listens to the connection but the pool.
        await until(async () => {
          const { rows } = await sql`select from pg_stat_activity where pid = ${pid}`.execute(database.db)
          return rows.length === 0
        })
        await sql`select 1`.execute(tx)
      }),
    )
    expect(error).toBeInstanceOf(Error)
    expect(isConnectionLoss(error)).toBe(true)
    expect(databaseProblem(error)?.code).toBe('database-unavailable')
    expect((await sql`select 1 as n`.execute(db)).rows).toEqual([{ n: 1 }])
  })

  test('a connection that is ended while its statement runs is a loss', async () => {
    const { connection, database } = await fresh(engine)
    const { db } = open(connection)
    const running = caught(sql`select pg_sleep(20), 'the victim'`.execute(db))
    await until(async () => {
      const { rows } = await sql`select pg_terminate_backend(pid) from pg_stat_activity
        where query like '%the victim%' and pid <> pg_backend_pid()`.execute(database.db)
      return rows.length > 0
    })
    expect(isConnectionLoss(await running)).toBe(true)
  })

  test('a server that freezes in a statement is given up, as a loss', async () => {
    const { connection } = await fresh(engine)
    const { db } = open(connection, { statementTimeoutMs: 500, poolSize: 1 })
    const { rows } = await sql<{ pid: number }>`select pg_backend_pid() as pid`.execute(db)
    const pid = rows[0]?.pid as number
    process.kill(pid, 'SIGSTOP')
    try {
      const error = await caught(sql`select 1`.execute(db))
      expect(isConnectionLoss(error)).toBe(true)
      expect(databaseProblem(error)?.code).toBe('database-unavailable')
    } finally {
      process.kill(pid, 'SIGCONT')
    }
  })

  test('a full pool is "database-unavailable" after five seconds, and nothing was sent', async () => {
    const { connection } = await fresh(engine)
    const { db, pool } = open(connection, { poolSize: 1 })
    const holder = await pool.connect()
    const error = await caught(sql`select 1`.execute(db))
    holder.release()
    expect(databaseProblem(error)?.code).toBe('database-unavailable')
    expect(isConnectionLoss(error)).toBe(false)
  }, 30_000)

  test('a server without a connection to spare is waited for, and what there is of the pool is used', async () => {
    const { database, connection } = await fresh(engine)
    const role = `guest_${randomBytes(6).toString('hex')}`
    await database.pool.query(`create role ${role} login connection limit 1 password 'a-guest'`)
    cleanups.push(() => database.pool.query(`drop role ${role}`))
    const asGuest =
      'url' in connection
        ? { url: Object.assign(new URL(connection.url), { username: role, password: 'a-guest' }).href }
        : { ...connection, user: role, password: 'a-guest' }
    const first = open(asGuest, { poolSize: 5 })
    await Promise.all(Array.from({ length: 20 }, () => first.pool.query('select pg_sleep(0.01)')))

    const second = open(asGuest)
    const waited = second.pool.query('select 1')
    await first.close()
    expect((await waited).rowCount).toBe(1)

    const refused = await caught(open(asGuest).pool.query('select 1'))
    expect([databaseProblem(refused)?.code, isConnectionLoss(refused)]).toEqual(['database-unavailable', false])
  })

  test('a violated constraint and a mistake in the SQL are no problem of the database', async () => {
    const { database } = await fresh(engine)
    for (const text of ['insert into settings values (null, null)', 'select nonsense']) {
      const error = await caught(sql.raw(text).execute(database.db))
      expect(error).toBeInstanceOf(Error)
      expect(databaseProblem(error)).toBeUndefined()
      expect(isConnectionLoss(error)).toBe(false)
    }
  })

  test('close ends every connection, and can be called twice', async () => {
    const { connection, database } = await fresh(engine)
    const other = openDatabase({ connection, poolSize: 4, log, applicationName: 'to be closed' })
    await Promise.all([1, 2, 3, 4].map(() => sql`select 1`.execute(other.db)))
    await Promise.all([other.close(), other.close()])
    await until(async () => {
      const { rows } = await sql`select from pg_stat_activity where application_name = 'to be closed'`.execute(
        database.db,
      )
      return rows.length === 0
    })
    const error = await caught(sql`select 1`.execute(other.db))
    expect(databaseProblem(error)?.code).toBe('database-unavailable')
  })
})

test('a port where nobody listens and a missing socket are "database-unavailable", and nothing was sent', async () => {
  const nowhere: ConnectionOptions[] = [
    { url: 'postgres://x:y@127.0.0.1:1/x' },
    { url: 'postgres://x:y@localhost:1/x' },
    { socketDir: '/nonexistent', port: 5432, user: 'x', password: 'y', database: 'x' },
  ]
  for (const connection of nowhere) {
    const error = await caught(sql`select 1`.execute(open(connection).db))
    expect(databaseProblem(error)?.code).toBe('database-unavailable')
    expect(databaseProblem(error)?.detail).not.toContain('now: .')
    expect(isConnectionLoss(error)).toBe(false)
  }
})

test('a full disk is "storage-full", by its code and by its message', () => {
  expect(databaseProblem(Object.assign(new Error('could not extend file'), { code: '53100' }))?.code).toBe(
    'storage-full',
  )
  const io = Object.assign(new Error('could not write: No space left on device'), { code: '58030' })
  expect(databaseProblem(io)?.code).toBe('storage-full')
  expect(databaseProblem('nothing')).toBeUndefined()
  expect(databaseProblem(undefined)).toBeUndefined()
})

test('a timestamp in any zone becomes UTC', () => {
  expect(parseTimestamp('2026-03-04 05:06:07.5-03:30')).toBe('2026-03-04T08:36:07.500Z')
  expect(parseTimestamp('2026-03-04 05:06:07+02')).toBe('2026-03-04T03:06:07.000Z')
})
