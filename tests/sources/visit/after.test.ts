import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { chmod, chown, mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { noServers, type RemoteHome } from '../../files/remote-home.ts'
import { type FileServer, servers, startPureFtpd, startVsftpd } from '../../support/ftp-servers.ts'
import { startSshd } from '../../support/sshd.ts'
import { type FileRow, type ServerUnderTest, type SourcesUnderTest, serverUnderTest } from '../sources-under-test.ts'

const KINDS: [string, (home: RemoteHome) => Promise<FileServer>][] = [
  ['vsftpd', (home) => startVsftpd(home.path)],
  ['pure-ftpd', (home) => startPureFtpd(home.path)],
  ['OpenSSH', (home) => startSshd(home.path)],
]

describe.skipIf(noServers !== undefined).each(KINDS)('after an import, at %s', (_name, start) => {
  let place: ServerUnderTest
  let server: FileServer
  let under: SourcesUnderTest
  beforeAll(async () => {
    place = await serverUnderTest(start)
    ;({ server, under } = place)
  })
  afterAll(() => place[Symbol.asyncDispose]())

  async function folder(name: string, over: Parameters<SourcesUnderTest['create']>[1]) {
    const path = join(server.folder, name)
    await mkdir(path)
    await chown(path, servers().user.uid, servers().user.gid)
    const directory = `${server.root === '/' ? '' : server.root}/${name}`
    const source = await under.create(server, { directory, ready: { kind: 'at-once' }, ...over })
    return {
      path,
      source,
      write: (file: string, text: string) => writeFile(join(path, file), text),
      poll: () => under.poll(source),
      files: () => under.files(source),
      /** Its last batch is committed. */
      async imported(): Promise<void> {
        for (const file of await under.files(source)) if (file.status === 'importing') await under.imported(file)
      },
      async failed(): Promise<void> {
        await under.pool.query(
          `update files set status = 'failed', after = 'pending', after_at = now() where source = $1 and status = 'importing'`,
          [source.id],
        )
      },
      last: async (): Promise<FileRow> => (await under.files(source)).at(-1) as FileRow,
    }
  }

  test('the file is moved, and a later one of its name beside it', async () => {
    const { path, write, poll, imported, files } = await folder('moves', { after: { kind: 'move', to: 'done/here' } })
    for (const text of ['id\n1\n', 'id\n22\n']) {
      await write('a b.csv', text)
      await poll()
      expect(await readdir(path)).toContain('a b.csv')
      await imported()
      await poll()
    }
    expect(await readdir(path)).toEqual(['done'])
    const moved = await files()
    expect(moved.map(({ after }) => after)).toEqual(['done', 'done'])
    const names = moved.map(({ location }) => location?.split('/').at(-1) as string)
    expect(names).toEqual(['a b.csv', `a b-${moved[1]?.id.slice(-12)}.csv`])
    expect((await readdir(join(path, 'done/here'))).sort()).toEqual([...names].sort())
    const texts = await Promise.all(names.map((name) => readFile(join(path, 'done/here', name), 'utf8')))
    expect(texts).toEqual(['id\n1\n', 'id\n22\n'])
  })

  test('nothing can be done in a read-only directory: it is shown and tried again, and nothing is imported twice', async () => {
    const { path, source, write, poll, imported, last, files } = await folder('read-only', {
      after: { kind: 'move', to: 'done' },
    })
    await write('a.csv', 'id\n1\n')
    await poll()
    await imported()
    await chmod(path, 0o555)
    for (let times = 1; times <= 3; times++) {
      expect(await poll()).toMatchObject({ error: null, new: 0, changed: 0, fetched: 0 })
      expect(await last()).toMatchObject({
        status: 'done',
        after: 'pending',
        after_error: expect.stringContaining('Cannot'),
      })
      await under.allDue()
    }
    expect(await files()).toHaveLength(1)
    expect((await under.imports()).filter(({ payload }) => payload.sourceId === source.id)).toHaveLength(1)
    await chmod(path, 0o755)
    await poll()
    expect(await last()).toMatchObject({ after: 'done', after_error: null })
    expect(await readdir(path)).toEqual(['done'])
  })

  test('another version that lies there by now is left alone', async () => {
    const { path, write, poll, imported, files } = await folder('newer', { after: { kind: 'delete' } })
    await write('a.csv', 'id\n1\n')
    await poll()
    await imported()
    await write('a.csv', 'id\n1\n2\n')
    await poll()
    expect(await readdir(path)).toEqual(['a.csv'])
    expect(await files()).toMatchObject([
      { after: 'moot', after_error: 'Another version lies in its place by now' },
      { generation: 2, status: 'importing' },
    ])
    await imported()
    await poll()
    expect(await readdir(path)).toEqual([])
  })

  test('a file that could not be imported goes to its own folder, and a marker goes where its file goes', async () => {
    const { path, write, poll, failed, imported } = await folder('fails', {
      ready: { kind: 'marker' },
      after: { kind: 'delete' },
      failed: { kind: 'move', to: 'broken' },
    })
    await write('a.csv', 'id\n1\n')
    await write('a.csv.done', '')
    await poll()
    await failed()
    await poll()
    expect(await readdir(path)).toEqual(['broken'])
    expect((await readdir(join(path, 'broken'))).sort()).toEqual(['a.csv', 'a.csv.done'])

    await write('b.csv', 'id\n1\n')
    await write('b.csv.done', '')
    await poll()
    await imported()
    await poll()
    expect(await readdir(path)).toEqual(['broken'])
  })

  test('a server that cannot be reached is tried again later, for files alone, too', async () => {
    const { source, write, poll, imported, last } = await folder('away', { after: { kind: 'delete' } })
    await write('a.csv', 'id\n1\n')
    await poll()
    await imported()
    const settings = { ...(await under.read(source)).settings, port: 1 }
    await under.pool.query('update sources set settings = $2 where id = $1', [source.id, settings])
    await under.poll(source, { poll: false })
    expect(await last()).toMatchObject({ after: 'pending', after_error: expect.stringContaining('Cannot') })
  })
})
