import { expect, test } from 'bun:test'
import { spawn } from 'node:child_process'
import { readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { takeOwnerLock } from '../../../src/store/postgres/owner-lock.ts'
import { processIdentity } from '../../../src/store/postgres/process-identity.ts'
import { temporaryFolder } from './start.ts'

test('processes that race for a lock, some dying with it, are never inside together', async () => {
  await using folder = await temporaryFolder()
  const racer = (end: 'release' | 'die', turns: number) =>
    new Promise<number | string | null>((resolve) => {
      const args = [join(import.meta.dir, 'lock-racer.ts'), folder.path, end, String(turns)]
      const child = spawn(process.execPath, args, { stdio: ['ignore', 'inherit', 'inherit'] })
      child.once('exit', (code, signal) => resolve(code ?? signal))
    })
  const ends = await Promise.all([
    ...[racer('release', 40), racer('release', 40), racer('release', 40)],
    ...[racer('die', 1), racer('die', 1), racer('die', 1)],
  ])
  expect(ends).toEqual([0, 0, 0, 'SIGKILL', 'SIGKILL', 'SIGKILL'])
  await (await takeOwnerLock(folder.path)).release()
  expect(await readdir(folder.path)).toEqual([expect.stringMatching(/^owner-\d+\.lock$/)])
}, 60_000)

test('a lock is refused while its owner lives, and free after its release', async () => {
  await using folder = await temporaryFolder()
  const lock = await takeOwnerLock(folder.path)
  await expect(takeOwnerLock(folder.path)).rejects.toMatchObject({
    reason: 'locked',
    message: expect.stringContaining(`(pid ${process.pid})`),
  })
  await lock.release()
  await (await takeOwnerLock(folder.path)).release()
  // One lock file, and no drafts.
  expect(await readdir(folder.path)).toEqual(['owner-2.lock'])
})

test('a lock whose pid was given to another process is stale', async () => {
  await using folder = await temporaryFolder()
  const identity = `${processIdentity(process.pid)}0`
  await writeFile(join(folder.path, 'owner-5.lock'), JSON.stringify({ pid: process.pid, identity }))
  await takeOwnerLock(folder.path)
  expect(await readdir(folder.path)).toEqual(['owner-6.lock'])
})

test('a lock file that a power cut left empty is stale', async () => {
  await using folder = await temporaryFolder()
  await writeFile(join(folder.path, 'owner-1.lock'), '')
  await takeOwnerLock(folder.path)
  expect(await readdir(folder.path)).toEqual(['owner-2.lock'])
})
