import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { mkdir, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { browseSource, testSource } from '../../src/sources/try-source.ts'
import { type StoredSource, sourceById } from '../../src/store/sources/read.ts'
import type { SourceBody } from '../../src/task/source/source.ts'
import { failureOf, noServers, type RemoteHome, remoteHome } from '../files/remote-home.ts'
import { type ProxiedServer, startProxies } from '../support/file-server-proxy.ts'
import { type FileServer, startVsftpd } from '../support/ftp-servers.ts'
import { type SftpServer, startSshd } from '../support/sshd.ts'
import { type SourcesUnderTest, sourcesUnderTest } from './sources-under-test.ts'

/** Long enough to connect to a server on a busy machine, and short enough to wait for. */
const PATIENCE_MS = 5_000

describe.skipIf(noServers !== undefined)('trying a source', () => {
  let home: RemoteHome
  let ftp: FileServer
  let sftp: SftpServer
  let under: SourcesUnderTest
  beforeAll(async () => {
    home = await remoteHome()
    ;[ftp, sftp, under] = await Promise.all([startVsftpd(home.path), startSshd(home.path), sourcesUnderTest()])
  })
  afterAll(async () => {
    await under[Symbol.asyncDispose]()
    await ftp[Symbol.asyncDispose]()
    await sftp[Symbol.asyncDispose]()
    await home[Symbol.asyncDispose]()
  })

  async function tried(server: FileServer, over: Partial<SourceBody> = {}) {
    const { id } = await under.create(server, over)
    const source = await sourceById(under.pool, id)
    if (!source) throw new Error('There is no source')
    return { source, test: await testSource(source, under.deps) }
  }

  test('shows who answered, what would be taken and the beginning of the first file, and takes nothing', async () => {
    for (const server of [ftp, sftp]) {
      const rows = Array.from({ length: 50_000 }, (_, row) => `${row},Ünicode "name"`).join('\n')
      await writeFile(join(server.folder, 'a.csv'), `id;name\n${rows.replaceAll(',', ';')}\n`)
      await writeFile(join(server.folder, 'b.part'), '')
      const { source, test } = await tried(server, {
        exclude: ['*.part'],
        format: { type: 'csv', delimiter: ';', relaxQuotes: true },
      })
      expect(test).toMatchObject({
        ok: true,
        failure: null,
        looked: 2,
        files: [{ path: expect.stringMatching(/a\.csv$/) }],
      })
      expect(test.preview?.records).toHaveLength(10)
      expect(test.preview?.records[3]).toBe('{"id":"3","name":"Ünicode \\"name\\""}')
      expect(test.identity?.hostKey?.fingerprint).toBe(server === sftp ? sftp.hostKeys.ed25519 : undefined)
      // As a poll would: who answers first is expected from then on.
      expect((await under.read(source)).pinned?.hostKey?.fingerprint).toBe(
        server === sftp ? sftp.hostKeys.ed25519 : undefined,
      )
      expect(await under.files(source)).toEqual([])
      expect(await readdir(under.spoolDir)).toEqual([])
    }
  })

  test('reads the beginning of a compressed file, and says what is wrong with one', async () => {
    await mkdir(join(ftp.folder, 'packed'))
    const random = Array.from({ length: 200_000 }, () => Math.random()).join('\n')
    await writeFile(join(ftp.folder, 'packed/a.csv.gz'), gzipSync(`number\n${random}\n`))
    const packed = await tried(ftp, { directory: `${ftp.root}/packed` })
    expect(packed.test).toMatchObject({ ok: true, preview: { error: null } })
    expect(packed.test.preview?.records).toHaveLength(10)
    const wrong = await tried(ftp, {
      directory: `${ftp.root}/packed`,
      format: { type: 'csv', types: { date: 'integer' } },
    })
    expect(wrong.test).toMatchObject({ ok: false, failure: null, preview: { error: expect.stringContaining('date') } })
  })

  test('names the layer that failed', async () => {
    const layers = async (over: Partial<SourceBody>) => (await tried(sftp, over)).test.failure?.layer
    expect(await layers({ host: 'no-such-host.invalid' })).toBe('resolve')
    expect(await layers({ port: 1 })).toBe('connect')
    expect(await layers({ hostKey: `SHA256:${'A'.repeat(43)}` })).toBe('identity')
    expect(await layers({ auth: { kind: 'password', username: 'nobody', password: 'hunter2' } })).toBe('login')
    expect(await layers({ directory: '/no/such/directory' })).toMatch(/directory|list/)
  })

  test('ends in time where a server hangs, and names the layer in which it stood', async () => {
    const many = join(sftp.folder, 'many')
    await mkdir(many)
    for (let file = 0; file < 1_500; file++) await writeFile(join(many, `a file with a long name ${file}.csv`), '')
    await mkdir(join(ftp.folder, 'one'))
    await writeFile(join(ftp.folder, 'one/a.csv'), 'x'.repeat(100_000))
    await using ftpProxied = await startProxies(ftp)
    await using sftpProxied = await startProxies(sftp)
    const hangs: [ProxiedServer, string, layer: string, afterBytes: number][] = [
      [ftpProxied, `${ftp.root}/one`, 'list', 0],
      [ftpProxied, `${ftp.root}/one`, 'read', 1_000],
      [sftpProxied, `${sftp.root}/many`, 'list', 20_000],
      [sftpProxied, `${sftp.root}/many`, 'connect', 0],
    ]
    for (const [proxied, directory, layer, afterBytes] of hangs) {
      const { id } = await under.create({ connection: proxied.connection, root: directory })
      const source = (await sourceById(under.pool, id)) as StoredSource
      const hang = () => proxied.setDataFault({ kind: 'hang', afterBytes, direction: 'from-server' })
      proxied.setDataFault({ kind: 'none' })
      if (layer !== 'read') hang()
      const { spool } = under
      const receive: typeof spool.receive = (chunks) => {
        hang()
        return spool.receive(chunks)
      }
      const deps = { ...under.deps, spool: { ...spool, receive } }
      const { ok, failure } = await testSource(source, deps, { patienceMs: PATIENCE_MS })
      expect([ok, failure?.layer, failure?.reason]).toEqual([false, layer, 'timeout'])
      expect(failure?.message).toContain('after 5 s')
      if (layer !== 'list') continue
      const browsed = browseSource(source, deps, { limit: 5_000, patienceMs: PATIENCE_MS })
      expect(await failureOf(browsed)).toMatchObject({ layer, reason: 'timeout' })
    }
    expect(await readdir(under.spoolDir)).toEqual([])
  }, 90_000)

  test('shows what is in any directory', async () => {
    const { source } = await tried(ftp)
    const root = await browseSource(source, under.deps, { limit: 100 })
    expect(root).toMatchObject({ path: ftp.root, more: false })
    expect(root.entries.map(({ kind, path }) => [kind, path]).sort()).toEqual([
      ['directory', '/files/one'],
      ['directory', '/files/packed'],
      ['file', '/files/a.csv'],
      ['file', '/files/b.part'],
    ])
    const below = await browseSource(source, under.deps, { path: '/files/packed', limit: 100 })
    expect(below.entries.map(({ path }) => path)).toEqual(['/files/packed/a.csv.gz'])
    expect(await browseSource(source, under.deps, { limit: 1 })).toMatchObject({ more: true })
    await expect(browseSource(source, under.deps, { path: '/nowhere', limit: 1 })).rejects.toThrow('Cannot')
  })
})
