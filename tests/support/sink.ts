import http, { type IncomingMessage, type ServerResponse } from 'node:http'
import https from 'node:https'
import type { AddressInfo, Socket } from 'node:net'

/** One request that the sink has received whole. Times are milliseconds since 1970, fine enough to order. */
export interface SinkRequest {
  method: string
  /** Path and query. */
  path: string
  headers: Record<string, string>
  body: string
  /** Which connection it came on, numbered from 1. */
  connection: number
  /** `webhook-id` and `x-longshore-attempt`; empty and 0 when they are missing. */
  task: string
  attempt: number
  startedAt: number
  /** When the response was sent, or the connection was lost before. */
  endedAt: number | undefined
}

/**
 * What the sink does with a request: a response (status 200 by default; after `delayMs`), `hang` (no response while the
 * connection lasts), `cut` (reset the connection), or anything else with the response and its socket.
 */
export type Reply =
  | { status?: number; headers?: Record<string, string>; body?: string | Uint8Array; delayMs?: number }
  | 'hang'
  | 'cut'
  | ((response: ServerResponse, socket: Socket) => void)

export interface Sink extends AsyncDisposable {
  readonly port: number
  /** Every request, in the order of arrival. */
  readonly requests: SinkRequest[]
  /** Connections ever opened, and those open now. */
  readonly connections: { opened: number; open: number }
  /** Decides what happens to each request; replace it at will. */
  reply: (request: SinkRequest) => Reply | Promise<Reply>
  /** The URL of `path` here; `host` may be any name that the client's lookup knows. */
  url(path?: string, host?: string): string
  /** Ends every connection and the server. */
  close(): Promise<void>
}

const clock = () => performance.timeOrigin + performance.now()

/** A real HTTP server on loopback that records what it gets. With `tls` it speaks HTTPS. */
export async function startSink({
  reply = () => ({}),
  tls,
  port = 0,
}: {
  reply?: Sink['reply']
  tls?: { key: string; cert: string } | undefined
  port?: number
} = {}): Promise<Sink> {
  const requests: SinkRequest[] = []
  const connections = { opened: 0, open: 0 }
  const sockets = new Map<Socket, number>()

  const onRequest = async (incoming: IncomingMessage, response: ServerResponse) => {
    const startedAt = clock()
    const chunks: Buffer[] = []
    incoming.on('error', () => {})
    response.on('error', () => {})
    for await (const chunk of incoming) chunks.push(chunk as Buffer)
    const headers = Object.fromEntries(Object.entries(incoming.headers).map(([name, value]) => [name, String(value)]))
    const request: SinkRequest = {
      method: incoming.method ?? '',
      path: incoming.url ?? '',
      headers,
      body: Buffer.concat(chunks).toString('utf8'),
      connection: sockets.get(incoming.socket) ?? 0,
      task: headers['webhook-id'] ?? '',
      attempt: Number(headers['x-longshore-attempt'] ?? 0),
      startedAt,
      endedAt: undefined,
    }
    const end = () => {
      request.endedAt ??= clock()
    }
    response.once('finish', end)
    response.once('close', end)
    requests.push(request)
    await send(await sink.reply(request), response, incoming.socket)
  }
  const listener = (incoming: IncomingMessage, response: ServerResponse) => {
    // A client that goes away in the middle of its request is no fault of the sink.
    onRequest(incoming, response).catch(() => incoming.socket.destroy())
  }
  const server = tls ? https.createServer(tls, listener) : http.createServer(listener)
  server.keepAliveTimeout = 60_000
  server.requestTimeout = 0
  server.on('clientError', (_, socket) => socket.destroy())
  server.on('tlsClientError', () => {})
  server.on(tls ? 'secureConnection' : 'connection', (socket: Socket) => {
    sockets.set(socket, ++connections.opened)
    connections.open++
    socket.on('error', () => {})
    socket.on('close', () => {
      sockets.delete(socket)
      connections.open--
    })
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, '127.0.0.1', resolve)
  })
  const bound = (server.address() as AddressInfo).port

  const sink: Sink = {
    port: bound,
    requests,
    connections,
    reply,
    url: (path = '/', host = '127.0.0.1') => `${tls ? 'https' : 'http'}://${host}:${bound}${path}`,
    async close() {
      const closed = new Promise((resolve) => server.close(resolve))
      for (const socket of sockets.keys()) socket.destroy()
      server.closeAllConnections()
      await closed
    },
    [Symbol.asyncDispose]: () => sink.close(),
  }
  return sink
}

async function send(reply: Reply, response: ServerResponse, socket: Socket): Promise<void> {
  if (reply === 'hang') return
  if (reply === 'cut') {
    socket.resetAndDestroy()
    return
  }
  if (typeof reply === 'function') return reply(response, socket)
  const { status = 200, headers = {}, body = '', delayMs = 0 } = reply
  if (delayMs > 0) await new Promise((resolve) => setTimeout(resolve, delayMs))
  response.writeHead(status, headers)
  response.end(body)
}
