import { endsWithin, realClock } from './clock.ts'
import type { Logger } from './log.ts'

export interface ServeOptions {
  /** Answers every request; `peer` is the caller's address. */
  fetch(request: Request, peer?: string): Response | Promise<Response>
  host: string
  /** 0 takes any that is free. */
  port: number
  log: Logger
}

export interface HttpServer {
  /** Where it listens, for people: `http://127.0.0.1:8080`. */
  readonly url: string
  readonly port: number
  /** Takes no more connections and waits for requests in hand, at most `deadlineMs`; then it cuts them. */
  stop(deadlineMs: number): Promise<void>
}

/** Bodies are counted while they are read, so the server's own limit (which answers without a body) is out of the way. */
const MAX_BODY_BYTES = 1024 * 1024 * 1024

const cuts = new WeakMap<Response, AbortSignal>()

/** Closes the connection of `response` when `signal` aborts, even if its client does not read what was sent. */
export function cutOn(signal: AbortSignal, response: Response): Response {
  cuts.set(response, signal)
  return response
}

/** The part of Deno that is used. */
interface DenoServe {
  serve(
    options: {
      hostname: string
      port: number
      signal: AbortSignal
      onListen(): void
      onError(error: unknown): Response
    },
    handler: (request: Request, info: { remoteAddr: { hostname?: string } }) => Response | Promise<Response>,
  ): { addr: { port: number }; finished: Promise<void>; shutdown(): Promise<void> }
}

/** Listens for HTTP on Bun or Deno; throws a sentence when it cannot. */
export function serve(options: ServeOptions): HttpServer {
  try {
    return 'Bun' in globalThis ? serveOnBun(options) : serveOnDeno(options)
  } catch (error) {
    throw new Error(cannotListen(options, error), { cause: error })
  }
}

function serveOnBun({ fetch, host, port, log }: ServeOptions): HttpServer {
  const server = Bun.serve({
    hostname: host,
    port,
    // Silence is no reason to cut: streams have heartbeats and handlers have deadlines of their own.
    idleTimeout: 0,
    maxRequestBodySize: MAX_BODY_BYTES,
    // In development Bun prints what a body failed with, between the lines of the log.
    development: false,
    // Out of development a port that is taken would be shared.
    reusePort: false,
    async fetch(request, bun) {
      const response = await fetch(request, bun.requestIP(request)?.address)
      // The least time-out there is: an errored stream alone leaves the connection open until its client reads.
      cuts.get(response)?.addEventListener('abort', () => bun.timeout(request, 1), { once: true })
      return response
    },
    error: (error) => failure(log, error),
  })
  const bound = server.port ?? port
  return {
    url: urlOf(host, bound),
    port: bound,
    async stop(deadlineMs) {
      if (await endsWithin(realClock, deadlineMs, server.stop(false))) return
      await server.stop(true)
    },
  }
}

function serveOnDeno({ fetch, host, port, log }: ServeOptions): HttpServer {
  const deno = (globalThis as unknown as { Deno?: DenoServe }).Deno
  if (!deno) throw new Error('neither Bun nor Deno runs this process')
  const cut = new AbortController()
  const server = deno.serve(
    { hostname: host, port, signal: cut.signal, onListen() {}, onError: (error) => failure(log, error) },
    (request, { remoteAddr }) => fetch(request, remoteAddr.hostname),
  )
  return {
    url: urlOf(host, server.addr.port),
    port: server.addr.port,
    async stop(deadlineMs) {
      if (await endsWithin(realClock, deadlineMs, server.shutdown())) return
      cut.abort()
      await server.finished
    },
  }
}

function failure(log: Logger, error: unknown): Response {
  log.error({ event: 'request-failed', err: error }, 'A request failed outside its handler')
  return new Response(null, { status: 500 })
}

function urlOf(host: string, port: number): string {
  return `http://${host.includes(':') ? `[${host}]` : host}:${port}`
}

function cannotListen({ host, port }: ServeOptions, error: unknown): string {
  const { code, name, message } = error as NodeJS.ErrnoException
  const where = `Cannot listen on ${urlOf(host, port)}`
  if (code === 'EADDRINUSE' || name === 'AddrInUse')
    return `${where}: the port is taken (is another Longshore running? PORT chooses another)`
  if (code === 'EACCES' || name === 'PermissionDenied')
    return `${where}: this user may not use the port (PORT chooses another)`
  if (code === 'EADDRNOTAVAIL' || name === 'AddrNotAvailable')
    return `${where}: the address is not one of this machine (HOST chooses another)`
  return `${where}: ${message}`
}
