import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import { createHash, randomBytes } from 'node:crypto'
import { readdir, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { DEFAULT_LIMITS, type RemoteFiles, type RemoteLayer } from '../../src/files/remote-files.ts'
import { ManualClock } from '../../src/runtime/clock.ts'
import { createEgress } from '../../src/runtime/egress/egress.ts'
import { startFaultProxy } from '../support/fault-proxy.ts'
import { type ProxiedServer, startProxies } from '../support/file-server-proxy.ts'
import { type FileServer, startPureFtpd, startVsftpd } from '../support/ftp-servers.ts'
import { startSshd } from '../support/sshd.ts'
import { until } from '../support/until.ts'
import { all, bytesOf, connect, failureOf, noServers, type RemoteHome, remoteHome, visit } from './remote-home.ts'

const SIZE = 4_000_000
/** Long enough for a server on a busy machine, and short enough to wait for. */
const IDLE_MS = 1_000
const CONNECT_MS = 5_000

const explicit = ({ certificates }: RemoteHome) => ({
  tls: { certificate: certificates.good, mode: 'explicit' as const },
})
const SERVERS: [string, (home: RemoteHome) => Promise<FileServer>][] = [
  ['FTP (vsftpd)', (home) => startVsftpd(home.path)],
  ['FTP (pure-ftpd)', (home) => startPureFtpd(home.path)],
  ['FTPS (vsftpd)', (home) => startVsftpd(home.path, explicit(home))],
  ['FTPS (pure-ftpd)', (home) => startPureFtpd(home.path, explicit(home))],
  ['SFTP (OpenSSH)', (home) => startSshd(home.path)],
]

describe.skipIf(noServers !== undefined).each(SERVERS)('a bad network before %s', (_, start) => {
  let home: RemoteHome
  let server: FileServer
  let proxied: ProxiedServer
  const content = randomBytes(SIZE)
  const at = (name: string) => (server.root === '/' ? `/${name}` : `${server.root}/${name}`)
  const connection = () => ({
    ...proxied.connection,
    tls: { ...proxied.connection.tls, ca: home.certificates.ca },
  })
  const opened = () => connect(connection())
  /** For what hangs to be told soon. */
  const impatient = () => connect(connection(), { limits: { ...DEFAULT_LIMITS, idleTimeoutMs: IDLE_MS } })

  beforeAll(async () => {
    home = await remoteHome()
    server = await start(home)
    await writeFile(join(server.folder, 'big.bin'), content)
  })
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]()
    await home?.[Symbol.asyncDispose]()
  })
  beforeEach(async () => {
    proxied = await startProxies(server)
  })
  afterEach(async () => {
    await proxied[Symbol.asyncDispose]()
  })

  /** Takes a file until it fails, as a caller does who means to go on where it stopped. */
  async function readUntilFailure(files: RemoteFiles) {
    const chunks: Uint8Array[] = []
    const failure = await failureOf(
      (async () => {
        for await (const chunk of files.read(at('big.bin'))) chunks.push(Buffer.from(chunk))
      })(),
    )
    return { failure, received: Buffer.concat(chunks) }
  }

  test('a connection that is cut at half of a file fails the read, and a new one goes on where it stopped', async () => {
    const files = await opened()
    proxied.setDataFault({ kind: 'cut', afterBytes: SIZE / 2, direction: 'from-server' })
    const { failure, received } = await readUntilFailure(files)
    await files.close()
    expect(failure).toMatchObject({ layer: 'read', reason: 'closed' })
    expect(failure.message).toStartWith(`Cannot read "${at('big.bin')}" at `)
    expect(received.length).toBeGreaterThan(0)
    expect(received.length).toBeLessThanOrEqual(SIZE / 2)
    proxied.setDataFault({ kind: 'none' })
    const rest = await visit(connection(), (again) => bytesOf(again.read(at('big.bin'), { offset: received.length })))
    expect(sha256(received, rest)).toBe(sha256(content))
    await until(() => proxied.open === 0, { what: 'every connection to be closed' })
  })

  test('a server that hangs in the middle of a file fails the read in time', async () => {
    const files = await impatient()
    proxied.setDataFault({ kind: 'hang', afterBytes: SIZE / 2, direction: 'from-server' })
    const startedAt = performance.now()
    const { failure } = await readUntilFailure(files)
    expect(failure).toMatchObject({ layer: 'read', reason: 'timeout' })
    expect(failure.message).toEndWith(`: the server was silent for ${IDLE_MS} ms`)
    expect(performance.now() - startedAt).toBeLessThan(IDLE_MS + 15_000)
    expect(await failureOf(files.stat(at('big.bin')))).toMatchObject({ reason: 'closed' })
    await files.close()
  })

  test('a server that hangs in the middle of a listing fails the listing in time', async () => {
    const many = Array.from({ length: 300 }, (_, index) => `file number ${index}.csv`)
    for (const name of many) await writeFile(join(server.folder, name), '')
    const files = await impatient()
    proxied.setDataFault({ kind: 'hang', afterBytes: 4_000, direction: 'from-server' })
    const failure = await failureOf(all(files.list(server.root)))
    await files.close()
    expect(failure).toMatchObject({ layer: 'list', reason: 'timeout' })
    expect(failure.message).toStartWith(`Cannot list "${server.root}" at `)
    for (const name of await readdir(server.folder)) if (name !== 'big.bin') await rm(join(server.folder, name))
  })

  test('a server that never answers fails every call in its own layer', async () => {
    const calls: [layer: RemoteLayer, call: (files: RemoteFiles) => Promise<unknown>][] = [
      ['read', (files) => files.stat(at('big.bin'))],
      ['read', (files) => bytesOf(files.read(at('big.bin')))],
      ['directory', (files) => all(files.list(server.root))],
      ['write', (files) => files.move(at('big.bin'), at('moved.bin'))],
      ['write', (files) => files.remove(at('big.bin'))],
      ['write', (files) => files.makeDirectory(at('made'))],
    ]
    const connections = await Promise.all(calls.map(impatient))
    proxied.control.setFault({ kind: 'hang', afterBytes: 0 })
    const failures = await Promise.all(
      calls.map(([, call], index) => failureOf(call(connections[index] as RemoteFiles))),
    )
    expect(failures.map(({ layer, reason }) => [layer, reason])).toEqual(calls.map(([layer]) => [layer, 'timeout']))
    await Promise.all(connections.map((files) => files.close()))
    // What hangs must not come after all.
    proxied.control.cutAll()
    expect(await readdir(server.folder)).toEqual(['big.bin'])
  })

  test('a connect that hangs at any byte ends in time, names its layer, and leaves nothing open', async () => {
    // Greetings, handshakes and logins are of different lengths: some of these lie in each.
    const layers = await Promise.all(
      [0, 100, 500, 1_000, 1_500, 1_900].map(async (afterBytes) => {
        await using proxy = await startFaultProxy({ host: '127.0.0.1', port: server.port })
        proxy.setFault({ kind: 'hang', afterBytes, direction: 'from-server' })
        const to = { ...connection(), host: proxy.host, port: proxy.port }
        // The last of these may be more than it takes to log in.
        const attempt = connect(to, { limits: { connectTimeoutMs: CONNECT_MS } }).then((files) => files.close())
        const failure = await failureOf(attempt).catch(() => undefined)
        if (failure) {
          expect(failure.message).toContain(`did not come within ${CONNECT_MS} ms`)
        }
        proxy.setFault({ kind: 'none' })
        await until(() => proxy.open === 0, { what: 'the connection to be closed' })
        return failure?.layer
      }),
    )
    expect(layers).toContain('connect')
    expect(layers).toContain('login')
    if (server.connection.protocol === 'ftps') expect(layers).toContain('tls')
  })

  test('a connection that is cut between two calls fails the next one', async () => {
    const files = await opened()
    proxied.control.cutAll()
    await until(() => proxied.open === 0)
    expect(await failureOf(files.stat(at('big.bin')))).toMatchObject({ layer: 'read', reason: 'closed' })
    expect(await failureOf(bytesOf(files.read(at('big.bin'))))).toMatchObject({ layer: 'read', reason: 'closed' })
    await files.close()
  })

  test('an abort does not wait for a server that hangs', async () => {
    const files = await opened()
    proxied.setDataFault({ kind: 'hang', afterBytes: SIZE / 2, direction: 'from-server' })
    const reason = new Error('stopped')
    const stop = new AbortController()
    let received = 0
    const reading = (async () => {
      for await (const chunk of files.read(at('big.bin'), { signal: stop.signal })) received += chunk.length
    })()
    await until(() => received > 500_000)
    const startedAt = performance.now()
    stop.abort(reason)
    expect(await reading.catch((error: unknown) => error)).toBe(reason)
    expect(performance.now() - startedAt).toBeLessThan(5_000)
    await files.close()
    proxied.setDataFault({ kind: 'none' })
    await until(() => proxied.open === 0, { what: 'every connection to be closed' })
  })

  test('an abort ends a connect that hangs', async () => {
    proxied.control.setFault({ kind: 'hang', afterBytes: 0 })
    const reason = new Error('stopped')
    const stop = new AbortController()
    const connecting = connect(connection(), { signal: stop.signal })
    await until(() => proxied.open > 0)
    stop.abort(reason)
    expect(await connecting.catch((error: unknown) => error)).toBe(reason)
    proxied.control.setFault({ kind: 'none' })
    await until(() => proxied.open === 0, { what: 'every connection to be closed' })
  })

  test('a slow network only takes longer', async () => {
    proxied.control.setFault({ kind: 'delay', ms: 5 })
    proxied.setDataFault({ kind: 'delay', ms: 5 })
    const bytes = await visit(connection(), (files) => bytesOf(files.read(at('big.bin'))))
    expect(sha256(bytes)).toBe(sha256(content))
  })

  test('a taker who takes for ever to take is not a server that is silent', async () => {
    const clock = new ManualClock()
    const bytes: Uint8Array[] = []
    await visit(
      connection(),
      async (files) => {
        for await (const chunk of files.read(at('big.bin'))) {
          bytes.push(Buffer.from(chunk))
          clock.advance(3_600_000)
        }
      },
      { clock },
    )
    expect(sha256(...bytes)).toBe(sha256(content))
  })
})

