import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { readdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createFiles, type Files } from '../../src/sources/files.ts'
import { fetchAgain, isHopeless } from '../../src/sources/import/fetch-again.ts'
import { concludeFiles, neededSpools } from '../../src/store/files/after.ts'
import { fileById, listFiles, listRejects, sourceFigures } from '../../src/store/files/list.ts'
import { pruneFiles, pruneRejects } from '../../src/store/files/retention.ts'
import { cancelTasks } from '../../src/store/tasks/cancel.ts'
import { noServers, type RemoteHome, remoteHome } from '../files/remote-home.ts'
import { type FileServer, startVsftpd } from '../support/ftp-servers.ts'
import { DEAD, SUCCEEDED } from '../support/tasks.ts'
import { type SourcesUnderTest, sourcesUnderTest } from './sources-under-test.ts'

const AT_ONCE = { ready: { kind: 'at-once' } } as const

describe.skipIf(noServers !== undefined)('files of sources', () => {
  let home: RemoteHome
  let server: FileServer
  let under: SourcesUnderTest
  let files: Files
  let woken: string[]
  beforeAll(async () => {
    home = await remoteHome()
    server = await startVsftpd(home.path)
    under = await sourcesUnderTest()
    woken = []
    files = createFiles({
      pool: under.pool,
      cancelTasks: (ids) => cancelTasks(under.pool, ids),
      wake: (queues) => void woken.push(...queues),
      onChanged() {},
    })
  })
  afterAll(async () => {
    await under[Symbol.asyncDispose]()
    await server[Symbol.asyncDispose]()
    await home[Symbol.asyncDispose]()
  })
  const write = (name: string, text: string) => writeFile(join(server.folder, name), text)
  async function only(include: string, over = {}) {
    const source = await under.create(server, { ...AT_ONCE, include: [include], ...over })
    return {
      source,
      file: async () => (await under.files(source)).at(-1) as Awaited<ReturnType<typeof under.files>>[0],
    }
  }

  test('a paused one is not fetched, and one that is cancelled never is', async () => {
    await write('paused.csv', 'id\n1\n')
    const { source, file } = await only('paused.csv', { ready: { kind: 'stable' } })
    await under.poll(source)
    const { id } = await file()
    expect(await files.setPaused(id, true)).toBe('seen')
    await under.pollTwice(source)
    expect(await file()).toMatchObject({ status: 'ready', sha256: null })
    expect(await files.setPaused(id, false)).toBe('ready')
    await under.poll(source)
    expect(await file()).toMatchObject({ status: 'importing' })

    await write('cancelled.csv', 'id\n1\n')
    const other = await only('cancelled.csv', { ready: { kind: 'stable' } })
    await under.poll(other.source)
    expect(await files.cancel((await other.file()).id)).toBe('skipped')
    await under.pollTwice(other.source)
    expect(await other.file()).toMatchObject({ status: 'skipped', error: 'It was cancelled', task: null })
    expect(await files.cancel('00000000-0000-7000-8000-000000000000')).toBeUndefined()
  })

  test('one that is being imported is cancelled with its task, and can be imported anew', async () => {
    await write('again.csv', 'id\n1\n')
    const { source, file } = await only('again.csv', { duplicates: 'skip' })
    await under.poll(source)
    const first = await file()
    expect(await files.rerun(first.id)).toEqual({ kind: 'unfinished' })
    await files.cancel(first.id)
    expect(await under.ledger.status(first.task ?? '')).toBe('cancelled')
    await concludeFiles(under.pool, 100)
    expect(await file()).toMatchObject({ status: 'failed', error: 'It was cancelled' })

    // Unchanged at the server: by itself it does not come again.
    expect(await under.poll(source)).toMatchObject({ new: 0, changed: 0, fetched: 0 })
    const again = await files.rerun(first.id)
    expect(again.kind).toBe('again')
    expect(await under.poll(source)).toMatchObject({ new: 0, changed: 0, fetched: 1 })
    const second = await file()
    expect(second).toMatchObject({ generation: 2, status: 'importing', sha256: first.sha256 })
    expect(second.task).not.toBe(first.task)
    expect(await files.rerun(first.id)).toEqual({ kind: 'superseded' })
    expect(await under.poll(source)).toMatchObject({ new: 0, changed: 0, fetched: 0 })
  })

  test('one that was moved away is imported anew from where it is, and one that was deleted says so', async () => {
    await write('moved.csv', 'id\n1\n')
    const { source, file } = await only('moved.csv', { after: { kind: 'move', to: 'kept' } })
    await under.poll(source)
    const first = await file()
    await under.imported(first)
    await under.pool.query(`update tasks set status = 'succeeded', finished_at = now() where id = $1`, [first.task])
    await concludeFiles(under.pool, 100)
    await under.poll(source)
    expect(await readdir(join(server.folder, 'kept'))).toEqual(['moved.csv'])
    await files.rerun(first.id)
    expect(await under.poll(source)).toMatchObject({ fetched: 1 })
    expect(await file()).toMatchObject({ generation: 2, status: 'importing', sha256: first.sha256 })

    await write('deleted.csv', 'id\n1\n')
    const other = await only('deleted.csv')
    await under.poll(other.source)
    const lost = await other.file()
    await under.imported(lost)
    await under.pool.query(`update tasks set status = 'succeeded', finished_at = now() where id = $1`, [lost.task])
    await concludeFiles(under.pool, 100)
    await rm(join(server.folder, 'deleted.csv'))
    await files.rerun(lost.id)
    await under.poll(other.source)
    expect(await other.file()).toMatchObject({
      generation: 2,
      status: 'failed',
      error: expect.stringContaining('any more'),
    })
  })

  test('one whose spool is gone is fetched again; whether it is gone for good is told apart', async () => {
    await write('spool.csv', 'id\n1\n')
    const { source, file } = await only('spool.csv')
    await under.poll(source)
    const { path, size, sha256 } = await file()
    const wanted = { sourceId: source.id, path, size, location: null }
    const again = await fetchAgain(wanted, under.deps)
    expect(again).toMatchObject({ sha256: sha256 as string, size: size as number })
    // A larger one is not fetched to its end.
    await write('spool.csv', 'x'.repeat(5_000_000))
    expect((await fetchAgain(wanted, under.deps)).size).toBeLessThan(1_000_000)
    await rm(join(server.folder, 'spool.csv'))
    const gone = await fetchAgain(wanted, under.deps).catch((error: unknown) => error)
    expect(isHopeless(gone)).toBe(true)
    const away = await fetchAgain(
      { ...wanted, sourceId: (await only('x', { host: '127.0.0.1', port: 1 })).source.id },
      under.deps,
    ).catch((error: unknown) => error)
    expect(isHopeless(away)).toBe(false)
  })

  test('are listed with what became of their records, from both ends', async () => {
    await write('listed.csv', 'id\n1\n')
    const { source, file } = await only('listed.csv')
    await under.poll(source)
    const { id, task } = await file()
    const children = await under.ledger.insertMany([1, 2, 3].map(() => ({ queue: 'records', parentId: task })))
    await under.ledger.run(children[0] as string, SUCCEEDED)
    await under.ledger.run(children[1] as string, DEAD)
    await under.pool.query(`insert into rejects values ($1, 4, 5, 'why', 'raw'), ($1, 9, 10, 'why', 'raw')`, [id])
    const [listed] = await listFiles(under.pool, { source: source.id, limit: 10 })
    expect(listed).toMatchObject({
      id,
      source: source.name,
      taskId: task as string,
      tasks: { total: 3, succeeded: 1, dead: 1 },
    })
    expect((await listFiles(under.pool, { task: task as string, limit: 10 })).map((one) => one.id)).toEqual([id])
    expect(await fileById(under.pool, id)).toMatchObject({ id, status: 'importing' })
    expect((await listRejects(under.pool, id, 1)).map(({ number }) => number)).toEqual([4])
    expect((await listRejects(under.pool, id, 10, 4)).map(({ number }) => number)).toEqual([9])

    const all = await listFiles(under.pool, { limit: 100 })
    const pages = []
    for (let after = undefined as (typeof all)[0]['place'] | undefined; ; ) {
      const page = await listFiles(under.pool, { limit: 2, after })
      pages.push(...page)
      if (page.length < 2) break
      after = page.at(-1)?.place
    }
    expect(pages.map((one) => one.id)).toEqual(all.map((one) => one.id))
    expect(await sourceFigures(under.pool)).toMatchObject({ sources: { paused: 0, alerts: 0 } })
  })

  test('is kept while it is listed, and then a year longer; its rejects for 90 days', async () => {
    await write('old.csv', 'id\n1\n')
    await write('gone.csv', 'id\n1\n')
    const { source, file } = await only('old.csv', { include: ['old.csv', 'gone.csv'] })
    await under.poll(source)
    const years = (count: number) =>
      under.pool.query(
        `update files set status = 'done', records_rejected = 1, listed_at = now() - $2 * interval '1 year',
         finished_at = now() - $2 * interval '1 year' where source = $1`,
        [source.id, count],
      )
    await years(2)
    for (const { id } of await under.files(source)) {
      await under.pool.query(`insert into rejects values ($1, 1, 1, 'why', 'x')`, [id])
    }
    // No whole listing has missed it.
    await under.pool.query(`update sources set listed_at = now() - interval '2 years' where id = $1`, [source.id])
    expect(await pruneFiles(under.pool, 100)).toBe(0)
    await rm(join(server.folder, 'gone.csv'))
    expect(await under.poll(source)).toMatchObject({ new: 0, changed: 0, fetched: 0 })
    expect(await pruneRejects(under.pool, 1)).toBe(1)
    expect(await pruneFiles(under.pool, 100)).toBe(1)
    expect(await under.files(source)).toMatchObject([{ path: expect.stringContaining('old.csv') }])
    expect(await pruneRejects(under.pool, 100)).toBeLessThanOrEqual(1)
    expect(await listRejects(under.pool, (await file()).id, 10)).toEqual([])
    expect(await under.poll(source)).toMatchObject({ new: 0, changed: 0, fetched: 0 })
  })

  test('the spool keeps what imports need, and nothing else', async () => {
    await write('swept.csv', 'id\n1\n')
    const { source, file } = await only('swept.csv')
    await under.poll(source)
    const { id, spool } = await file()
    const sweep = () => under.spool.sweep((names) => neededSpools(under.pool, under.ledger.node, names), 0)
    // The node that fetched it has started again since, as another one.
    await under.pool.query('update files set spool_node = null where id = $1', [id])
    await sweep()
    expect(await readdir(under.spoolDir)).toContain(spool as string)
    expect(await file()).toMatchObject({ spool_node: under.ledger.node })
    await under.pool.query(`update files set status = 'done' where id = $1`, [id])
    await sweep()
    expect(await readdir(under.spoolDir)).not.toContain(spool as string)
    expect(await under.spool.sweep((names) => neededSpools(under.pool, under.ledger.node, names), 60_000)).toBe(0)
  })
})
