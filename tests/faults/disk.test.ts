import { expect, test } from 'bun:test'
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { reached, submit } from '../e2e/installation.ts'
import { killPostgres, nodeFolder, startNode } from '../support/node-process.ts'
import { startSink } from '../support/sink.ts'
import { until } from '../support/until.ts'

const REFUSALS = 50

test('a full disk is told to callers and in the log as what it is, loses nothing, and space makes all go on by itself', async () => {
  await using folder = await nodeFolder()
  await using disk = await smallDisk(folder.path, 160)
  await using sink = await startSink()
  const held = Promise.withResolvers<void>()
  sink.reply = async ({ path }) => {
    if (path === '/held') await held.promise
    return {}
  }
  const node = await startNode(folder, { env: { DATA_DIR: disk.path } })
  const task = (path: string, bytes = 10) => ({
    // Random, so that it cannot be compressed.
    payload: randomBytes(bytes).toString('base64'),
    target: { type: 'http', url: sink.url(path) },
  })
  const accepted = [await submit(node, task('/quick')), await submit(node, task('/held'))]
  await until(() => sink.requests.length === 2, { what: 'both tasks at the sink' })

  disk.fill()
  const refused = await until(
    async () => {
      const answer = await node.request<{ id: string }>('POST', '/tasks', task('/quick', 30_000))
      if (answer.status !== 201) return answer
      accepted.push(answer.body.id)
      return undefined
    },
    { what: 'the full disk to refuse a task', timeoutMs: 30_000 },
  )
  expect(refused).toMatchObject({
    status: 503,
    body: { code: 'storage-full', detail: expect.stringMatching(/no space left.*free some/i) },
  })
  expect(refused.headers.get('retry-after')).not.toBeNull()
  for (let more = 0; more < REFUSALS; more++)
    expect(await node.request('POST', '/tasks', task('/quick', 30_000))).toMatchObject({
      body: { code: 'storage-full' },
    })
  const said = await until(() => node.logged('submits-refused')[0], { what: 'the log to say so' })
  expect(said).toMatchObject({ level: 'error', code: 'storage-full', msg: expect.stringContaining('no space left') })
  // A flood of refusals is not a flood of lines.
  expect(node.logged('submits-refused').length).toBeLessThan(REFUSALS / 5)
  // Work in hand ends meanwhile; whether its outcome fits on the disk or has to wait, it is not lost.
  held.resolve()

  await disk.free()
  const after = await until(
    async () => {
      const answer = await node.request<{ id: string }>('POST', '/tasks', task('/quick', 30_000))
      return answer.status === 201 ? answer.body.id : undefined
    },
    { timeoutMs: 60_000, what: 'a task to be taken again' },
  )
  for (const id of [...accepted, after])
    expect(await reached(node, id)).toMatchObject({ status: 'succeeded', attempt: 1 })
  expect(sink.requests.map((request) => request.task).sort()).toEqual([...accepted, after].sort())
  expect(await node.call('GET', '/accounting')).toMatchObject({ accepted: accepted.length + 1, unaccounted: 0 })
  await node.stop()
}, 150_000)

/** A file system of its own in memory, so that "full" is real. Needs root. */
async function smallDisk(folder: string, megabytes: number) {
  const path = join(folder, 'disk')
  await mkdir(path)
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${megabytes}m,mode=755`, 'none', path])
  const filler = join(path, 'filler')
  return {
    path,
    fill: () => void execFileSync('sh', ['-c', `dd if=/dev/zero of=${filler} bs=64k 2>/dev/null || true`]),
    free: () => rm(filler),
    async [Symbol.asyncDispose]() {
      await killPostgres(path)
      execFileSync('umount', [path])
    },
  }
}
