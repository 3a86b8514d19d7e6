import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { createHash } from 'node:crypto'
import { chown, mkdir, readFile, rm, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { noServers, type RemoteHome } from '../../files/remote-home.ts'
import { type FileServer, servers, startPureFtpd, startVsftpd } from '../../support/ftp-servers.ts'
import { startSshd } from '../../support/sshd.ts'
import { type ServerUnderTest, type SourcesUnderTest, serverUnderTest } from '../sources-under-test.ts'

const CSV = 'id,amount\n1,10.50\n2,20.00\n'
const sha256 = (text: string) => createHash('sha256').update(text).digest('hex')

/** pure-ftpd does not list names with control characters at all. */
const KINDS: [string, (home: RemoteHome) => Promise<FileServer>, { listed: number }][] = [
  ['vsftpd', (home) => startVsftpd(home.path), { listed: 1 }],
  ['pure-ftpd', (home) => startPureFtpd(home.path), { listed: 0 }],
  ['OpenSSH', (home) => startSshd(home.path), { listed: 1 }],
]

describe.skipIf(noServers !== undefined).each(KINDS)('a poll of %s', (_name, start, { listed }) => {
  let place: ServerUnderTest
  let server: FileServer
  let under: SourcesUnderTest
  beforeAll(async () => {
    place = await serverUnderTest(start)
    ;({ server, under } = place)
  })
  afterAll(() => place[Symbol.asyncDispose]())

  /** An empty folder at the server, and a source on it. */
  async function folder(name: string, over: Parameters<SourcesUnderTest['create']>[1] = {}) {
    const path = join(server.folder, name)
    await mkdir(path)
    await chown(path, servers().user.uid, servers().user.gid)
    const directory = `${server.root === '/' ? '' : server.root}/${name}`
    const source = await under.create(server, { directory, ...over })
    return {
      path,
      directory,
      source,
      write: (file: string, text: string | Uint8Array) => writeFile(join(path, file), text),
      touch: (file: string, time: string) => utimes(join(path, file), new Date(time), new Date(time)),
      remove: (file: string) => rm(join(path, file)),
      poll: (when?: { atOnce: true }) => under.poll(source, when),
      pollTwice: () => under.pollTwice(source),
      files: () => under.files(source),
    }
  }

  test('makes one import of a file when two listings in a row tell the same', async () => {
    const { write, poll, files, source, directory } = await folder('one')
    await write('a b "c" ü.csv', CSV)
    expect(await poll()).toMatchObject({ files: 1, new: 1, incomplete: 1, fetched: 0, error: null })
    const report = await poll()
    expect(report).toMatchObject({ new: 0, changed: 0, incomplete: 0, fetched: 1, bytes: CSV.length, error: null })
    const [file] = await files()
    expect(file).toMatchObject({
      path: `${directory}/a b "c" ü.csv`,
      status: 'importing',
      size: CSV.length,
      sha256: sha256(CSV),
      generation: 1,
    })
    const imports = await under.imports()
    expect(imports.at(-1)).toMatchObject({
      id: file?.task as string,
      queue: 'ftp.csv',
      payload: { fileId: file?.id, sourceId: source.id, source: source.name, size: CSV.length, contentType: 'csv' },
    })
    expect(await readFile(under.spool.pathOf(file?.spool ?? ''), 'utf8')).toBe(CSV)
  })

  test('does not read an unchanged file again, and a changed one is a new generation', async () => {
    const { write, touch, pollTwice, poll, files } = await folder('again')
    await write('a.csv', CSV)
    await touch('a.csv', '2025-01-31T10:00:10Z')
    await pollTwice()
    for (let times = 0; times < 3; times++) {
      expect(await poll({ atOnce: true })).toMatchObject({ new: 0, changed: 0, fetched: 0 })
    }
    // Of the same size, and, where a listing tells minutes or days only, at the same time.
    await write('a.csv', CSV.replace('10.50', '99.99'))
    await touch('a.csv', '2025-01-31T10:00:40Z')
    expect(await poll()).toMatchObject({ changed: 1, fetched: 0 })
    expect(await poll()).toMatchObject({ changed: 0, fetched: 1 })
    const rows = await files()
    expect(rows.map(({ generation, status }) => ({ generation, status }))).toEqual([
      { generation: 1, status: 'importing' },
      { generation: 2, status: 'importing' },
    ])
    expect(rows[1]?.sha256).toBe(sha256(CSV.replace('10.50', '99.99')))
    expect(await poll()).toMatchObject({ changed: 0, fetched: 0 })
  })

  test('leaves a file alone that grows over five polls, and does not wait for it', async () => {
    const { write, poll, files } = await folder('grows')
    await write('ready.csv', CSV)
    let text = 'id\n'
    for (let round = 1; round <= 5; round++) {
      text += `${round}\n`
      await write('slow.csv', text)
      const report = await poll()
      expect(report).toMatchObject({ incomplete: round === 1 ? 2 : 1, fetched: round === 2 ? 1 : 0 })
    }
    expect(await poll()).toMatchObject({ incomplete: 0, fetched: 1 })
    expect((await files()).map(({ status, sha256: sum }) => [status, sum])).toEqual([
      ['importing', sha256(CSV)],
      ['importing', sha256(text)],
    ])
  })

  test('forgets a file that vanishes before it is complete, and takes it anew when it comes back', async () => {
    const { write, remove, poll, pollTwice, files } = await folder('vanishes')
    await write('a.csv', CSV)
    await poll()
    await remove('a.csv')
    await poll()
    expect(await files()).toEqual([])
    await write('a.csv', CSV)
    expect(await pollTwice()).toMatchObject({ fetched: 1 })
  })

  test('leaves temporary names and what is not included, and shows names that cannot be used', async () => {
    const { write, poll, pollTwice } = await folder('names', { include: ['*.csv', '*.json'] })
    for (const name of ['a.csv', 'b.csv.part', '.c.csv', 'd.txt', 'e.JSON', 'f.json']) await write(name, CSV)
    expect(await pollTwice()).toMatchObject({ files: 2, fetched: 2, refused: { count: 0 } })
    await write('g\u0007.csv', CSV)
    const { refused, files, error } = await poll()
    expect({ files, error }).toEqual({ files: 2, error: null })
    expect(refused.count).toBe(listed)
    for (const { reason } of refused.first) expect(reason).toContain('control character')
  })

  test('takes a file at its marker, and a changed one not for its old marker alone', async () => {
    const { write, poll, files } = await folder('marked', { ready: { kind: 'marker', suffix: '.done' } })
    await write('a.csv', CSV)
    await poll()
    expect(await poll()).toMatchObject({ fetched: 0, incomplete: 1 })
    await write('a.csv.done', '')
    expect(await poll()).toMatchObject({ fetched: 1, files: 1 })
    await write('a.csv', `${CSV}3,30.00\n`)
    expect(await poll()).toMatchObject({ changed: 1, fetched: 0, incomplete: 1 })
    await write('a.csv.done', 'again')
    expect(await poll()).toMatchObject({ fetched: 1 })
    await write('a.csv', `${CSV}3,30.00\n4,40.00\n`)
    expect(await poll()).toMatchObject({ fetched: 0 })
    // Nobody touches the marker: two equal listings will do.
    expect(await poll()).toMatchObject({ fetched: 1 })
    expect(await files()).toHaveLength(3)
  })

  test('flags a file whose content was there under another name, or skips it where the source says so', async () => {
    const flags = await folder('flags', { ready: { kind: 'at-once' } })
    await flags.write('a.csv', CSV)
    await flags.poll()
    await flags.write('b.csv', CSV)
    expect(await flags.poll()).toMatchObject({ fetched: 1 })
    const [a, b] = await flags.files()
    expect(b).toMatchObject({ status: 'importing', duplicate_of: a?.id as string })

    const skips = await folder('skips', { ready: { kind: 'at-once' }, duplicates: 'skip', connections: 4 })
    for (const name of ['a', 'b', 'c', 'd']) await skips.write(`${name}.csv`, CSV)
    await skips.poll()
    const rows = await skips.files()
    expect(rows.map(({ status }) => status).sort()).toEqual(['importing', 'skipped', 'skipped', 'skipped'])
    const first = rows.find(({ status }) => status === 'importing')
    for (const row of rows) expect(row.duplicate_of).toBe(row === first ? null : (first?.id as string))
  })

  test('refuses what is too large, and leaves what has no known format', async () => {
    const { write, poll, files } = await folder('limits', {
      ready: { kind: 'at-once' },
      limits: { fileBytes: 20, filesPerPoll: 3 },
    })
    await write('a.csv', CSV)
    await write('b.bin', 'x')
    await write('c.csv', '')
    await write('d.csv', 'id\n1\n')
    const first = await poll()
    // Which three of them is the server's order.
    expect([first.fetched + first.failed.count, first.left]).toEqual([3, 1])
    await poll()
    const rows = (await files()).map(({ path, status, error }) => [path.slice(-5), status, error])
    expect(rows).toEqual([
      ['a.csv', 'failed', 'It has more than 20 bytes: raise "limits.fileBytes" if that is right'],
      ['b.bin', 'skipped', expect.stringContaining('format is not known')],
      ['c.csv', 'importing', null],
      ['d.csv', 'importing', null],
    ])
  })

  test('looks below the directory when asked, but not where imported files are moved to', async () => {
    const { path, write, poll, files } = await folder('tree', {
      ready: { kind: 'at-once' },
      recursive: true,
      include: ['*.csv'],
      exclude: ['old'],
      after: { kind: 'move', to: 'done' },
    })
    for (const name of ['sub', 'sub/deep', 'done', 'old']) await mkdir(join(path, name))
    for (const name of ['a.csv', 'sub/b.csv', 'sub/deep/c.csv', 'done/d.csv', 'old/e.csv']) await write(name, name)
    expect(await poll()).toMatchObject({ files: 3, fetched: 3 })
    expect((await files()).map((file) => file.path.slice(-10))).toEqual([
      expect.stringContaining('/a.csv'),
      expect.stringContaining('sub/b.csv'),
      expect.stringContaining('deep/c.csv'),
    ])
  })

  test('knows a file by its listing even when years later its text has no time of day any more', async () => {
    const { write, touch, pollTwice, poll, files } = await folder('old')
    await write('a.csv', CSV)
    await touch('a.csv', '2019-01-31T10:00:00Z')
    await pollTwice()
    const [file] = await files()
    // As the listing told it half a year after it was written.
    await under.pool.query(`update files set modified = 'Jan 31 10:00' where id = $1 and modified not like '%T%'`, [
      file?.id,
    ])
    expect(await poll()).toMatchObject({ changed: 0, new: 0, fetched: 0 })
    expect(await files()).toHaveLength(1)
  })
})
