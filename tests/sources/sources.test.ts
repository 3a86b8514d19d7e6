import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import { randomBytes } from 'node:crypto'
import { Problem } from '../../src/runtime/errors.ts'
import { createSecretBox, type SecretBox } from '../../src/runtime/secret-box.ts'
import { nextPoll } from '../../src/sources/poller.ts'
import { createSources, type Sources } from '../../src/sources/sources.ts'
import { nextSourceDue, takeDueSources } from '../../src/store/sources/due.ts'
import { listSources, sourceById } from '../../src/store/sources/read.ts'
import { aboutSource, rotateSecrets } from '../../src/store/sources/secrets.ts'
import type { SourceBody } from '../../src/task/source/source.ts'
import { openGuard } from '../files/remote-home.ts'
import { type TaskLedger, taskLedger } from '../support/tasks.ts'

const BODY: SourceBody = {
  name: 'bank',
  protocol: 'sftp',
  host: 'files.example.com',
  auth: { kind: 'password', username: 'reports', password: 'hunter2' },
  cron: '*/5 * * * *',
  deliver: { queue: 'records' },
}
const KEY = randomBytes(32)
const IMPORT_QUEUES = ['ftp.csv', 'ftp.json', 'ftp.xml']

describe('sources', () => {
  let ledger: TaskLedger
  let told: string[]
  beforeAll(async () => {
    ledger = await taskLedger('server')
  })
  afterAll(() => ledger.test.drop())
  beforeEach(async () => {
    await ledger.pool.query('delete from consumers; delete from settings')
    await ledger.clear()
    await ledger.pool.query('delete from sources')
    await ledger.queue('records')
    told = []
  })

  const sourcesWith = (box: SecretBox | undefined): Sources =>
    createSources({
      pool: ledger.pool,
      box,
      checkHost: (host) => openGuard.checkHost(host),
      onChanged: () => void told.push('changed'),
      onTopology: () => void told.push('topology'),
    })
  const queuesIn = async (table: 'consumers' | 'bindings') => {
    const { rows } = await ledger.pool.query<{ queue: string }>(`select queue from ${table} order by queue`)
    return rows.map(({ queue }) => queue)
  }
  const consumed = () => queuesIn('consumers')
  const bound = () => queuesIn('bindings')
  const problemOf = async (work: Promise<unknown>): Promise<Problem> => {
    const error = await work.then(
      () => new Error('It did not fail'),
      (thrown: unknown) => thrown,
    )
    if (error instanceof Problem) return error
    throw error
  }

  test('keep credentials encrypted and never give them back', async () => {
    const sources = sourcesWith(createSecretBox([KEY]))
    const made = await sources.create(BODY)
    expect(made).toMatchObject({ name: 'bank', auth: { kind: 'password', username: 'reports' }, managedBy: null })
    const { rows } = await ledger.pool.query<Record<string, unknown>>('select * from sources')
    const written = JSON.stringify([made, rows, await listSources(ledger.pool, { limit: 10 })])
    expect(written).not.toContain('hunter2')
    const stored = await sourceById(ledger.pool, made.id)
    expect(stored?.sealed && createSecretBox([KEY]).open(stored.sealed, aboutSource(made.id))).toBe(
      '{"password":"hunter2"}',
    )
  })

  test('need a key where there are credentials, and only there', async () => {
    const keyless = sourcesWith(undefined)
    expect(await problemOf(keyless.create(BODY))).toMatchObject({ code: 'secret-key-missing' })
    const { auth: _, ...anonymous } = BODY
    expect(await keyless.create({ ...anonymous, protocol: 'ftp' })).toMatchObject({ auth: null })
  })

  test('make the exchange, queues and consumers of imports with the first one, and leave them alone afterwards', async () => {
    const sources = sourcesWith(createSecretBox([KEY]))
    await sources.create(BODY)
    expect(told).toEqual(['topology', 'changed'])
    const read = async () => {
      const { rows } = await ledger.pool.query<{ queue: string }>(
        `select c.queue, c.target, c.concurrency, c.timeout_ms, b.exchange, b.routing_key
         from consumers c left join bindings b on b.queue = c.queue order by c.queue`,
      )
      return rows
    }
    expect(await read()).toEqual(
      ['csv', 'json', 'xml'].map((type) => ({
        queue: `ftp.${type}`,
        target: { type: 'import' },
        concurrency: 2,
        timeout_ms: 7 * 24 * 3_600_000,
        exchange: 'ftp_exchange',
        routing_key: `ftp.${type}`,
      })),
    )
    await ledger.pool.query(`update consumers set concurrency = 5`)
    await Promise.all(['b', 'c', 'd'].map((name) => sources.create({ ...BODY, name })))
    expect(await read()).toHaveLength(3)
    expect(told.filter((one) => one === 'topology')).toHaveLength(1)
  })

  test('that announce leave their messages to others: no consumer is made for them', async () => {
    const sources = sourcesWith(createSecretBox([KEY]))
    const { deliver: _, ...body } = BODY
    await sources.create({ ...body, mode: 'announce', format: { type: 'csv' } })
    expect(await consumed()).toEqual([])
    await sources.create({ ...BODY, name: 'import' })
    expect(await consumed()).toEqual(IMPORT_QUEUES)
    await ledger.pool.query(`delete from consumers; delete from queues where name = 'ftp.csv'`)
    await sources.create({ ...body, name: 'again', mode: 'announce', format: { type: 'csv' } })
    expect(await consumed()).toEqual([])
    await sources.create({ ...BODY, name: 'import-again' })
    expect(await consumed()).toEqual(['ftp.csv'])
  })

  test('do not bring back a consumer or a binding that somebody has taken away, unless their queue is made anew', async () => {
    const sources = sourcesWith(createSecretBox([KEY]))
    const { id } = await sources.create(BODY)
    await ledger.pool.query(`
      delete from consumers where queue in ('ftp.csv', 'ftp.xml'); delete from bindings where queue = 'ftp.csv'`)
    told = []
    await sources.patch(id, { directory: '/elsewhere' })
    await sources.create({ ...BODY, name: 'second' })
    expect(told).not.toContain('topology')
    expect(await consumed()).toEqual(['ftp.json'])
    expect(await bound()).toEqual(['ftp.json', 'ftp.xml'])
    await ledger.pool.query(`delete from queues where name = 'ftp.csv'`)
    await sources.patch(id, { directory: '/again' })
    expect(await consumed()).toEqual(['ftp.csv', 'ftp.json'])
    expect(await bound()).toEqual(IMPORT_QUEUES)
  })

  test('find consumers that an older version made, and add none', async () => {
    const sources = sourcesWith(createSecretBox([KEY]))
    await sources.create(BODY)
    await ledger.pool.query('delete from settings')
    await sources.create({ ...BODY, name: 'second' })
    expect(await consumed()).toEqual(IMPORT_QUEUES)
  })

  test('are refused with every mistake and its place', async () => {
    const sources = sourcesWith(createSecretBox([KEY]))
    const problem = await problemOf(
      sources.create({
        name: 'bad',
        protocol: 'ftp',
        host: '169.254.169.254',
        auth: { kind: 'key', username: 'a', privateKey: 'b' },
        tls: { ca: 'x' },
        hostKey: `SHA256:${'a'.repeat(43)}`,
        cron: 'sometimes',
        directory: '/in/../out',
        after: { kind: 'move', to: '..' },
        failed: { kind: 'move', to: '.' },
        format: { type: 'csv', header: false },
        deliver: { queue: 'ftp.csv' },
        limits: { connectTimeout: '1ms' },
      }),
    )
    expect(problem.errors.map(({ path }) => path).sort()).toEqual(
      [
        ...['/after/to', '/auth/kind', '/cron', '/deliver/queue', '/directory', '/failed/to', '/format/columns'],
        ...['/host', '/hostKey', '/limits/connectTimeout', '/tls', '/tls/ca'],
      ].sort(),
    )
    expect(await problemOf(sources.create({ ...BODY, deliver: { queue: 'nowhere' } }))).toMatchObject({
      code: 'unknown-queue',
    })
    await sources.create(BODY)
    expect(await problemOf(sources.create(BODY))).toMatchObject({ code: 'conflict' })
    expect((await listSources(ledger.pool, { limit: 10 })).map(({ name }) => name)).toEqual(['bank'])
  })

  test('change by what is given, and keep their credentials and the rest', async () => {
    const sources = sourcesWith(createSecretBox([KEY]))
    const { id } = await sources.create({ ...BODY, directory: '/out', recursive: true })
    const before = await sourceById(ledger.pool, id)
    const changed = await sources.patch(id, { name: 'other', recursive: null, include: ['*.csv'] })
    expect(changed).toMatchObject({ name: 'other', settings: { directory: '/out', include: ['*.csv'] } })
    expect(changed?.settings).not.toHaveProperty('recursive')
    expect((await sourceById(ledger.pool, id))?.sealed?.bytes).toEqual(before?.sealed?.bytes as Buffer)
    await sources.patch(id, { auth: { kind: 'password', username: 'new', password: 'secret' } })
    const after = await sourceById(ledger.pool, id)
    expect(after?.auth?.username).toBe('new')
    expect(after?.sealed && createSecretBox([KEY]).open(after.sealed, aboutSource(id))).toBe('{"password":"secret"}')
    expect(await problemOf(sources.patch(id, { deliver: null }))).toMatchObject({ code: 'validation' })
    expect(await sources.patch('00000000-0000-7000-8000-000000000000', { name: 'x' })).toBeUndefined()
    await sources.create(BODY)
    expect(await problemOf(sources.patch(id, { name: 'bank' }))).toMatchObject({ code: 'conflict' })
  })

  test('are due at once, then as cron says by the clock of Postgres, each time for one node', async () => {
    const sources = sourcesWith(createSecretBox([KEY]))
    const { id } = await sources.create(BODY)
    const { cron: _, ...onDemand } = BODY
    await sources.create({ ...onDemand, name: 'on-demand' })
    expect(await nextSourceDue(ledger.pool)).toBe(0)
    const taken = await Promise.all(Array.from({ length: 5 }, () => takeDueSources(ledger.pool, 10, nextPoll)))
    expect(taken.flat().map(({ source, poll }) => [source.id, poll])).toEqual([[id, true]])
    const delay = (await nextSourceDue(ledger.pool)) as number
    expect(delay).toBeGreaterThan(0)
    expect(delay).toBeLessThanOrEqual(300_000)
    const next = (await sourceById(ledger.pool, id))?.nextPollAt as string
    expect(next).toMatch(/:[0-5][05]:00\.000Z$/)

    expect(await sources.poll(id)).toBe('asked')
    expect(await nextSourceDue(ledger.pool)).toBe(0)
    await sources.setPaused(id, true)
    expect(await sources.poll(id)).toBe('paused')
    expect(await nextSourceDue(ledger.pool)).toBeUndefined()
    await sources.setPaused(id, false)
    expect(await nextSourceDue(ledger.pool)).toBe(0)
    expect(await sources.remove(id)).toBe(true)
    expect(await sources.remove(id)).toBe(false)
    expect(await sources.poll(id)).toBe('unknown')
  })

  test('are listed by name, page by page', async () => {
    const sources = sourcesWith(createSecretBox([KEY]))
    for (const name of ['b', 'B', 'a', 'c']) await sources.create({ ...BODY, name })
    const first = await listSources(ledger.pool, { limit: 3 })
    expect(first.map(({ name }) => name)).toEqual(['B', 'a', 'b'])
    const second = await listSources(ledger.pool, { limit: 3, after: 'b' })
    expect(second.map(({ name }) => name)).toEqual(['c'])
  })
})

