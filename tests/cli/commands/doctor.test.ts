import { expect, test } from 'bun:test'
import { execFileSync } from 'node:child_process'
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { ENGINES, type Engine, testDatabase } from '../../support/database.ts'
import { nodeFolder, startNode } from '../../support/node-process.ts'
import { longshore } from '../cli.ts'

interface Report {
  faults: number
  warnings: number
  findings: { check: string; level: 'ok' | 'warning' | 'fault'; what: string; remedy?: string }[]
}

/** What doctor finds, as `check: what` of everything that is not ok; each must have a remedy. */
async function examine(cwd: string, env: Record<string, string>): Promise<{ code: number | string; found: string[] }> {
  const ran = await longshore(['doctor', '--json'], { cwd, env })
  const { findings } = ran.json<Report>()
  const bad = findings.filter(({ level }) => level !== 'ok')
  for (const { what, remedy } of bad) expect([what, remedy]).toEqual([what, expect.stringMatching(/\w/)])
  return { code: ran.code, found: bad.map(({ check, level, what }) => `${level} ${check}: ${what}`) }
}

async function databaseUrl(engine: Engine) {
  const made = await testDatabase(engine, { poolSize: 2 })
  const { connection } = made
  if (!('url' in connection)) throw new Error('A test database is reached by a URL')
  return { ...made, url: connection.url, [Symbol.asyncDispose]: () => made.drop() }
}

const NODE = '00000000-0000-7000-8000-00000000000'
const task = (id: string, queue: string, status: string, node: string | null = null) =>
  `insert into tasks (id, queue, payload, status, priority, due_at, max_attempts, origin, node)
   values ('${id}', '${queue}', '1', '${status}', 0, now() - interval '10 min', 3, 'api', ${node ? `'${node}'` : 'null'})`

