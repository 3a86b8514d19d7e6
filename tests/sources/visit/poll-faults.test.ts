import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import { createHash } from 'node:crypto'
import { renameSync, writeFileSync } from 'node:fs'
import { chmod, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createEgress } from '../../../src/runtime/egress/egress.ts'
import { noServers, type RemoteHome, remoteHome } from '../../files/remote-home.ts'
import { type ProxiedServer, startProxies } from '../../support/file-server-proxy.ts'
import { type FileServer, startPureFtpd, startVsftpd } from '../../support/ftp-servers.ts'
import { startSshd } from '../../support/sshd.ts'
import { until } from '../../support/until.ts'
import { type SourcesUnderTest, sourcesUnderTest } from '../sources-under-test.ts'

const AT_ONCE = { ready: { kind: 'at-once' } } as const
/** For servers that hang: a connection that is to come in time comes in time on a busy machine, too. */
const QUICK = { limits: { connectTimeout: '5s', idleTimeout: '3s' } } as const
const BIG = 'x'.repeat(1024 * 1024)
const sha256 = (text: string) => createHash('sha256').update(text).digest('hex')

let home: RemoteHome
let under: SourcesUnderTest
beforeAll(async () => {
  if (noServers !== undefined) return
  home = await remoteHome()
  under = await sourcesUnderTest()
})
afterAll(async () => {
  await under?.[Symbol.asyncDispose]()
  await home?.[Symbol.asyncDispose]()
})

const KINDS: [string, () => Promise<FileServer>][] = [
  ['FTP', () => startVsftpd(home.path)],
  ['SFTP', () => startSshd(home.path)],
]

