import { afterEach, describe, expect, test } from 'bun:test'
import { sql } from 'kysely'
import { pino } from 'pino'
import { realClock } from '../../../src/runtime/clock.ts'
import type { ConnectionOptions } from '../../../src/store/database/database.ts'
import { type Notice, NoticeBatch, parseNotice } from '../../../src/store/database/notice.ts'
import { createNotifications } from '../../../src/store/database/notifications.ts'
import { connectClient, ENGINES, type Engine, testDatabase } from '../../support/database.ts'
import { until } from '../../support/until.ts'

const log = pino({ level: 'silent' })
const cleanups: (() => Promise<unknown>)[] = []

afterEach(async () => {
  for (const clean of cleanups.splice(0).reverse()) await clean()
})

async function fresh(engine: Engine) {
  const made = await testDatabase(engine)
  cleanups.push(() => made.drop())
  return made
}

/** A node's notifications, listening, with what they heard. */
async function node(connection: ConnectionOptions) {
  const notifications = createNotifications({ connection, log, clock: realClock })
  const heard: Notice[] = []
  notifications.onNotice((notice) => heard.push(notice))
  const before = await listeners(connection)
  await notifications.start()
  cleanups.push(() => notifications.stop())
  await until(async () => (await listeners(connection)) > before, { what: 'the node to listen' })
  return { ...notifications, heard }
}

async function query<T extends object>(connection: ConnectionOptions, text: string): Promise<T[]> {
  if (!('url' in connection)) throw new Error('a test database has a URL')
  const client = await connectClient({ connectionString: connection.url })
  return await client.query<T>(text).then(
    async ({ rows }) => {
      await client.end()
      return rows
    },
    async (error: unknown) => {
      await client.end()
      throw error
    },
  )
}

/** Idle after their LISTEN: only then does a notice reach them. */
async function listeners(connection: ConnectionOptions): Promise<number> {
  const rows = await query(
    connection,
    `select from pg_stat_activity where datname = current_database()
      and application_name = 'longshore-notices' and state = 'idle' and query like 'listen%'`,
  )
  return rows.length
}

/** Counts the messages on the channel, as they travel. */
async function tap(connection: ConnectionOptions): Promise<string[]> {
  if (!('url' in connection)) throw new Error('a test database has a URL')
  const client = await connectClient({ connectionString: connection.url })
  const payloads: string[] = []
  client.on('notification', ({ payload }) => payloads.push(payload ?? ''))
  await client.query('listen longshore')
  cleanups.push(() => client.end())
  return payloads
}

