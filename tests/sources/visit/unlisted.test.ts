import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { chmod, mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { noServers, type RemoteHome } from '../../files/remote-home.ts'
import { type FileServer, startPureFtpd, startVsftpd } from '../../support/ftp-servers.ts'
import { startSshd } from '../../support/sshd.ts'
import { type ServerUnderTest, serverUnderTest } from '../sources-under-test.ts'

const KINDS: [string, (home: RemoteHome) => Promise<FileServer>][] = [
  ['vsftpd', (home) => startVsftpd(home.path)],
  ['pure-ftpd', (home) => startPureFtpd(home.path)],
  ['OpenSSH', (home) => startSshd(home.path)],
]

describe.skipIf(noServers !== undefined).each(KINDS)('a directory that %s does not let us list', (_name, start) => {
  let place: ServerUnderTest
  beforeAll(async () => {
    place = await serverUnderTest(start)
  })
  afterAll(() => place[Symbol.asyncDispose]())

  test.each([
    ['enter', 0o700],
    ['read', 0o711],
  ])('for we may not %s it, is told, and what lies beside it is fetched', async (what, mode) => {
    const { server, under } = place
    const folder = join(server.folder, what)
    const root = `${server.root === '/' ? '' : server.root}/${what}`
    for (const name of ['', 'a', 'closed', 'closed/deep', 'z']) await mkdir(join(folder, name))
    for (const name of ['a/1.csv', 'closed/2.csv', 'closed/deep/3.csv', 'z/4.csv']) {
      await writeFile(join(folder, name), `id\n${name}\n`)
    }
    const source = await under.create({ ...server, root }, { recursive: true, ready: { kind: 'stable', listings: 9 } })
    expect(await under.poll(source)).toMatchObject({ files: 4, error: null, refused: { count: 0 } })

    await chmod(join(folder, 'closed'), mode)
    const report = await under.poll(source)
    expect(report).toMatchObject({ files: 2, error: null })
    expect(report.refused).toEqual({
      count: 1,
      first: [{ name: `${root}/closed`, reason: expect.stringMatching(/^Cannot (enter|list) /) }],
    })
    const paths = async () => (await under.files(source)).map(({ path }) => path.slice(root.length))
    expect(await paths()).toEqual(['/a/1.csv', '/closed/2.csv', '/closed/deep/3.csv', '/z/4.csv'])

    await under.sources.patch(source.id, { ready: { kind: 'at-once' } })
    expect(await under.poll(source)).toMatchObject({ error: null, fetched: 2 })
    await rm(join(folder, 'closed/2.csv'))
    await chmod(join(folder, 'closed'), 0o755)
    expect(await under.poll(source)).toMatchObject({ fetched: 1, refused: { count: 0 } })
    expect(await paths()).toEqual(['/a/1.csv', '/closed/deep/3.csv', '/z/4.csv'])
  })

  test('that is the polled one itself fails the poll, and nothing is forgotten', async () => {
    const { server, under } = place
    const folder = join(server.folder, 'top')
    await mkdir(folder)
    await writeFile(join(folder, 'a.csv'), '')
    const root = `${server.root === '/' ? '' : server.root}/top`
    const source = await under.create({ ...server, root }, { recursive: true })
    await under.poll(source)
    await chmod(folder, 0o700)
    expect((await under.poll(source)).error?.message).toStartWith(`Cannot enter "${root}" at `)
    expect(await under.files(source)).toHaveLength(1)
  })
})