describe('rotating the secret key', () => {
  test('encrypts all anew in batches, leaves what no key opens, and may run again', async () => {
    const ledger = await taskLedger('server')
    try {
      await ledger.queue('records')
      const [old, fresh] = [createSecretBox([KEY]), randomBytes(32)]
      const sources = createSources({
        pool: ledger.pool,
        box: old,
        checkHost: () => undefined,
        onChanged() {},
        onTopology() {},
      })
      const made: Awaited<ReturnType<typeof sources.create>>[] = []
      for (let from = 0; from < 450; from += 10) {
        const numbers = Array.from({ length: 10 }, (_, n) => from + n)
        made.push(...(await Promise.all(numbers.map((n) => sources.create({ ...BODY, name: `source-${n}` })))))
      }
      // Moved from another row by somebody who can write to the database.
      await ledger.pool.query('update sources set secret = (select secret from sources where id = $1) where id = $2', [
        made[0]?.id,
        made[1]?.id,
      ])
      const both = createSecretBox([fresh, KEY])
      const first = await rotateSecrets(ledger.pool, both)
      expect(first).toEqual({
        rotated: 449,
        failed: [{ id: made[1]?.id as string, name: 'source-1', reason: expect.any(String) }],
      })
      expect(await rotateSecrets(ledger.pool, both)).toMatchObject({ rotated: 0, failed: [{ name: 'source-1' }] })
      const only = createSecretBox([fresh])
      const stored = await sourceById(ledger.pool, made[449]?.id as string)
      expect(stored?.sealed && only.open(stored.sealed, aboutSource(stored.id))).toBe('{"password":"hunter2"}')
    } finally {
      await ledger.test.drop()
    }
  }, 90_000)
})
