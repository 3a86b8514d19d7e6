import { expect, test } from 'bun:test'
import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { install, makeQueue } from '../e2e/installation.ts'
import { adminUrl, connectClient, ENGINES, type Engine, emptyDatabase, inDatabase } from '../support/database.ts'
import { nodeFolder, processesIn, spawnNode } from '../support/node-process.ts'
import { until } from '../support/until.ts'
import { longshore } from './cli.ts'
import { fakePostgres } from './fake-postgres.ts'

/** A database without anything in it, and a superuser's client in it. */
async function noSchema(engine: Engine) {
  const { url, drop } = await emptyDatabase(engine)
  const client = await connectClient({ connectionString: url })
  return {
    url,
    client,
    async [Symbol.asyncDispose]() {
      await client.end()
      await drop()
    },
  }
}

test('start tells five mistakes of the configuration at once, with what is allowed, and ends with 2', async () => {
  await using folder = await nodeFolder()
  writeFileSync(join(folder.path, '.env'), 'WORKER_THREADS=0\n')
  const env = {
    ...{ PORT: '70000', LOG_LEVEL: 'loud', SHUTDOWN_TIMEOUT: 'soon', LONGSHORE_ROLES: 'cook' },
    ...{ DATABASE_URL: 'mysql://me:secret-word@db/x', LONGSHORE_WORKER_TREADS: '4' },
  }
  const { code, err } = await longshore(['start'], { cwd: folder.path, env })
  expect(code).toBe(2)
  for (const name of ['PORT', 'LOG_LEVEL', 'SHUTDOWN_TIMEOUT', 'LONGSHORE_ROLES', 'DATABASE_URL', 'WORKER_THREADS']) {
    expect(err).toContain(`- ${name} must be `)
  }
  expect(err).toContain('- LONGSHORE_WORKER_TREADS is unknown')
  expect(err).not.toContain('secret-word')
  // A flag is read as its variable is, and counts before it.
  const flag = await longshore(['start', '--port', 'many'], {
    cwd: folder.path,
    env: { PORT: '0', WORKER_THREADS: '1' },
  })
  expect(flag.code).toBe(2)
  expect(flag.err).toContain('- PORT must be a whole number from 0 to 65535 (given: "many")')
  expect(processesIn(folder.path)).toEqual([])
}, 30_000)

test('start says that the port is taken, and leaves no Postgres behind', async () => {
  await using folder = await nodeFolder()
  const squatter = createServer()
  await new Promise<void>((resolve) => squatter.listen(0, '127.0.0.1', resolve))
  try {
    const { port } = squatter.address() as AddressInfo
    const { code, out } = await longshore(['start', '--port', String(port)], { cwd: folder.path })
    expect(code).toBe(1)
    expect(out).toContain(`Cannot listen on http://127.0.0.1:${port}: the port is taken`)
    expect(processesIn(folder.path)).toEqual([])
  } finally {
    await new Promise((resolve) => squatter.close(resolve))
  }
}, 30_000)

test('start says that DATA_DIR cannot be written', async () => {
  await using folder = await nodeFolder()
  writeFileSync(join(folder.path, 'file'), '')
  const inFile = await longshore(['start', '--data-dir', 'file/data'], { cwd: folder.path, env: { PORT: '0' } })
  expect(inFile.code).toBe(1)
  expect(inFile.out).toContain('it must be a folder that this user can write')

  const readOnly = join(folder.path, 'read-only')
  mkdirSync(readOnly)
  // Root may write anywhere but on a disk that takes nothing.
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'ro,size=1m', 'none', readOnly])
  try {
    const { code, out } = await longshore(['start', '--data-dir', readOnly], { cwd: folder.path, env: { PORT: '0' } })
    expect(code).toBe(1)
    expect(out).toContain('(EROFS')
  } finally {
    execFileSync('umount', [readOnly])
  }
}, 30_000)

test('start waits for a database that does not answer, says so, and ends at once on SIGTERM', async () => {
  await using folder = await nodeFolder()
  const node = spawnNode(folder, { env: { DATABASE_URL: 'postgres://me:secret-word@127.0.0.1:1/none' } })
  await until(() => node.logged('database-awaited').length > 0, { what: 'the node to say that it waits' })
  expect(node.logged('database-awaited')[0]?.error).toContain('ECONNREFUSED')
  const asked = performance.now()
  node.signal('SIGTERM')
  expect(await node.exited).toBe(0)
  expect(performance.now() - asked).toBeLessThan(10_000)
  expect(JSON.stringify(node.log)).not.toContain('secret-word')
}, 30_000)

test('start ends with 3 on a wrong password and on a database that is not there, and names DATABASE_URL', async () => {
  await using folder = await nodeFolder()
  const admin = await adminUrl('embedded')
  for (const [DATABASE_URL, why] of [
    [admin.replace(/:[^:@/]*@/, ':wrong@'), 'password authentication failed'],
    [inDatabase(admin, 'not_there'), 'not_there'],
  ] as const) {
    const { code, out } = await longshore(['start'], { cwd: folder.path, env: { DATABASE_URL, PORT: '0' } })
    expect([why, code]).toEqual([why, 3])
    expect(out).toContain(why)
    expect(out).toContain('is DATABASE_URL right?')
  }
}, 30_000)