describe('a server that cannot be reached', () => {
  const login = {
    auth: { kind: 'password', username: 'joe', password: 'secret' },
    tls: { verify: true, minVersion: 'TLSv1.2' },
    passiveHost: 'control',
  } as const

  test.each(['ftp', 'ftps', 'ftps-implicit', 'sftp'] as const)('%s: each way is told apart', async (protocol) => {
    const vacant = await vacantPort()
    const refused = await failureOf(connect({ ...login, protocol, host: '127.0.0.1', port: vacant }))
    expect(refused).toMatchObject({ layer: 'connect', reason: 'refused' })
    expect(refused.message).toBe(
      `Cannot connect at ${protocol}://127.0.0.1:${vacant}: nothing listens there (are host and port right, and is the server running?)`,
    )
    const missing = Object.assign(new Error('getaddrinfo ENOTFOUND'), { code: 'ENOTFOUND' })
    const unknown = createEgress({ allow: [], allowPrivate: true }, () => Promise.reject(missing))
    const to = { ...login, protocol, host: 'nowhere.test', port: vacant }
    expect(await failureOf(connect(to, { guard: unknown }))).toMatchObject({
      layer: 'resolve',
      reason: 'refused',
      message: expect.stringContaining('the host name is unknown'),
    })
  })

  test('addresses that may not be reached are not dialled, by whatever name', async () => {
    let accepted = 0
    const listener = createServer(() => accepted++)
    await new Promise<void>((done) => listener.listen(0, '127.0.0.1', done))
    const { port } = listener.address() as { port: number }
    const guard = createEgress({ allow: [], allowPrivate: false }, async () => [{ address: '127.0.0.1', family: 4 }])
    for (const host of ['127.0.0.1', 'localhost', 'inner.test', '2130706433', '::ffff:127.0.0.1', '']) {
      for (const protocol of ['ftp', 'sftp'] as const) {
        const failure = await failureOf(connect({ ...login, protocol, host, port }, { guard }))
        expect(failure).toMatchObject({ layer: 'resolve', reason: 'forbidden' })
      }
    }
    expect(accepted).toBe(0)
    await new Promise((done) => listener.close(done))
  })
})

function sha256(...parts: Uint8Array[]): string {
  const digest = createHash('sha256')
  for (const part of parts) digest.update(part)
  return digest.digest('hex')
}

async function vacantPort(): Promise<number> {
  const probe = createServer()
  await new Promise<void>((done) => probe.listen(0, '127.0.0.1', done))
  const { port } = probe.address() as { port: number }
  await new Promise((done) => probe.close(done))
  return port
}
