import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import net, { type AddressInfo } from 'node:net'
import { type Sink, startSink } from '../support/sink.ts'
import { until } from '../support/until.ts'
import { attemptHttp, httpTarget } from './http-attempt.ts'

let sink: Sink
beforeEach(async () => {
  sink = await startSink()
})
afterEach(() => sink.close())

/** Sooner than an idle connection would be closed anyway. */
const nobodyIsLeft = () =>
  until(() => sink.connections.open === 0, { what: 'the connection to be closed', timeoutMs: 3_500 })

describe('what the guard refuses is dead at once, and nothing is sent', () => {
  const closed = { allow: [], allowPrivate: false }
  const open = { allow: [], allowPrivate: true }

  test.each([
    ['a decimal host', () => `http://2130706433:${sink.port}/`],
    ['an octal host', () => `http://0177.0.0.1:${sink.port}/`],
    ['a hexadecimal host', () => `http://0x7f.1:${sink.port}/`],
    ['a mapped address', () => `http://[::ffff:127.0.0.1]:${sink.port}/`],
    ['a private address', () => sink.url()],
    ['a name for loopback', () => `http://localhost:${sink.port}/`],
    ['a name that resolves to loopback', () => sink.url('/', 'inner.test')],
    ['a name that resolves to a mapped loopback address', () => sink.url('/', 'mapped.test')],
  ])('%s', async (_, url) => {
    const run = httpTarget({ 'inner.test': ['127.0.0.1'], 'mapped.test': ['::ffff:127.0.0.1'] }, closed)
    const before = sink.connections.opened
    const outcome = await attemptHttp({ url: url() }, { run })
    expect(outcome).toMatchObject({ kind: 'failed', retryable: false })
    expect(outcome).toHaveProperty('error', expect.stringMatching(/^POST .* was not sent: .*loopback/))
    expect(sink.connections.opened).toBe(before)
  })

  test.each([
    'http://169.254.169.254/latest/meta-data',
    'http://2852039166/',
    'http://[fd00:ec2::254]/',
    'http://meta.test/',
  ])('the metadata address of %s, even where private addresses are permitted', async (url) => {
    const run = httpTarget({ 'meta.test': ['169.254.169.254'] }, open)
    const outcome = await attemptHttp({ url }, { run })
    expect(outcome).toMatchObject({ kind: 'failed', retryable: false })
    expect(outcome).toHaveProperty(
      'error',
      expect.stringContaining('a cloud metadata address, which no target may reach'),
    )
  })

  test('a redirect to a metadata address leads nowhere', async () => {
    sink.reply = () => ({ status: 307, headers: { location: 'http://169.254.169.254/latest/meta-data' } })
    expect(await attemptHttp({ url: sink.url() })).toMatchObject({
      kind: 'failed',
      retryable: false,
      response: { status: 307 },
    })
    expect(sink.requests).toHaveLength(1)
  })

  test('the address that was checked is the one connected to, and a forbidden one beside it is not tried', async () => {
    const run = httpTarget({ 'mixed.test': ['169.254.169.254', '127.0.0.1'] }, open)
    expect(await attemptHttp({ url: sink.url('/', 'mixed.test') }, { run })).toMatchObject({ kind: 'succeeded' })
    expect(sink.requests[0]?.headers.host).toBe(`mixed.test:${sink.port}`)
  })

  test('a name that is rebound keeps to the connection that was checked, and a new connection is checked again', async () => {
    const addresses = { 'rebound.test': ['127.0.0.1'] }
    const run = httpTarget(addresses, open)
    const url = sink.url('/', 'rebound.test')
    expect(await attemptHttp({ url }, { run })).toMatchObject({ kind: 'succeeded' })
    addresses['rebound.test'] = ['169.254.169.254']
    expect(await attemptHttp({ url }, { run })).toMatchObject({ kind: 'succeeded' })
    expect(new Set(sink.requests.map((request) => request.connection)).size).toBe(1)

    sink.reply = () => ({ headers: { connection: 'close' } })
    await attemptHttp({ url }, { run })
    expect(await attemptHttp({ url }, { run })).toMatchObject({ kind: 'failed', retryable: false })
    expect(sink.requests).toHaveLength(3)
  })

  test('userinfo is refused and stays out of the error', async () => {
    const outcome = await attemptHttp({ url: `http://user:hunter2@127.0.0.1:${sink.port}/hook?key=secret` })
    expect(outcome).toEqual({
      kind: 'failed',
      retryable: false,
      error: `POST http://127.0.0.1:${sink.port}/hook was not sent: the URL holds a user name or password; use a header instead`,
    })
  })
})