for (const engine of ENGINES) {
  test(`${engine}: start says which rights its user lacks, and changes nothing`, async () => {
    await using folder = await nodeFolder()
    await using database = await noSchema(engine)
    const role = `poor_${process.pid}_${engine}`
    await database.client.query(`create role ${role} login password 'poor'`)
    try {
      const url = new URL(database.url.replace('@/', '@localhost/'))
      url.username = role
      url.password = 'poor'
      const { code, out } = await longshore(['start'], { cwd: folder.path, env: { DATABASE_URL: url.href, PORT: '0' } })
      expect(code).toBe(1)
      expect(out).toContain('permission denied for schema public')
      expect(out).toContain('grant create, usage on schema public')
      const { rows } = await database.client.query(
        `select relname from pg_class where relnamespace = 'public'::regnamespace`,
      )
      expect(rows).toEqual([])
    } finally {
      await database.client.query(`drop role ${role}`)
    }
  }, 30_000)

  test(`${engine}: SIGTERM during a migration rolls it back and ends soon; the next start migrates`, async () => {
    await using folder = await nodeFolder()
    await using database = await noSchema(engine)
    const { client, url } = database
    // The first index of the migration waits for a lock that the test holds: the middle of it, for as long as we like.
    await client.query(`create function stall() returns event_trigger language plpgsql as
      $$ begin perform pg_advisory_xact_lock(424242); end $$`)
    await client.query(
      `create event trigger stalls on ddl_command_end when tag in ('CREATE INDEX') execute function stall()`,
    )
    await client.query('select pg_advisory_lock(424242)')
    const node = spawnNode(folder, { env: { DATABASE_URL: url } })
    const stalled = `select from pg_stat_activity where application_name like 'longshore-migrate-%' and wait_event = 'advisory'
      and datname = current_database()`
    await until(async () => (await client.query(stalled)).rowCount, { what: 'the migration to be in its middle' })
    const asked = performance.now()
    node.signal('SIGTERM')
    expect(await node.exited).toBe(0)
    expect(performance.now() - asked).toBeLessThan(20_000)
    const tables = `select to_regclass('tasks') as tasks, to_regclass('queues') as queues`
    expect((await client.query(tables)).rows).toEqual([{ tasks: null, queues: null }])

    await client.query('drop event trigger stalls')
    await client.query('select pg_advisory_unlock(424242)')
    const next = spawnNode(folder, { env: { DATABASE_URL: url } })
    await next.listening
    expect((await client.query(tables)).rows).toEqual([{ tasks: 'tasks', queues: 'queues' }])
    await next.stop()
  }, 60_000)

  test(`${engine}: SIGTERM in the middle of a drain of slow tasks, then twice at once: no failure is spent, no task lost`, async () => {
    await using home = await install(engine)
    const drained = 400
    const first = await home.start({ SHUTDOWN_TIMEOUT: '1s' })
    await makeQueue(first, 'slow', { concurrency: 20 })
    const one = { queue: 'slow', type: 'drain', payload: null, target: { type: 'noop', delay: '500ms' } }
    await first.call(
      'POST',
      '/tasks/batch',
      Array.from({ length: drained }, () => one),
    )
    const done = async (node: typeof first) =>
      (await node.call<{ items: unknown[] }>('GET', '/tasks?type=drain&status=succeeded&limit=500')).items.length
    await until(() => done(first), { what: 'the drain to be under way' })
    // In order: what runs ends, the rest goes back.
    await first.stop()
    expect(processesIn(home.path)).toEqual([])

    const second = await home.start({ SHUTDOWN_TIMEOUT: '10m' })
    const before = await done(second)
    expect(before).toBeLessThan(drained)
    await until(async () => (await done(second)) > before, { what: 'the drain to go on' })
    second.signal('SIGTERM')
    await until(() => second.logged('stopping').length > 0, { what: 'the node to say that it stops' })
    second.signal('SIGTERM')
    // Either it was quicker, or it was cut.
    expect([0, 1]).toContain((await second.exited) as number)

    const third = await home.start()
    await until(async () => (await done(third)) === drained, { timeoutMs: 60_000, what: 'the whole drain' })
    const { items } = await third.call<{ items: { failures: number }[] }>('GET', '/tasks?type=drain&limit=500')
    expect(items.map(({ failures }) => failures)).toEqual(Array(drained).fill(0))
    await until(
      async () => {
        const accounts = await third.call<{ accepted: number; succeeded: number; unaccounted: number }>(
          'GET',
          '/accounting',
        )
        expect(accounts).toMatchObject({ accepted: drained, unaccounted: 0 })
        return accounts.succeeded === drained
      },
      { what: 'the accounts to show it' },
    )
    await third.stop()
  }, 180_000)
}

test('start refuses Postgres 13 with the reason (a server that only says so: none is at hand)', async () => {
  await using folder = await nodeFolder()
  await using old = await fakePostgres({ number: '130014', name: '13.14' })
  const { code, out } = await longshore(['start'], { cwd: folder.path, env: { DATABASE_URL: old.url, PORT: '0' } })
  expect(code).toBe(1)
  expect(out).toContain('Longshore needs Postgres 15 or later and this server is 13.14')
  const doctor = await longshore(['doctor', '--json'], { cwd: folder.path, env: { DATABASE_URL: old.url, PORT: '0' } })
  expect(doctor.out).toContain('this server is 13.14')
}, 30_000)
