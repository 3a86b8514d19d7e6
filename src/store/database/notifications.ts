import { randomUUID } from 'node:crypto'
import pg from 'pg'
import { type Clock, pause, within } from '../../runtime/clock.ts'
import { messageOf } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/log.ts'
import type { Service } from '../../runtime/service.ts'
import { type ConnectionOptions, clientConfig } from './database.ts'
import { type Notice, NoticeBatch, parseNotice } from './notice.ts'

/** Notices between the nodes of one database. A hint, never the truth: each may be lost, a poll stands behind it. */
export interface Notifications extends Service {
  /** Tells the other nodes, soon and together with what else is told; a no-op while disabled or not connected. */
  send(notice: Notice): void
  /** Calls `handler` with each notice of another node until the returned function is called. */
  onNotice(handler: (notice: Notice) => void): () => void
  /** Calls `handler` with each notice that this node sends, whether others are there to hear it or not. */
  onSent(handler: (notice: Notice) => void): () => void
  /** A node that is alone switches sending off: it costs a commit. Listening goes on. Enabled at first. */
  enabled(on: boolean): void
}

export interface NotificationsOptions {
  connection: ConnectionOptions
  log: Logger
  clock: Clock
}

const CHANNEL = 'longshore'
/** NOTIFY takes a lock on the whole server at commit, so there is at most one a process in this time. */
const COALESCE_MS = 20
const FIRST_RETRY_MS = 200
const SLOWEST_RETRY_MS = 10_000
/** A connection that only listens would not see that the way to the server is cut. */
const PROBE_MS = 30_000

/** One connection of its own that listens and, outside of any transaction, notifies; it reconnects by itself. */
export function createNotifications({ connection, log, clock }: NotificationsOptions): Notifications {
  const sender = randomUUID()
  const handlers = new Set<(notice: Notice) => void>()
  const ownHandlers = new Set<(notice: Notice) => void>()
  const batch = new NoticeBatch()
  let stopping = new AbortController()
  let running: Promise<void> | undefined
  let client: pg.Client | undefined
  let cancelFlush: (() => void) | undefined
  let sending = true

  async function flush(): Promise<void> {
    cancelFlush = undefined
    const payloads = batch.take(sender)
    const to = client
    if (!to) return
    try {
      await to.query('select pg_notify($1, payload) from unnest($2::text[]) as payload', [CHANNEL, payloads])
    } catch (error) {
      log.warn({ event: 'notices-lost', notices: payloads.length, error: messageOf(error) })
    }
  }

  function receive(payload: string | undefined): void {
    const notice = parseNotice(payload ?? '', sender)
    if (notice) tell(handlers, notice)
  }

  function tell(whom: Iterable<(notice: Notice) => void>, notice: Notice): void {
    for (const handler of whom) {
      try {
        handler(notice)
      } catch (error) {
        log.error({ event: 'notice-handler-failed', error: messageOf(error) })
      }
    }
  }

  /** Listens until the connection is lost or `signal` aborts; throws when it cannot connect. */
  async function listen(signal: AbortSignal, listening: () => void): Promise<void> {
    const listener = new pg.Client(clientConfig(connection, 'longshore-notices'))
    const lost = new AbortController()
    listener.on('error', () => lost.abort())
    listener.on('end', () => lost.abort())
    listener.on('notification', ({ payload }) => receive(payload))
    const stop = () => lost.abort()
    signal.addEventListener('abort', stop, { once: true })
    try {
      await listener.connect()
      await listener.query(`listen ${CHANNEL}`)
      client = listener
      listening()
      while (!lost.signal.aborted && !signal.aborted) {
        await pause(clock, PROBE_MS, lost.signal)
        if (!lost.signal.aborted && !(await answers(listener))) return
      }
    } finally {
      client = undefined
      signal.removeEventListener('abort', stop)
      await closeClient(listener)
    }
  }

  function answers(listener: pg.Client): Promise<boolean> {
    const answer = listener.query('select 1').then(
      () => true,
      () => false,
    )
    return within(clock, PROBE_MS, answer, false)
  }

  async function run(signal: AbortSignal): Promise<void> {
    let retryMs = FIRST_RETRY_MS
    let first = true
    while (!signal.aborted) {
      try {
        await listen(signal, () => {
          retryMs = FIRST_RETRY_MS
          if (!first) log.info({ event: 'notices-back' })
          first = false
        })
        if (!signal.aborted) log.warn({ event: 'notices-interrupted', retryInMs: retryMs })
      } catch (error) {
        first = false
        log.warn({ event: 'notices-unavailable', error: messageOf(error), retryInMs: retryMs })
      }
      await pause(clock, retryMs, signal)
      retryMs = Math.min(retryMs * 2, SLOWEST_RETRY_MS)
    }
  }

  return {
    async start() {
      if (running) return
      stopping = new AbortController()
      running = run(stopping.signal)
    },
    async stop() {
      stopping.abort()
      if (cancelFlush) {
        cancelFlush()
        cancelFlush = undefined
        await flush()
      }
      await running
      running = undefined
    },
    send(notice) {
      tell(ownHandlers, notice)
      if (!sending || !client) return
      batch.add(notice)
      cancelFlush ??= clock.after(COALESCE_MS, () => void flush())
    },
    onNotice(handler) {
      handlers.add(handler)
      return () => handlers.delete(handler)
    },
    onSent(handler) {
      ownHandlers.add(handler)
      return () => ownHandlers.delete(handler)
    },
    enabled(on) {
      sending = on
    },
  }
}

/** Says goodbye, and cuts the connection when the server does not answer it. */
async function closeClient(client: pg.Client): Promise<void> {
  const timer = setTimeout(() => {
    const { stream } = (client as unknown as { connection: { stream: { destroy(): void } } }).connection
    stream.destroy()
  }, 1_000)
  await client.end().catch(() => {})
  clearTimeout(timer)
}