describe('connections', () => {
  test('are kept alive and used again', async () => {
    const run = httpTarget()
    const before = sink.connections.opened
    for (let round = 0; round < 20; round++) {
      await Promise.all(Array.from({ length: 5 }, () => attemptHttp({ url: sink.url() }, { run })))
    }
    expect(sink.requests).toHaveLength(100)
    expect(sink.connections.opened - before).toBe(5)
  })

  test('are kept after failures with short bodies too', async () => {
    const run = httpTarget()
    const before = sink.connections.opened
    for (const status of [500, 404, 302, 200]) {
      sink.reply = () => ({ status, body: 'x'.repeat(100_000) })
      await attemptHttp({ url: sink.url() }, { run })
    }
    expect(sink.connections.opened - before).toBe(1)
  })

  test('are closed by us when nothing uses them, before servers usually do', async () => {
    await attemptHttp({ url: sink.url() })
    expect(sink.connections.open).toBe(1)
    await until(() => sink.connections.open === 0, { what: 'the idle connection to be closed', timeoutMs: 20_000 })
  })
})

describe('responses are bounded', () => {
  const bodyOf = async (body: string | Uint8Array, headers: Record<string, string> = {}) => {
    sink.reply = () => ({ body, headers })
    const outcome = await attemptHttp({ url: sink.url() })
    if (outcome.kind !== 'succeeded') throw new Error(JSON.stringify(outcome))
    return outcome.response?.body ?? ''
  }

  test('the first 4 KiB are kept, cut at a character with a mark', async () => {
    expect(await bodyOf('x'.repeat(4096))).toBe('x'.repeat(4096))
    const cut = await bodyOf('€'.repeat(2000))
    expect(Buffer.byteLength(cut)).toBeLessThanOrEqual(4096)
    expect(cut).toMatch(/^€{1300,} \[cut\]$/)
  })

  test('NUL and what is no UTF-8 become U+FFFD', async () => {
    expect(await bodyOf(Uint8Array.of(0x61, 0x00, 0xff, 0xed, 0xa0, 0x80, 0x62))).toMatch(/^a\uFFFD{2,}b$/)
    expect(Buffer.byteLength(await bodyOf(new Uint8Array(4000).fill(0xff)))).toBeLessThanOrEqual(4096)
  })

  test('an encoded body is named, not shown', async () => {
    expect(await bodyOf('zzz', { 'content-encoding': 'br' })).toBe('[3 bytes read, encoded as br]')
  })

  test('an endless body ends with the connection, and the status counts', async () => {
    let sent = 0
    sink.reply = () => (response) => {
      const chunk = Buffer.alloc(65_536, 'x')
      const more = () => {
        while (!response.destroyed && response.write(chunk)) sent += chunk.length
      }
      response.on('drain', more)
      more()
    }
    const outcome = await attemptHttp({ url: sink.url() })
    expect(outcome).toMatchObject({ kind: 'succeeded', response: { status: 200 } })
    await nobodyIsLeft()
    expect(sent).toBeLessThan(32 * 1024 * 1024)
  })

  test('an endless head is a failure that is tried again', async () => {
    sink.reply = () => (_, socket) => {
      socket.write(`HTTP/1.1 200 OK\r\n${`x-a: ${'a'.repeat(1000)}\r\n`.repeat(200)}`)
    }
    const outcome = await attemptHttp({ url: sink.url() })
    expect(outcome).toMatchObject({ kind: 'failed', retryable: true })
    expect(outcome).toHaveProperty('error', expect.stringContaining('HPE_HEADER_OVERFLOW'))
    await nobodyIsLeft()
  })
})

