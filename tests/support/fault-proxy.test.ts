import { afterEach, describe, expect, test } from 'bun:test'
import { type AddressInfo, createConnection, createServer, type Socket } from 'node:net'
import { type FaultProxy, startFaultProxy } from './fault-proxy.ts'
import { until } from './until.ts'

const ended: (() => unknown)[] = []
afterEach(async () => {
  for (const end of ended.splice(0).reverse()) await end()
})

/** A server that gives back what it gets, behind a proxy, and a client of it. */
async function echo(): Promise<{ proxy: FaultProxy; open: () => Promise<Client> }> {
  const server = createServer({ allowHalfOpen: true }, (socket) => void socket.on('error', () => {}).pipe(socket))
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  const { port } = server.address() as AddressInfo
  const proxy = await startFaultProxy({ host: '127.0.0.1', port })
  ended.push(
    () => server.close(),
    () => proxy[Symbol.asyncDispose](),
  )
  return { proxy, open: () => openClient(proxy) }
}

interface Client {
  socket: Socket
  /** Bytes that have come back. */
  readonly received: number
  readonly closed: Promise<string>
}

function openClient({ host, port }: FaultProxy): Promise<Client> {
  let received = 0
  const socket = createConnection({ host, port })
  const closed = new Promise<string>((done) => {
    socket.on('error', (error: NodeJS.ErrnoException) => done(error.code ?? error.message))
    socket.on('close', () => done('closed'))
  })
  socket.on('data', (bytes) => (received += bytes.length))
  ended.push(() => socket.destroy())
  const client: Client = {
    socket,
    closed,
    get received() {
      return received
    },
  }
  return new Promise((done) => socket.once('connect', () => done(client)).once('close', () => done(client)))
}

describe('the fault proxy', () => {
  test('forwards everything in both directions, up to the end', async () => {
    const { proxy, open } = await echo()
    const client = await open()
    client.socket.end(Buffer.alloc(5_000_000))
    expect(await client.closed).toBe('closed')
    expect(client.received).toBe(5_000_000)
    expect(proxy.forwarded).toEqual({ 'from-client': 5_000_000, 'from-server': 5_000_000 })
    await until(() => proxy.open === 0)
  })

  test('cuts a connection after so many bytes of one direction, and the next one again', async () => {
    const { proxy, open } = await echo()
    proxy.setFault({ kind: 'cut', afterBytes: 1000, direction: 'from-server' })
    for (let round = 1; round <= 2; round++) {
      const client = await open()
      client.socket.write(Buffer.alloc(100_000))
      expect(await client.closed).toBe('ECONNRESET')
      expect(client.received).toBeLessThanOrEqual(1000)
      expect(proxy.forwarded['from-server']).toBe(1000 * round)
    }
  })

  test('hangs with everything open, and goes on without losing a byte', async () => {
    const { proxy, open } = await echo()
    const client = await open()
    proxy.setFault({ kind: 'hang', afterBytes: 10, direction: 'from-server' })
    client.socket.end(Buffer.alloc(1_000_000))
    await until(() => client.received === 10)
    expect(proxy.open).toBe(1)
    proxy.setFault({ kind: 'none' })
    expect(await client.closed).toBe('closed')
    expect(client.received).toBe(1_000_000)
  })

  test('delays what comes', async () => {
    const { proxy, open } = await echo()
    proxy.setFault({ kind: 'delay', ms: 40 })
    const client = await open()
    const startedAt = performance.now()
    client.socket.write('x')
    await until(() => client.received === 1)
    expect(performance.now() - startedAt).toBeGreaterThan(75)
  })

  test('refuses new connections and leaves the open ones', async () => {
    const { proxy, open } = await echo()
    const client = await open()
    client.socket.write('x')
    await until(() => client.received === 1)
    proxy.setFault({ kind: 'refuse' })
    const late = await open()
    expect(await late.closed).not.toBe('')
    client.socket.write('x')
    await until(() => client.received === 2)
    proxy.cutAll()
    expect(await client.closed).toBe('ECONNRESET')
    expect(proxy).toMatchObject({ open: 0, accepted: 2 })
  })
})
