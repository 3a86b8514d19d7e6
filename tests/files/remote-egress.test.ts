import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createEgress } from '../../src/runtime/egress/egress.ts'
import { type FileServer, startPureFtpd, startVsftpd } from '../support/ftp-servers.ts'
import { all, bytesOf, failureOf, noServers, type RemoteHome, remoteHome, visit } from './remote-home.ts'

/** Permits one name, and no address. */
const guard = createEgress({ allow: ['files.test'], allowPrivate: false }, async () => [
  { address: '127.0.0.1', family: 4 },
])
const explicit = ({ certificates }: RemoteHome) => ({
  tls: { certificate: certificates.good, mode: 'explicit' as const },
})
const SERVERS: [string, (home: RemoteHome) => Promise<FileServer>][] = [
  ['FTP (vsftpd)', (home) => startVsftpd(home.path)],
  ['FTP (pure-ftpd)', (home) => startPureFtpd(home.path)],
  ['FTPS (vsftpd)', (home) => startVsftpd(home.path, explicit(home))],
]

describe.skipIf(noServers !== undefined).each(SERVERS)('%s at a private address that its name permits', (_, start) => {
  let home: RemoteHome
  let server: FileServer
  const at = (name: string) => (server.root === '/' ? `/${name}` : `${server.root}/${name}`)
  const connection = () => ({
    ...server.connection,
    host: 'files.test',
    tls: { ...server.connection.tls, fingerprint: home.certificates.good.fingerprint },
  })
  beforeAll(async () => {
    home = await remoteHome()
    server = await start(home)
    await writeFile(join(server.folder, 'a.csv'), 'id\n1\n')
  })
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]()
    await home?.[Symbol.asyncDispose]()
  })

  test('is listed and read, over data connections to the address that was dialled', async () => {
    const [names, bytes] = await visit(
      connection(),
      async (files) => [
        (await all(files.list(server.root))).map((entry) => 'path' in entry && entry.path),
        await bytesOf(files.read(at('a.csv'))),
      ],
      { guard },
    )
    expect(names).toEqual([at('a.csv')])
    expect(String(bytes)).toBe('id\n1\n')
  })

  test('sends nobody to an address that it announces: that one no name permits', async () => {
    const announced = { ...connection(), passiveHost: 'announced' as const }
    const failure = await failureOf(visit(announced, (files) => all(files.list(server.root)), { guard }))
    expect(failure).toMatchObject({ layer: 'resolve', reason: 'forbidden' })
  })
})
