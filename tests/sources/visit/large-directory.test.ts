import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { closeSync, openSync, utimesSync } from 'node:fs'
import { join } from 'node:path'
import { noServers, type RemoteHome, remoteHome } from '../../files/remote-home.ts'
import { type FileServer, startPureFtpd, startVsftpd } from '../../support/ftp-servers.ts'
import { startSshd } from '../../support/sshd.ts'
import { type SourcesUnderTest, sourcesUnderTest } from '../sources-under-test.ts'

const FILES = 50_000
const KINDS: [string, (home: RemoteHome) => Promise<FileServer>][] = [
  ['FTP that lists as ls does', (home) => startVsftpd(home.path)],
  ['FTP with machine-readable listings', (home) => startPureFtpd(home.path)],
  ['SFTP', (home) => startSshd(home.path)],
]

describe.skipIf(noServers !== undefined).each(KINDS)(`a directory of ${FILES} files (%s)`, (_, start) => {
  let home: RemoteHome
  let server: FileServer
  let under: SourcesUnderTest
  beforeAll(async () => {
    home = await remoteHome()
    server = await start(home)
    under = await sourcesUnderTest()
    for (let file = 0; file < FILES; file++) {
      const path = join(server.folder, `transactions-of-a-day-${String(file).padStart(6, '0')}.csv`)
      closeSync(openSync(path, 'w'))
      utimesSync(path, file, file)
    }
  }, 180_000)
  afterAll(async () => {
    await under[Symbol.asyncDispose]()
    await server[Symbol.asyncDispose]()
    await home[Symbol.asyncDispose]()
  }, 180_000)

  test('is polled whole when there is nothing new, and a new file is found', async () => {
    const source = await under.create(server, { ready: { kind: 'stable', listings: 10 } })
    const first = await under.poll(source)
    expect(first).toMatchObject({ files: FILES, new: FILES, incomplete: FILES, error: null })
    await under.pool.query(`update files set status = 'done' where source = $1`, [source.id])
    await under.pool.query('analyze files')
    const nothing = await under.poll(source)
    expect(nothing).toMatchObject({ files: FILES, new: 0, changed: 0, error: null })
    closeSync(openSync(join(server.folder, 'new.csv'), 'w'))
    expect(await under.poll(source)).toMatchObject({ files: FILES + 1, new: 1, changed: 0 })
  }, 120_000)
})
