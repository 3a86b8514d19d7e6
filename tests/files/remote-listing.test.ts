import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type FileServer, startPureFtpd, startVsftpd } from '../support/ftp-servers.ts'
import { startSshd } from '../support/sshd.ts'
import { all, failureOf, noServers, type RemoteHome, remoteHome, visit } from './remote-home.ts'

const MANY = 50_000
const SAMPLES = 10
/** What may be alive at any moment beyond the beginning, in bytes: all entries together take three times that and more. */
const MOST_ALIVE = 4_000_000

let home: RemoteHome
let server: FileServer | undefined
beforeAll(async () => {
  if (noServers === undefined) home = await remoteHome()
})
afterEach(async () => {
  await server?.[Symbol.asyncDispose]()
  server = undefined
})
afterAll(async () => {
  await home?.[Symbol.asyncDispose]()
}, 180_000)

const certified = () => ({ tls: { certificate: home.certificates.good, mode: 'explicit' as const } })
const SERVERS: [string, () => Promise<FileServer>][] = [
  ['FTP (vsftpd)', () => startVsftpd(home.path)],
  ['FTP (pure-ftpd)', () => startPureFtpd(home.path)],
  ['FTPS (vsftpd)', () => startVsftpd(home.path, certified())],
  ['SFTP (OpenSSH)', () => startSshd(home.path)],
]

describe.skipIf(noServers !== undefined)('a large directory', () => {
  test.each(SERVERS)(
    `%s: ${MANY} entries are streamed, and few are held at a time`,
    async (name, start) => {
      server = await start()
      for (let number = 0; number < MANY; number++) writeFileSync(join(server.folder, `transactions-${number}.csv`), '')
      const { connection, root } = server
      const tls = { ...connection.tls, ca: home.certificates.ca }
      await visit({ ...connection, tls }, async (files) => {
        let count = 0
        const startedAt = performance.now()
        for await (const _entry of files.list(root)) count++
        expect(count).toBe(MANY)
        console.log(`${name}: ${MANY} entries listed in ${Math.round(performance.now() - startedAt)} ms`)

        // Again, with a look at what is alive.
        const before = alive()
        let most = 0
        count = 0
        for await (const _entry of files.list(root)) {
          if (++count % (MANY / SAMPLES) === 0) most = Math.max(most, alive() - before)
        }
        expect(count).toBe(MANY)
        expect(most).toBeLessThan(MOST_ALIVE)
      })
    },
    180_000,
  )

  test('a listing that the server has shortened fails, and does not pass for all that there is', async () => {
    server = await startPureFtpd(home.path, { listLimit: 100 })
    for (let number = 0; number < 200; number++) writeFileSync(join(server.folder, `${number}.csv`), '')
    const { connection, root } = server
    const failure = await failureOf(visit(connection, (files) => all(files.list(root))))
    expect(failure).toMatchObject({ layer: 'list', reason: 'limit' })
    expect(failure.message).toContain('the server left some out')
  })
})

function alive(): number {
  Bun.gc(true)
  return process.memoryUsage().heapUsed
}
