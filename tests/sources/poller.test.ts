import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { announcementOf } from '../../src/sources/announcement.ts'
import { createFiles } from '../../src/sources/files.ts'
import { createPoller } from '../../src/sources/poller.ts'
import { createSpool, SpoolFailure } from '../../src/sources/spool.ts'
import { setFilePaused } from '../../src/store/files/actions.ts'
import { insertTasks } from '../../src/store/tasks/insert/insert.ts'
import { ensureQueue } from '../../src/store/topology/import-topology.ts'
import { addressingFor } from '../../src/submit/addressing.ts'
import type { SourceBody } from '../../src/task/source/source.ts'
import { noServers, type RemoteHome, remoteHome } from '../files/remote-home.ts'
import { startProxies } from '../support/file-server-proxy.ts'
import { type FileServer, startVsftpd } from '../support/ftp-servers.ts'
import { until } from '../support/until.ts'
import { type SourcesUnderTest, sourcesUnderTest } from './sources-under-test.ts'

describe.skipIf(noServers !== undefined)('the poller', () => {
  let home: RemoteHome
  let server: FileServer
  let under: SourcesUnderTest
  beforeAll(async () => {
    home = await remoteHome()
    server = await startVsftpd(home.path)
    under = await sourcesUnderTest()
  })
  afterAll(async () => {
    await under[Symbol.asyncDispose]()
    await server[Symbol.asyncDispose]()
    await home[Symbol.asyncDispose]()
  })

  test('polls a source although others hang, refuse or are not to be read, and ends in order in the middle of it', async () => {
    await using proxied = await startProxies(server)
    const every = { cron: '* * * * * *', ready: { kind: 'at-once' } } as const
    const good = await under.create(server, every)
    const hanging = await under.create({ connection: proxied.connection, root: server.root }, every)
    const refused = await under.create(server, { ...every, port: 1 })
    const unreadable = await under.create(server, every)
    await under.pool.query(`update sources set secret = '\\x00' where id = $1`, [unreadable.id])
    proxied.control.setFault({ kind: 'hang', afterBytes: 0 })

    const poller = createPoller(under.deps)
    await poller.start()
    await until(() => poller.visiting().includes(hanging.id), { what: 'the one that hangs' })
    await writeFile(join(server.folder, 'a.csv'), 'id\n1\n')
    await until(async () => (await under.files(good)).some(({ task }) => task), { what: 'the file of the good one' })
    await until(async () => (await under.read(refused)).poll?.error?.layer === 'connect', { what: 'its error' })
    await until(async () => (await under.read(unreadable)).poll?.error?.layer === 'secret', { what: 'its error' })
    expect(poller.visiting()).toContain(hanging.id)
    const from = performance.now()
    await poller.stop()
    // Sooner than the one that hangs would have ended by itself.
    expect(performance.now() - from).toBeLessThan(10_000)
    expect(poller.visiting()).toEqual([])
    const { rows } = await under.pool.query(`select name from locks where name like 'source:%'`)
    expect(rows).toEqual([])
    for (const { id } of [good, hanging, refused, unreadable]) await under.sources.remove(id)
  })

  test('polls one with no cron expression when it is asked to, and a paused one never', async () => {
    const source = await under.create(server, { ready: { kind: 'at-once' } })
    const poller = createPoller(under.deps)
    await poller.start()
    try {
      await under.sources.poll(source.id)
      poller.wake()
      await until(async () => (await under.read(source)).poll, { what: 'the poll' })
      await under.sources.setPaused(source.id, true)
      expect(await under.sources.poll(source.id)).toBe('paused')
    } finally {
      await poller.stop()
    }
    await under.sources.remove(source.id)
  })

  test('does a poll again that was cut short, by a stop or a crash, also one that was only asked for', async () => {
    await using proxied = await startProxies(server)
    await writeFile(join(server.folder, 'cut.csv'), 'id\n1\n')
    const source = await under.create(
      { connection: proxied.connection, root: server.root },
      { ready: { kind: 'at-once' }, include: ['cut.csv'] },
    )
    const nextPoll = async () => (await under.read(source)).nextPollAt
    const pollUntilItHangs = async () => {
      proxied.control.setFault({ kind: 'hang', afterBytes: 0 })
      const poller = createPoller(under.deps)
      await poller.start()
      await under.sources.poll(source.id)
      poller.wake()
      await until(() => poller.visiting().includes(source.id), { what: 'the visit' })
      expect(await nextPoll()).toBeNull()
      return poller
    }
    await (await pollUntilItHangs()).stop()
    expect(await nextPoll()).not.toBeNull()

    await under.pool.query(`update sources set next_poll_at = 'infinity' where id = $1`, [source.id])
    const dead = await under.ledger.join()
    await under.pool.query('update nodes set dead_at = now() where id = $1', [dead])
    await under.pool.query('insert into locks (name, node) values ($1, $2)', [`source:${source.id}`, dead])
    proxied.control.setFault({ kind: 'none' })
    const poller = createPoller(under.deps)
    await poller.start()
    try {
      await until(async () => (await under.files(source)).some(({ task }) => task), { what: 'the file' })
    } finally {
      await poller.stop()
    }
    const { rows } = await under.pool.query(`select name from locks where name like 'source:%'`)
    expect([rows, await nextPoll()]).toEqual([[], null])
    await under.sources.remove(source.id)
  })

  test('lets files wait that are more than a poll may fetch, and comes back for them at once', async () => {
    for (let file = 0; file < 7; file++) await writeFile(join(server.folder, `many-${file}.csv`), `id\n${file}\n`)
    const source = await under.create(server, {
      ready: { kind: 'at-once' },
      include: ['many-*'],
      limits: { filesPerPoll: 2 },
    })
    const poller = createPoller(under.deps)
    await poller.start()
    try {
      await under.sources.poll(source.id)
      poller.wake()
      await until(async () => (await under.files(source)).filter(({ task }) => task).length === 7, {
        what: 'all files',
      })
    } finally {
      await poller.stop()
    }
    await under.sources.remove(source.id)
  })

  test('comes back for what is left: when it can have stood still, when its wait is over, never for what is paused', async () => {
    const dueIn = async () => {
      const { nextPollAt } = await under.read(source)
      return nextPollAt === null ? undefined : Math.round((Date.parse(nextPollAt) - Date.now()) / 1_000)
    }
    const never = () => under.pool.query(`update sources set next_poll_at = 'infinity' where id = $1`, [source.id])
    const file = async () => (await under.files(source)).at(-1)
    await writeFile(join(server.folder, 'left.csv'), 'id\n1\n')
    const source = await under.create(server, { include: ['left*'] })
    for (let listing = 0; listing < 4; listing++) {
      await under.poll(source, { atOnce: true })
      expect(await file()).toMatchObject({ status: 'seen' })
    }
    // Whole seconds of a wait that has begun.
    expect(await dueIn()).toBeWithin(1, 11)

    await never()
    await under.pool.query(`update files set seen_at = seen_at - interval '1 hour' where source = $1`, [source.id])
    await writeFile(join(server.folder, 'left.csv'), 'id\n1\n2\n')
    await under.poll(source)
    expect(await file()).toMatchObject({ status: 'seen' })
    // A quarter of the time since it was seen: an hour, and what this test took.
    expect(await dueIn()).toBeWithin(880, 960)

    await never()
    await setFilePaused(under.pool, (await file())?.id ?? '', true)
    await under.poll(source)
    expect(await file()).toMatchObject({ status: 'ready' })
    expect(await dueIn()).toBeUndefined()

    const files = createFiles({ pool: under.pool, cancelTasks: async () => {}, wake() {}, onChanged() {} })
    await files.setPaused((await file())?.id ?? '', false)
    expect(await dueIn()).toBeLessThanOrEqual(0)

    await never()
    const full = { ...under.spool, receive: () => Promise.reject(new SpoolFailure('Cannot write to the spool')) }
    await under.poll(source, { spool: full })
    expect(await file()).toMatchObject({ status: 'ready', failures: 1 })
    // Whole seconds of a wait that has begun.
    expect(await dueIn()).toBeWithin(1, 11)
    await under.sources.remove(source.id)
  })

  test('fetches no more than the spool has room for, says so, and goes on when there is room', async () => {
    for (const name of ['1', '2', '3']) await writeFile(join(server.folder, `spool-${name}.csv`), 'id\n1\n')
    const source = await under.create(server, { include: ['spool-*'], ready: { kind: 'at-once' } })
    const spool = createSpool(join(under.spoolDir, 'small'), { limitBytes: 6 })
    const full = { layer: 'spool', reason: 'full', path: expect.stringContaining('spool-') }
    expect(await under.poll(source, { spool })).toMatchObject({
      fetched: 2,
      left: 1,
      failed: { count: 1, first: [full] },
    })
    expect(await under.poll(source, { spool })).toMatchObject({
      fetched: 0,
      left: 1,
      failed: { count: 1, first: [full] },
    })
    const { nextPollAt } = await under.read(source)
    // Whole seconds of a wait that has begun.
    expect(Math.round((Date.parse(nextPollAt ?? '') - Date.now()) / 1_000)).toBeWithin(1, 11)

    await spool.sweep(async () => new Set(), 0)
    const noDisk = createSpool(join(under.spoolDir, 'small'), { leftToOthers: 2 ** 60 })
    expect(await under.poll(source, { spool: noDisk })).toMatchObject({
      fetched: 0,
      left: 1,
      failed: { first: [full] },
    })
    expect(await under.poll(source, { spool })).toMatchObject({ fetched: 1, left: 0, failed: { count: 0 } })
    await under.sources.remove(source.id)
  })

  test('tries a poll that failed again before its next time, later each time; not a refused login, not one without a cron', async () => {
    const waits = async (over: Partial<SourceBody>) => {
      const source = await under.create(server, over)
      const seconds: (number | undefined)[] = []
      for (let poll = 0; poll < 3; poll++) {
        await under.pool.query(`update sources set next_poll_at = now() + interval '1 day' where id = $1`, [source.id])
        await under.poll(source)
        const { nextPollAt } = await under.read(source)
        seconds.push(Math.round((Date.parse(nextPollAt ?? '') - Date.now()) / 60_000))
      }
      await under.sources.remove(source.id)
      return seconds
    }
    const cron = '0 2 * * *'
    const wrong = { kind: 'password', username: 'nobody-here', password: 'wrong' } as const
    expect(await waits({ cron, port: 1 })).toEqual([1, 2, 4])
    expect(await waits({ cron, auth: wrong })).toEqual([1_440, 1_440, 1_440])
    expect(await waits({ port: 1 })).toEqual([1_440, 1_440, 1_440])
    expect(await waits({ cron, include: ['none'] })).toEqual([1_440, 1_440, 1_440])
  })

  test('announces without a connection and without secrets, once a poll, on the exchange', async () => {
    const source = await under.create(
      { ...server, connection: { ...server.connection, port: 1 } },
      { mode: 'announce', format: { type: 'json' } },
    )
    await ensureQueue(under.pool, 'theirs')
    await under.pool.query(`insert into bindings values ('ftp_exchange', 'theirs', 'ftp.*')`)
    const addressing = addressingFor('in-process')
    const announce: typeof under.deps.announce = async (stored, plan) => {
      const task = announcementOf(stored, plan)
      const [answer] = await insertTasks(under.pool, under.ledger.node, [task], { addressing })
      if (answer?.kind !== 'created') throw new Error('It was not stored')
      return task.id
    }
    const reports = [await under.poll(source, { announce }), await under.poll(source, { announce })]
    const { rows } = await under.pool.query<{ id: string; queue: string; payload: string; parent_id: string }>(
      `select id, queue, payload, parent_id from tasks where type = 'longshore.announcement' and parent_id is not null order by id`,
    )
    expect(rows.map(({ queue }) => queue)).toEqual(['ftp.json', 'theirs', 'ftp.json', 'theirs'])
    expect([...new Set(rows.map(({ parent_id }) => parent_id))]).toEqual(
      reports.map(({ announced }) => announced as string),
    )
    const messages = rows.map(({ payload }) => JSON.parse(payload) as Record<string, unknown>)
    expect(messages[0]).toEqual({
      sourceId: source.id,
      host: server.connection.host,
      port: 1,
      directory: server.root,
      contentType: 'json',
      runId: expect.any(String),
    })
    expect(new Set(messages.map(({ runId }) => runId)).size).toBe(2)
  })
})