describe('broken connections are tried again', () => {
  test('cut before the response', async () => {
    sink.reply = () => 'cut'
    const outcome = await attemptHttp({ url: sink.url('/hook?key=secret') })
    expect(outcome).toEqual({
      kind: 'failed',
      retryable: true,
      error: `POST http://127.0.0.1:${sink.port}/hook failed: the connection broke before the response (ECONNRESET)`,
      response: undefined,
    })
    expect(sink.requests).toHaveLength(1)
  })

  test('closed politely without a response', async () => {
    sink.reply = () => (_, socket) => socket.end()
    expect(await attemptHttp({ url: sink.url() })).toMatchObject({ kind: 'failed', retryable: true })
  })

  test.each([
    ['with a length', 'content-length: 100\r\n\r\npart'],
    ['in chunks', 'transfer-encoding: chunked\r\n\r\n4\r\npart\r\n'],
  ])('cut in the middle of a response %s, of which the beginning is kept', async (_, rest) => {
    sink.reply = () => (_, socket) => socket.end(`HTTP/1.1 200 OK\r\n${rest}`)
    const outcome = await attemptHttp({ url: sink.url() })
    expect(outcome).toMatchObject({ kind: 'failed', retryable: true, response: { status: 200, body: 'part' } })
    expect(outcome).toHaveProperty('error', expect.stringContaining('in the middle of the response (status 200)'))
  })

  test('a response that is not HTTP', async () => {
    sink.reply = () => (_, socket) => socket.end('SSH-2.0-OpenSSH_9.2\r\n')
    const outcome = await attemptHttp({ url: sink.url() })
    expect(outcome).toMatchObject({ kind: 'failed', retryable: true })
    expect(outcome).toHaveProperty('error', expect.stringContaining('not valid HTTP'))
  })

  test('nobody listens', async () => {
    const server = net.createServer().listen(0, '127.0.0.1')
    await new Promise((done) => server.once('listening', done))
    const { port } = server.address() as AddressInfo
    await new Promise((done) => server.close(done))
    const run = httpTarget({ 'two.test': ['127.0.0.1', '127.0.0.2'] })
    for (const host of ['127.0.0.1', 'two.test']) {
      const outcome = await attemptHttp({ url: `http://${host}:${port}/` }, { run })
      expect(outcome).toMatchObject({ kind: 'failed', retryable: true })
      expect(outcome).toHaveProperty(
        'error',
        `POST http://${host}:${port}/ failed: the host refuses connections (ECONNREFUSED)`,
      )
    }
  })

  test('a name without an address', async () => {
    const outcome = await attemptHttp({ url: 'http://nowhere.test/' })
    expect(outcome).toMatchObject({ kind: 'failed', retryable: true })
    expect(outcome).toHaveProperty(
      'error',
      'POST http://nowhere.test/ failed: its host name has no address (ENOTFOUND)',
    )
  })
})

describe('an abort ends the request', () => {
  /** In which a response begins on a busy machine, too. */
  const TIMEOUT_MS = 1_000
  const timeout = () => AbortSignal.timeout(TIMEOUT_MS)

  test('a hanging receiver: no response within the timeout, tried again', async () => {
    sink.reply = () => 'hang'
    expect(await attemptHttp({ url: sink.url() }, { signal: timeout(), timeoutMs: TIMEOUT_MS })).toEqual({
      kind: 'failed',
      retryable: true,
      error: `POST http://127.0.0.1:${sink.port}/ timed out: no response within 1s`,
      response: undefined,
    })
    await nobodyIsLeft()
  })

  test('a body that drips: not ended within the timeout, tried again', async () => {
    const late = new AbortController()
    sink.reply = () => (response) => {
      const drip = setInterval(() => response.write('.'), 10)
      response.on('close', () => clearInterval(drip))
      setTimeout(() => late.abort(new DOMException('', 'TimeoutError')), TIMEOUT_MS)
    }
    const outcome = await attemptHttp({ url: sink.url() }, { signal: late.signal, timeoutMs: TIMEOUT_MS })
    expect(outcome).toMatchObject({ kind: 'failed', retryable: true, response: { status: 200 } })
    expect(outcome).toHaveProperty('error', expect.stringContaining('the response (status 200) did not end within 1s'))
    await nobodyIsLeft()
  })

  test('a head that drips', async () => {
    sink.reply = () => (_, socket) => {
      socket.write('HTTP/1.1 200 OK\r\nx-a: ')
      const drip = setInterval(() => socket.write('.'), 10)
      socket.on('close', () => clearInterval(drip))
    }
    expect(await attemptHttp({ url: sink.url() }, { signal: timeout() })).toMatchObject({
      kind: 'failed',
      retryable: true,
    })
    await nobodyIsLeft()
  })

  test('a receiver that does not read', async () => {
    const sockets: net.Socket[] = []
    const server = net
      .createServer((socket) => sockets.push(socket.on('error', () => {}).pause()))
      .listen(0, '127.0.0.1')
    await new Promise((done) => server.once('listening', done))
    const { port } = server.address() as AddressInfo
    const payload = JSON.stringify('x'.repeat(8 * 1024 * 1024))
    const outcome = await attemptHttp({ url: `http://127.0.0.1:${port}/` }, { signal: timeout(), payload })
    expect(outcome).toMatchObject({ kind: 'failed', retryable: true })
    // A socket that is not read does not notice that its peer has gone.
    for (const socket of sockets) socket.destroy()
    await new Promise((done) => server.close(done))
  })

  test('a cancelled task is cancelled, before and during the request', async () => {
    expect(await attemptHttp({ url: sink.url() }, { signal: AbortSignal.abort() })).toEqual({ kind: 'cancelled' })
    expect(sink.requests).toEqual([])
    const controller = new AbortController()
    sink.reply = () => {
      controller.abort()
      return 'hang'
    }
    expect(await attemptHttp({ url: sink.url() }, { signal: controller.signal })).toEqual({ kind: 'cancelled' })
    await nobodyIsLeft()
  })
})
