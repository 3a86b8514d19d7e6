import { expect, test } from 'bun:test'
import { spawn } from 'node:child_process'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import pg from 'pg'
import { pino } from 'pino'
import { clientConfig } from '../../../src/store/database/database.ts'
import { startEmbeddedPostgres } from '../../../src/store/postgres/embedded.ts'
import { findPostmaster } from '../../../src/store/postgres/postmaster.ts'
import { until } from '../../support/until.ts'
import { ask, isRunning, processesOn, startParent, temporaryFolder, untilGone } from './start.ts'

test('a Postgres whose longshore was killed is adopted, with its rows, and stops with its new owner', async () => {
  await using folder = await temporaryFolder()
  const parent = await startParent(folder.path)
  const before = parent.ready()
  await ask(before.connection, 'create table kept as select 7 as n')
  await parent.kill('SIGKILL')
  expect(isRunning(before.pid)).toBe(true)

  const after = await startEmbeddedPostgres({ dataDir: folder.path, log: pino({ level: 'silent' }) })
  try {
    expect(after).toMatchObject({ adopted: true, pid: before.pid, connection: before.connection })
    expect(await ask<{ n: number }>(after.connection, 'select n from kept')).toEqual([{ n: 7 }])
  } finally {
    await after.stop()
  }
  expect(isRunning(before.pid)).toBe(false)
}, 90_000)

test('of two starts that race for an orphan one adopts it and the other is refused', async () => {
  await using folder = await temporaryFolder()
  const parent = await startParent(folder.path)
  const { pid } = parent.ready()
  await parent.kill('SIGKILL')
  const racers = await Promise.all([startParent(folder.path), startParent(folder.path)])
  const winners = racers.filter((racer) => 'pid' in racer.said)
  try {
    expect(winners.map((winner) => winner.ready())).toMatchObject([{ adopted: true, pid }])
    expect(racers.find((racer) => 'reason' in racer.said)?.said).toMatchObject({ reason: 'locked' })
  } finally {
    for (const winner of winners) await winner.kill('SIGTERM')
  }
  await untilGone(pid)
}, 90_000)

for (const kind of ['own', 'adopted'] as const) {
  test(`a killed postmaster (${kind}) is started again, the log says so, and the same connection options work`, async () => {
    await using folder = await temporaryFolder()
    if (kind === 'adopted') {
      const parent = await startParent(folder.path)
      parent.ready()
      await parent.kill('SIGKILL')
    }
    const lines: { event?: string }[] = []
    const log = pino({ level: 'info' }, { write: (line: string) => void lines.push(JSON.parse(line)) })
    const postgres = await startEmbeddedPostgres({ dataDir: folder.path, log })
    try {
      expect(postgres.adopted).toBe(kind === 'adopted')
      await ask(postgres.connection, 'create table kept as select 7 as n')
      process.kill(postgres.pid, 'SIGKILL')
      // An orphan's end is seen after seconds.
      const rows = await until(() => ask(postgres.connection, 'select n from kept').catch(() => undefined), {
        what: 'the new Postgres',
        timeoutMs: 60_000,
      })
      expect(rows).toEqual([{ n: 7 }])
      await until(() => lines.some((line) => line.event === 'postgres-restarted'))
      expect(lines.some((line) => line.event === 'postgres-gone')).toBe(true)
    } finally {
      await postgres.stop()
    }
    expect(await processesOn(folder.path)).toEqual([])
  }, 90_000)
}

test('five kills of the postmaster and its longshore, in turns and while rows are written, lose no committed row', async () => {
  await using folder = await temporaryFolder()
  const confirmed: number[] = []
  let n = 0
  for (let round = 0; round < 5; round++) {
    const parent = await startParent(folder.path)
    const { connection, pid } = parent.ready()
    const client = new pg.Client(clientConfig(connection, 'longshore-test'))
    client.on('error', () => {})
    await client.connect()
    await client.query('create table if not exists kept (n integer primary key)')
    const target = confirmed.length + 50
    const writing = (async () => {
      for (;;) {
        const next = ++n
        await client.query('insert into kept values ($1)', [next])
        confirmed.push(next)
      }
    })().catch(() => {})
    await until(() => confirmed.length >= target)
    // Its longshore first, so that it does not start another; in every second round an orphan lives on and is adopted.
    await parent.kill('SIGKILL')
    if (round % 2 === 0) {
      process.kill(pid, 'SIGKILL')
      await untilGone(pid)
    } else {
      await client.end()
    }
    await writing
    await client.end().catch(() => {})
  }
  const postgres = await startEmbeddedPostgres({ dataDir: folder.path, log: pino({ level: 'silent' }) })
  try {
    const rows = await ask<{ n: number }>(postgres.connection, 'select n from kept')
    const kept = new Set(rows.map((row) => row.n))
    expect(confirmed.length).toBeGreaterThanOrEqual(250)
    expect(confirmed.filter((number) => !kept.has(number))).toEqual([])
  } finally {
    await postgres.stop()
  }
}, 120_000)

test('a first start that is killed in the middle of initdb leaves nothing that the next one trips over', async () => {
  await using folder = await temporaryFolder()
  const home = join(folder.path, 'postgres')
  const args = [join(import.meta.dir, 'parent.ts'), folder.path]
  const child = spawn(process.execPath, args, { stdio: 'ignore', detached: true })
  const drafts = async () => (await readdir(home).catch(() => [])).filter((name) => name.startsWith('data-draft-'))
  const [draft] = await until(async () => {
    const found = await drafts()
    return found.length > 0 && (await readdir(join(home, found[0] as string)).catch(() => [])).length > 5
      ? found
      : undefined
  })
  process.kill(-(child.pid as number), 'SIGKILL')
  await until(async () => (await processesOn(folder.path)).length === 0)
  // A process that is ending has no command line any more, and is still there.
  await untilGone(child.pid as number)
  expect(await readdir(home)).not.toContain('data')

  const postgres = await startEmbeddedPostgres({ dataDir: folder.path, log: pino({ level: 'silent' }) })
  try {
    expect(await ask(postgres.connection, 'select 1 as n')).toEqual([{ n: 1 }])
    expect(await readdir(home)).not.toContain(draft as string)
  } finally {
    await postgres.stop()
  }
}, 90_000)

test('a postmaster.pid left behind whose pid is now a stranger is not taken for a Postgres to adopt', async () => {
  await using folder = await temporaryFolder()
  const postgres = await startEmbeddedPostgres({ dataDir: folder.path, log: pino({ level: 'silent' }) })
  const data = join(folder.path, 'postgres/data')
  expect((await findPostmaster(data))?.pid).toBe(postgres.pid)
  const pidFile = await readFile(join(data, 'postmaster.pid'), 'utf8')
  await postgres.stop()
  await writeFile(join(data, 'postmaster.pid'), pidFile.replace(/^\d+/, String(process.pid)))
  expect(await findPostmaster(data)).toBeUndefined()
}, 90_000)