describe.skipIf(noServers !== undefined).each(KINDS)('with %s that fails', (_name, start) => {
  let server: FileServer
  let proxied: ProxiedServer
  beforeEach(async () => {
    server = await start()
    proxied = await startProxies(server)
  })
  afterEach(async () => {
    await proxied[Symbol.asyncDispose]()
    await server[Symbol.asyncDispose]()
  })
  const source = (over = {}) =>
    under.create({ connection: proxied.connection, root: server.root }, { ...AT_ONCE, ...over })
  const write = (name: string, text: string) => writeFile(join(server.folder, name), text)

  test('a file that is cut at half costs that file a try, and is whole the next time', async () => {
    const polled = await source()
    await write('a.csv', BIG)
    await under.poll(polled, {
      reached: (step) => step === 'begun' && proxied.setDataFault({ kind: 'cut', afterBytes: BIG.length / 2 }),
    })
    const [cut] = await under.files(polled)
    expect(cut).toMatchObject({ status: 'ready', failures: 1, sha256: null, spool: null })
    expect((await under.read(polled)).poll?.failed.first[0]).toMatchObject({ layer: 'read', path: cut?.path as string })
    proxied.setDataFault({ kind: 'none' })
    // Not at once: a server that always cuts would be asked for ever.
    expect(await under.poll(polled)).toMatchObject({ fetched: 0, left: 1 })
    await under.allDue()
    expect(await under.poll(polled)).toMatchObject({ fetched: 1, left: 0 })
    expect((await under.files(polled))[0]).toMatchObject({ status: 'importing', sha256: sha256(BIG), error: null })
  })

  test('one that hangs in the middle of a file is left after its idle timeout, and the other files come all the same', async () => {
    const polled = await source(QUICK)
    // Whichever the server lists first hangs.
    for (const name of ['a.csv', 'b.csv', 'c.csv']) await write(name, `${BIG}${name}`)
    let begun = 0
    const report = await under.poll(polled, {
      reached(step) {
        if (step !== 'begun') return
        begun++
        proxied.setDataFault(begun === 1 ? { kind: 'hang', afterBytes: 1000 } : { kind: 'none' })
      },
    })
    expect(report.failed).toMatchObject({ count: 1, first: [{ layer: 'read', reason: 'timeout' }] })
    // SFTP has one connection for everything: while it hangs, there is no other.
    proxied.setDataFault({ kind: 'none' })
    // However long that took: the one that failed is not due again.
    await under.pool.query(`update files set retry_at = now() + interval '1 hour' where source = $1 and failures > 0`, [
      polled.id,
    ])
    if (report.left > 1) await under.poll(polled)
    expect((await under.files(polled)).map(({ status }) => status).sort()).toEqual(['importing', 'importing', 'ready'])
  })

  test('one that hangs in the middle of a listing fails that poll, forgets nothing, and says so', async () => {
    const polled = await source({ ...QUICK, ready: { kind: 'stable', listings: 9 } })
    for (let file = 0; file < 300; file++) await write(`file-${file}.csv`, '')
    await under.poll(polled)
    proxied.setDataFault({ kind: 'hang', afterBytes: 5_000 })
    const report = await under.poll(polled)
    expect(report.error).toMatchObject({ reason: 'timeout' })
    expect(await under.files(polled)).toHaveLength(300)
    proxied.setDataFault({ kind: 'none' })
    expect(await under.poll(polled)).toMatchObject({ error: null, files: 300, incomplete: 300, new: 0 })
  })

  test('one that is not there is an error of its layer, and says nothing of the password', async () => {
    const polled = await source()
    proxied.control.setFault({ kind: 'refuse' })
    const { error } = await under.poll(polled)
    expect(error?.layer).toMatch(/connect|login|hostkey/)
    expect(JSON.stringify(await under.read(polled))).not.toContain('correct horse')
  })

  test('a wrong password is an error of the layer login', async () => {
    const { connection, root } = server
    const auth = { kind: 'password', username: 'nobody', password: 'hunter2' } as const
    const polled = await under.create({ connection: { ...connection, auth }, root }, AT_ONCE)
    const report = await under.poll(polled)
    expect(report.error).toMatchObject({ layer: 'login' })
    expect(JSON.stringify([report, await under.read(polled)])).not.toContain('hunter2')
    await under.sources.patch(polled.id, { auth: connection.auth })
    expect((await under.poll(polled)).error).toBeNull()
  })

  test('a file that is replaced while it is fetched is not imported, and its new version is', async () => {
    const polled = await source()
    await write('a.csv', BIG)
    const other = BIG.replaceAll('x', 'y').slice(1)
    let isReplaced = false
    const report = await under.poll(polled, {
      reached(step) {
        if (step !== 'fetched' || isReplaced) return
        isReplaced = true
        // Before anything else is asked of the server.
        writeFileSync(join(server.folder, '.new'), other)
        renameSync(join(server.folder, '.new'), join(server.folder, 'a.csv'))
      },
    })
    expect(report).toMatchObject({ fetched: 0, failed: { count: 1, first: [{ reason: 'changed' }] } })
    expect(await under.poll(polled)).toMatchObject({ fetched: 1 })
    const files = await under.files(polled)
    expect(files).toHaveLength(1)
    expect(files[0]).toMatchObject({ status: 'importing', sha256: sha256(other), size: other.length })
  })

  test('a server at an address that may not be reached is not connected to', async () => {
    const polled = await source()
    const guard = createEgress({ allow: ['203.0.113.0/24'], allowPrivate: false })
    const { error } = await under.poll(polled, { guard })
    expect(error).toMatchObject({ layer: 'resolve', reason: 'forbidden' })
    expect(proxied.control.accepted).toBe(0)
  })

  test('a listing with more entries than are allowed for fails as a whole, and forgets nothing', async () => {
    const polled = await source({ ready: { kind: 'stable', listings: 9 } })
    for (let file = 0; file < 20; file++) await write(`file-${file}.csv`, '')
    await under.poll(polled)
    await under.sources.patch(polled.id, { limits: { entries: 10 } })
    expect((await under.poll(polled)).error).toMatchObject({ reason: 'limit' })
    expect(await under.files(polled)).toHaveLength(20)
  })

  test('files are fetched over as many connections as the source allows, and one that is refused stops none', async () => {
    const polled = await source({ connections: 4 })
    for (const name of ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h']) await write(`${name}.csv`, name)
    await chmod(join(server.folder, 'c.csv'), 0o000)
    expect(await under.poll(polled)).toMatchObject({ fetched: 7, failed: { count: 1 }, left: 1 })
    const files = await under.files(polled)
    expect(files.filter(({ status }) => status === 'importing')).toHaveLength(7)
    expect(files[2]).toMatchObject({ status: 'ready', failures: 1 })
    expect(proxied.control.accepted).toBeGreaterThanOrEqual(4)
  })

  test('two nodes that poll one source again and again make each file one import', async () => {
    const polled = await source({ cron: '* * * * * *' })
    const [one, other] = [await under.otherNode(), await under.otherNode()]
    await one.poller.start()
    await other.poller.start()
    try {
      for (let file = 0; file < 40; file++) await write(`file-${file}.csv`, `id\n${file}\n`)
      await until(async () => (await under.files(polled)).filter(({ task }) => task).length === 40, {
        timeoutMs: 20_000,
        what: 'all files',
      })
    } finally {
      await Promise.all([one.poller.stop(), other.poller.stop()])
    }
    const files = await under.files(polled)
    expect(files).toHaveLength(40)
    const tasks = (await under.imports()).filter(({ payload }) => payload.sourceId === polled.id)
    expect(tasks.map(({ id }) => id).sort()).toEqual(files.map(({ task }) => task as string).sort())
  }, 40_000)

  test('a node that was taken for dead while it fetched hands nothing over', async () => {
    const polled = await source()
    await write('a.csv', 'id\n1\n')
    const zombie = await under.otherNode()
    const fetched = Promise.withResolvers<void>()
    const goOn = Promise.withResolvers<void>()
    const held = {
      ...zombie.deps,
      // The last thing before the commit.
      spool: {
        ...zombie.deps.spool,
        receive: async (chunks: AsyncIterable<Uint8Array>) => {
          const spooled = await zombie.deps.spool.receive(chunks)
          fetched.resolve()
          await goOn.promise
          return spooled
        },
      },
    }
    const late = under.poll(polled, held)
    await fetched.promise
    await zombie.die()
    expect(await under.poll(polled)).toMatchObject({ fetched: 1 })
    goOn.resolve()
    await late
    const tasks = (await under.imports()).filter(({ payload }) => payload.sourceId === polled.id)
    expect(tasks).toHaveLength(1)
    expect(await under.files(polled)).toHaveLength(1)
    expect(await zombie.deps.spool.sweep(async () => new Set(), 0)).toBe(0)
  })
})

describe.skipIf(noServers !== undefined)('who answers', () => {
  test('the first host key is kept, another one stops the polling with an alert until it is confirmed', async () => {
    await using server = await startSshd(home.path)
    const source = await under.create(server, AT_ONCE)
    await under.poll(source)
    const { pinned } = await under.read(source)
    expect(pinned?.hostKey?.fingerprint).toBe(server.hostKeys.ed25519)

    await using stranger = await startSshd(home.path)
    await under.pool.query(`update sources set settings = settings || $2 where id = $1`, [
      source.id,
      { port: stranger.port, directory: stranger.root },
    ])
    const { error } = await under.poll(source)
    expect(error).toMatchObject({ layer: 'identity' })
    const { alert } = await under.read(source)
    expect(alert?.message).toContain(`${stranger.hostKeys.ed25519}, not ${server.hostKeys.ed25519}`)
    expect(await under.sources.poll(source.id)).toBe('alert')

    expect(await under.sources.confirm(source.id, server.hostKeys.ed25519)).toBe(false)
    expect(await under.sources.confirm(source.id, stranger.hostKeys.ed25519)).toBe(true)
    expect(await under.read(source)).toMatchObject({ alert: null })
    expect((await under.poll(source)).error).toBeNull()
  })

  test('a certificate that is not verified is kept like a host key, and a verified one may be renewed', async () => {
    const certified = (certificate: RemoteHome['certificates']['good']) =>
      startPureFtpd(home.path, { tls: { certificate, mode: 'explicit' } })
    await using server = await certified(home.certificates.good)
    await using renewed = await certified(home.certificates.wrongHost)
    const unverified = await under.create(server, { ...AT_ONCE, tls: { verify: false } })
    const verified = await under.create(server, { ...AT_ONCE, tls: { ca: home.certificates.ca } })
    for (const source of [unverified, verified]) expect((await under.poll(source)).error).toBeNull()
    expect((await under.read(unverified)).pinned?.certificate?.fingerprint).toBe(home.certificates.good.fingerprint)
    expect((await under.read(verified)).pinned).toBeNull()

    await under.pool.query(`update sources set settings = settings || $2 where id = any($1::uuid[])`, [
      [unverified.id, verified.id],
      { port: renewed.port },
    ])
    expect((await under.poll(unverified)).error).toMatchObject({ layer: 'identity' })
    expect((await under.read(unverified)).alert?.found.certificate?.fingerprint).toBe(
      home.certificates.wrongHost.fingerprint,
    )
    // An authority vouches, and says no: that is an error, and not an alert.
    expect((await under.poll(verified)).error).toMatchObject({ layer: 'tls', reason: 'untrusted' })
    expect((await under.read(verified)).alert).toBeNull()
  })

  test('another host in the settings is another server: what was kept of the old one does not count', async () => {
    await using server = await startSshd(home.path)
    await using other = await startSshd(home.path)
    const source = await under.create(server, AT_ONCE)
    await under.poll(source)
    const auth = other.connection.auth
    await under.sources.patch(source.id, { port: other.port, directory: other.root, auth })
    expect((await under.poll(source)).error).toBeNull()
    expect((await under.read(source)).pinned?.hostKey?.fingerprint).toBe(other.hostKeys.ed25519)
  })
})