for (const engine of ENGINES) {
  test(`${engine}: doctor finds each of the planted faults and says how to mend it`, async () => {
    await using folder = await nodeFolder()
    await using database = await databaseUrl(engine)
    const squatter = createServer((_, response) => response.end('hello'))
    await new Promise<void>((resolve) => squatter.listen(0, '127.0.0.1', resolve))
    try {
      const dataDir = join(folder.path, 'data')
      mkdirSync(dataDir)
      const env = { DATABASE_URL: database.url, PORT: String((squatter.address() as AddressInfo).port) }
      const free = { ...env, PORT: '0' }

      // Nothing planted: nothing found but that nothing runs yet, and what is true of the tests' server.
      const { rows } = await database.database.pool.query(`select current_setting('autovacuum') as autovacuum`)
      const serverWide = rows[0].autovacuum === 'off' ? ['fault vacuum: Autovacuum is off on the server'] : []
      const before = await examine(folder.path, free)
      expect(before).toEqual({
        code: serverWide.length > 0 ? 1 : 0,
        found: [...serverWide, 'warning nodes: No node runs'],
      })

      writeFileSync(join(dataDir, 'admin.key'), 'ls_elsewhere_0123456789')
      chmodSync(join(dataDir, 'admin.key'), 0o644)
      writeFileSync(join(folder.path, 'handlers', 'broken.ts'), 'export default (')
      const policies = `'{"maxAttempts":3,"backoff":{"kind":"fixed","base":"1s"}}', '{"succeeded":"1d","cancelled":"1d","dead":"1d"}'`
      const { pool } = database.database
      for (const sql of [
        `insert into queues (name, retry, retention, paused) values ('lonely', ${policies}, false), ('halted', ${policies}, true)`,
        `insert into consumers (id, queue, target, concurrency, timeout_ms) values ('${NODE}9', 'halted', '{"type":"noop"}', 1, 1000)`,
        `insert into nodes (id, name, version, roles, state, dead_at) values
           ('${NODE}1', 'one', '1.0.0', '{api}', '{"link":{"status":"down","reason":"nobody knows the host rabbit"}}', null), ('${NODE}2', 'two', '2.0.0', '{api}', '{}', null),
           ('${NODE}3', 'three', '1.0.0', '{worker}', '{}', now())`,
        task(`${NODE}4`, 'lonely', 'pending'),
        task(`${NODE}5`, 'halted', 'pending'),
        task(`${NODE}6`, 'halted', 'running', `${NODE}3`),
        'alter table tasks set (autovacuum_enabled = false)',
        // This user's `clock_timestamp` is a year ahead; doctor is the only one who asks for it by that name.
        `create function public.clock_timestamp() returns timestamptz language sql as $$ select pg_catalog.now() + interval '1 year' $$`,
        `do $$ begin execute format('alter database %I set search_path = public, pg_catalog', current_database()); end $$`,
      ]) {
        await pool.query(sql)
      }

      const { code, found } = await examine(folder.path, env)
      expect(code).toBe(1)
      const expected = [
        /^fault admin-key: .*others may read it \(mode 644\)/,
        /^warning admin-key: .*is of another database/,
        /^fault port: Port \d+ on 127\.0\.0\.1 is taken by another program/,
        /^fault handlers: .*broken\.ts: .*Unexpected end of file/,
        /^fault clock: This machine's clock is \d+\.\d s behind the database's/,
        serverWide.length > 0 ? /^fault vacuum: .* on the server/ : /^fault vacuum: Autovacuum is off for tasks/,
        /^warning versions: .*one 1\.0\.0.*two 2\.0\.0|^warning versions: .*two 2\.0\.0.*one 1\.0\.0/,
        /^warning broker: one says of RabbitMQ: nobody knows the host rabbit/,
        /^fault gone-nodes: three is gone with 1 tasks in its hands/,
        /^warning overdue: 1 tasks of "halted" are overdue, the oldest by 10 min .*: the queue is paused/,
        /^fault overdue: 1 tasks of "lonely" are overdue, .*: nothing consumes the queue/,
        /^fault consumers: Nothing consumes the queue "lonely" \(1 tasks wait\)/,
        /^fault accounting: -3 of 0 accepted tasks are unaccounted for/,
      ]
      for (const pattern of expected) expect(found.filter((line) => pattern.test(line))).toHaveLength(1)
      expect(found).toHaveLength(expected.length)
    } finally {
      await new Promise((resolve) => squatter.close(resolve))
    }
  }, 60_000)

  test(`${engine}: doctor finds a missing migration, a newer schema, missing rights and a wrong password`, async () => {
    await using folder = await nodeFolder()
    await using database = await databaseUrl(engine)
    const { pool } = database.database
    const role = `doctor_${process.pid}_${engine}`
    const as = (user: string, password: string) => {
      const url = new URL(database.url.replace('@/', '@localhost/'))
      url.username = user
      url.password = password
      return { DATABASE_URL: url.href, PORT: '0' }
    }
    await pool.query(`create role ${role} login password 'right'`)
    try {
      await pool.query(`grant select, insert, update, delete on all tables in schema public to ${role}`)
      await pool.query(`revoke update on tasks from ${role}; revoke delete on rejects from ${role}`)
      const { code, found } = await examine(folder.path, as(role, 'right'))
      expect(code).toBe(1)
      expect(found.slice(0, 3)).toEqual([
        expect.stringMatching(/^warning rights: .*may not create tables in the schema public/),
        expect.stringMatching(/^fault rights: .*may not update on tasks/),
        expect.stringMatching(/^fault rights: .*may not delete on rejects/),
      ])
      if (engine === 'embedded') {
        const wrong = await examine(folder.path, as(role, 'wrong'))
        expect(wrong).toEqual({ code: 1, found: [expect.stringContaining('password authentication failed')] })
      }
    } finally {
      await pool.query(`drop owned by ${role}; drop role ${role}`)
    }
    const owner = { DATABASE_URL: database.url, PORT: '0' }
    await pool.query(`update kysely_migration set name = '9999-later' where name = '0001-tasks'`)
    expect((await examine(folder.path, owner)).found).toEqual(['fault schema: A newer Longshore made it (9999-later)'])
    await pool.query(`delete from kysely_migration where name = '9999-later'`)
    expect((await examine(folder.path, owner)).found).toEqual(['fault schema: The schema lacks 0001-tasks'])
  }, 60_000)
}

test('doctor finds an unreachable database, every mistake of the configuration, and a disk that is nearly full', async () => {
  await using folder = await nodeFolder()
  const away = await examine(folder.path, { DATABASE_URL: 'postgres://me@127.0.0.1:1/none', PORT: '0' })
  expect(away).toEqual({
    code: 1,
    found: [expect.stringMatching(/^fault database: It cannot be used: .*ECONNREFUSED/)],
  })

  const { found } = await examine(folder.path, { PORT: 'many', LONGSHORE_ADMIN_KEE: 'x', WORKER_THREADS: '0' })
  expect(found).toHaveLength(3)
  expect(found.join('\n')).toContain('did you mean LONGSHORE_ADMIN_KEY?')

  const disk = join(folder.path, 'disk')
  mkdirSync(disk)
  // Needs root, as the tests of the embedded Postgres on a full disk do.
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64m,mode=755', 'none', disk])
  try {
    const full = await examine(folder.path, { DATA_DIR: disk, PORT: '0' })
    expect(full.code).toBe(1)
    expect(full.found[0]).toMatch(/^fault disk: 64 MiB of 64 MiB are free/)
  } finally {
    execFileSync('umount', [disk])
  }
}, 30_000)

test('doctor finds nothing wrong beside a running node, and leaves it running', async () => {
  await using folder = await nodeFolder()
  const node = await startNode(folder)
  const PORT = new URL(await node.listening).port
  expect(await examine(folder.path, { PORT })).toEqual({ code: 0, found: [] })
  expect((await longshore(['doctor'], { cwd: folder.path, env: { PORT } })).out).toEndWith('All is well\n')
  await node.call('GET', '/queues')
  await node.stop()
}, 60_000)