describe.each(ENGINES)('%s', (engine) => {
  test('a notice reaches the other node and not its sender', async () => {
    const { connection } = await fresh(engine)
    const [a, b] = [await node(connection), await node(connection)]
    const told: Notice[] = [
      { kind: 'wake', queues: ['mail', 'größe'] },
      { kind: 'cancel', ids: ['one'] },
      { kind: 'topology' },
      { kind: 'keys' },
    ]
    for (const notice of told) a.send(notice)
    await until(() => b.heard.length >= 4)
    b.send({ kind: 'keys' })
    await until(() => a.heard.length >= 1)
    expect(b.heard).toHaveLength(4)
    expect(b.heard).toEqual(expect.arrayContaining(told))
    expect(a.heard).toEqual([{ kind: 'keys' }])
  })

  test('a thousand wakes within a moment are one message', async () => {
    const { connection } = await fresh(engine)
    const [a, b] = [await node(connection), await node(connection)]
    const payloads = await tap(connection)
    for (let i = 0; i < 1000; i++) a.send({ kind: 'wake', queues: [`q${i % 3}`] })
    await until(() => b.heard.length > 0)
    b.send({ kind: 'topology' })
    await until(() => payloads.some((payload) => payload.includes('topology')))
    expect(payloads).toHaveLength(2)
    expect(b.heard).toEqual([{ kind: 'wake', queues: ['q0', 'q1', 'q2'] }])
  })

  test('a node that was told that it is alone sends nothing, and still hears', async () => {
    const { connection } = await fresh(engine)
    const [a, b] = [await node(connection), await node(connection)]
    a.enabled(false)
    a.send({ kind: 'topology' })
    await until(() => {
      b.send({ kind: 'keys' })
      return a.heard.length > 0
    })
    a.enabled(true)
    a.send({ kind: 'keys' })
    await until(() => b.heard.length > 0)
    expect(b.heard).toEqual([{ kind: 'keys' }])
  })

  test('a listener whose connection is ended comes back by itself and hears again', async () => {
    const { connection, database } = await fresh(engine)
    const [a, b] = [await node(connection), await node(connection)]
    await sql`select pg_terminate_backend(pid) from pg_stat_activity
      where datname = current_database() and application_name = 'longshore-notices'`.execute(database.db)
    await until(() => {
      a.send({ kind: 'topology' })
      return b.heard.length > 0
    })
    expect(b.heard[0]).toEqual({ kind: 'topology' })
  })

  test('a handler that throws keeps nobody else from hearing', async () => {
    const { connection } = await fresh(engine)
    const [a, b] = [await node(connection), await node(connection)]
    const late: Notice[] = []
    b.onNotice(() => {
      throw new Error('a bug')
    })
    const forget = b.onNotice((notice) => late.push(notice))
    a.send({ kind: 'keys' })
    await until(() => late.length === 1)
    forget()
    a.send({ kind: 'topology' })
    await until(() => b.heard.length === 2)
    expect(late).toEqual([{ kind: 'keys' }])
  })

  test('stop sends what waits, closes the connection, and a later start listens again', async () => {
    const { connection } = await fresh(engine)
    const [a, b] = [await node(connection), await node(connection)]
    a.send({ kind: 'keys' })
    await a.stop()
    await until(() => b.heard.length === 1)
    await until(async () => (await listeners(connection)) <= 1, { what: 'the end of the connection' })
    await a.start()
    await until(async () => {
      b.send({ kind: 'topology' })
      return a.heard.length > 0
    })
    expect(a.heard[0]).toEqual({ kind: 'topology' })
  })

  test('text on the channel that is no notice is passed over', async () => {
    const { connection } = await fresh(engine)
    const [a, b] = [await node(connection), await node(connection)]
    for (const text of ['', 'x', '1', 'null', '{"kind":"wake","queues":1}', '{"kind":"x"}'])
      await query(connection, `notify longshore, '${text}'`)
    a.send({ kind: 'keys' })
    await until(() => b.heard.length > 0)
    expect(b.heard).toEqual([{ kind: 'keys' }])
  })
})

test('without a server the service starts, sends into the void, and stops at once', async () => {
  const connection = { url: 'postgres://x:y@127.0.0.1:1/x' }
  const notifications = createNotifications({ connection, log, clock: realClock })
  await notifications.start()
  notifications.send({ kind: 'keys' })
  const before = performance.now()
  await notifications.stop()
  expect(performance.now() - before).toBeLessThan(5_000)
})

test('long lists are split into payloads that Postgres takes, and endless ones name none', () => {
  const batch = new NoticeBatch()
  const queues = Array.from({ length: 300 }, (_, i) => `${'ü'.repeat(60)}-${i}`)
  batch.add({ kind: 'wake', queues })
  batch.add({ kind: 'cancel', ids: Array.from({ length: 1_001 }, (_, i) => `id-${i}`) })
  const payloads = batch.take('me')
  expect(payloads.length).toBeGreaterThan(2)
  for (const payload of payloads) expect(Buffer.byteLength(payload)).toBeLessThan(8_000)
  const notices = payloads.flatMap((payload) => parseNotice(payload, 'other') ?? [])
  expect(notices.flatMap((notice) => (notice.kind === 'wake' ? notice.queues : []))).toEqual(queues)
  expect(notices.filter((notice) => notice.kind === 'cancel')).toEqual([{ kind: 'cancel', ids: [] }])
  expect(batch.take('me')).toEqual([])
})
