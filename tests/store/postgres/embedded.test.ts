import { expect, test } from 'bun:test'
import { execFileSync } from 'node:child_process'
import { readdir, readFile, readlink, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pino } from 'pino'
import { embeddedConnection, startEmbeddedPostgres } from '../../../src/store/postgres/embedded.ts'
import { ask, isRunning, processesOn, startParent, temporaryFolder } from './start.ts'

const log = pino({ level: 'silent' })

test('the first start makes a cluster with checksums, UTF-8, code point order and scram; a warm start finds its rows', async () => {
  await using folder = await temporaryFolder()
  const first = await startEmbeddedPostgres({ dataDir: folder.path, log })
  try {
    expect(first.adopted).toBe(false)
    const [facts] = await ask<Record<string, string>>(
      first.connection,
      `select current_setting('data_checksums') checksums, current_setting('server_encoding') encoding,
        datlocprovider provider, datlocale locale, current_setting('fsync') fsync,
        current_setting('synchronous_commit') commit, current_database() database,
        (select rolpassword like 'SCRAM-SHA-256$%' from pg_authid where rolname = current_user)::text scram
       from pg_database where datname = current_database()`,
    )
    expect(facts).toEqual({
      checksums: 'on',
      encoding: 'UTF8',
      provider: 'b',
      locale: 'C.UTF-8',
      fsync: 'on',
      commit: 'on',
      database: 'longshore',
      scram: 'true',
    })
    await ask(first.connection, 'create table kept as select 42 as n')
  } finally {
    await first.stop()
  }
  expect(isRunning(first.pid)).toBe(false)

  const before = performance.now()
  const warm = await startEmbeddedPostgres({ dataDir: folder.path, log })
  const took = performance.now() - before
  try {
    expect(warm.adopted).toBe(false)
    expect(await ask<{ n: number }>(warm.connection, 'select n from kept')).toEqual([{ n: 42 }])
    // 20-50 ms alone; a machine busy with other tests gets room.
    expect(took).toBeLessThan(15_000)
  } finally {
    await warm.stop()
  }
  expect(isRunning(warm.pid)).toBe(false)
}, 90_000)

test('the embedded Postgres opens no TCP port, and only its own user enters its folder and password', async () => {
  await using folder = await temporaryFolder()
  const postgres = await startEmbeddedPostgres({ dataDir: folder.path, log })
  try {
    expect(inodesOfTcp(await socketInodes(postgres.pid))).toEqual([])
    expect((await stat(join(folder.path, 'postgres'))).mode & 0o777).toBe(0o700)
    expect((await stat(join(folder.path, 'postgres/password'))).mode & 0o777).toBe(0o600)
    const wrong = ask({ ...postgres.connection, password: 'guessed' } as typeof postgres.connection, 'select 1')
    await expect(wrong).rejects.toThrow('password authentication failed')
  } finally {
    await postgres.stop()
  }
}, 90_000)

test('stop leaves no process, can be called twice, and the next start finds a clean shutdown', async () => {
  await using folder = await temporaryFolder()
  const first = await startEmbeddedPostgres({ dataDir: folder.path, log })
  await Promise.all([first.stop(), first.stop()])
  expect(await processesOn(folder.path)).toEqual([])
  const second = await startEmbeddedPostgres({ dataDir: folder.path, log })
  await second.stop()
  const said = await readFile(join(folder.path, 'postgres/postgres.log'), 'utf8')
  expect(said).toContain('database system was shut down at')
  expect(said).not.toContain('not properly shut down')
}, 90_000)

test('a second start on the same DATA_DIR is refused and names the owner, who goes on', async () => {
  await using folder = await temporaryFolder()
  const postgres = await startEmbeddedPostgres({ dataDir: folder.path, log })
  try {
    const second = await startParent(folder.path)
    expect(second.said).toEqual({
      reason: 'locked',
      message: `Another longshore (pid ${process.pid}) owns ${folder.path}: stop it first, or give this one a DATA_DIR of its own.`,
    })
    expect(await second.exited).toBe(1)
    expect(await ask(postgres.connection, 'select 1 as n')).toEqual([{ n: 1 }])
    // A command line connects without owning.
    const other = await embeddedConnection(folder.path)
    expect(other).toEqual(postgres.connection)
  } finally {
    await postgres.stop()
  }
  expect(await embeddedConnection(folder.path)).toBeUndefined()
}, 90_000)

test('of two racing first starts one gets DATA_DIR and the other is refused', async () => {
  await using folder = await temporaryFolder()
  const racers = await Promise.all([startParent(folder.path), startParent(folder.path)])
  const winners = racers.filter((racer) => 'pid' in racer.said)
  const losers = racers.filter((racer) => 'reason' in racer.said)
  try {
    expect(winners).toHaveLength(1)
    expect(losers.map((loser) => 'reason' in loser.said && loser.said.reason)).toEqual(['locked'])
  } finally {
    for (const winner of winners) await winner.kill('SIGTERM')
  }
}, 90_000)

test("another major version's folder is refused with what to do, and left as it is", async () => {
  await using folder = await temporaryFolder()
  await (await startEmbeddedPostgres({ dataDir: folder.path, log })).stop()
  const file = join(folder.path, 'postgres/data/PG_VERSION')
  await writeFile(file, '17\n')
  const start = startEmbeddedPostgres({ dataDir: folder.path, log })
  await expect(start).rejects.toMatchObject({ reason: 'other-major', message: expect.stringContaining('pg_dump') })
  expect(await readFile(file, 'utf8')).toBe('17\n')
  // The refusal gave DATA_DIR up again.
  await writeFile(file, '18\n')
  await (await startEmbeddedPostgres({ dataDir: folder.path, log })).stop()
}, 90_000)

test('an operator can add settings in local.conf', async () => {
  await using folder = await temporaryFolder()
  await (await startEmbeddedPostgres({ dataDir: folder.path, log })).stop()
  await writeFile(join(folder.path, 'postgres/local.conf'), 'max_connections = 61\n', { mode: 0o644 })
  const postgres = await startEmbeddedPostgres({ dataDir: folder.path, log })
  try {
    expect(await ask(postgres.connection, 'show max_connections')).toEqual([{ max_connections: '61' }])
  } finally {
    await postgres.stop()
  }
}, 90_000)

async function socketInodes(pid: number): Promise<Set<string>> {
  const fds = await readdir(`/proc/${pid}/fd`)
  const links = await Promise.all(fds.map((fd) => readlink(`/proc/${pid}/fd/${fd}`).catch(() => '')))
  const inodes = new Set(links.map((link) => /^socket:\[(\d+)\]$/.exec(link)?.[1] ?? '').filter(Boolean))
  // The Unix socket at least: an empty set would prove nothing.
  expect(inodes.size).toBeGreaterThan(0)
  return inodes
}

function inodesOfTcp(inodes: Set<string>): string[] {
  const lines = execFileSync('cat', ['/proc/net/tcp', '/proc/net/tcp6'], { encoding: 'utf8' }).split('\n')
  return lines.filter((line) => inodes.has(line.trim().split(/\s+/)[9] ?? ''))
}
