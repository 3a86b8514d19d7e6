import { statfs } from 'node:fs/promises'
import pg from 'pg'
import { pause, realClock, within } from '../../runtime/clock.ts'
import { messageOf } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/log.ts'
import { type ConnectionOptions, clientConfig } from '../database/database.ts'
import type { Home } from './home.ts'
import { lastWords, type Postmaster } from './postmaster.ts'
import { DISK_FULL, EmbeddedPostgresRefusal } from './refusal.ts'

const POLL_MS = 5
/** A server that says nothing at all for this long does not come up. */
const SILENT_START_MS = 30_000
/** After a crash it answers "starting up" while it replays its log; that may take a while. */
const RECOVERY_MS = 15 * 60_000
const FAST_STOP_MS = 20_000
const IMMEDIATE_STOP_MS = 5_000
const FIRST_RESTART_MS = 100
const SLOWEST_RESTART_MS = 10_000
/** A server that ran this long was well: its next crash starts the backoff anew. */
const HEALTHY_MS = 60_000
const LITTLE_SPACE_BYTES = 32 * 1024 * 1024

export interface Supervisor {
  /**
   * Ends the server: fast, then at once when it takes too long; for `politeMs` before that it only takes no more
   * connections, and ends with the last one. Resolves when no postmaster is left.
   */
  stop(politeMs?: number): Promise<void>
}

export interface SuperviseOptions {
  home: Home
  connection: ConnectionOptions
  log: Logger
  /** The server to watch first; it has answered. */
  first: Postmaster
  /** Starts another one. */
  spawn: () => Promise<Postmaster>
}

/** Watches a server and starts another one, with backoff, whenever it is gone without our doing. */
export function supervise({ home, connection, log, first, spawn }: SuperviseOptions): Supervisor {
  let current = first
  const stopping = new AbortController()

  const watching = (async () => {
    let delay = FIRST_RESTART_MS
    for (;;) {
      const since = performance.now()
      await Promise.race([current.gone, aborted(stopping.signal)])
      if (stopping.signal.aborted) return
      if (performance.now() - since > HEALTHY_MS) delay = FIRST_RESTART_MS
      log.error({ event: 'postgres-gone', pid: current.pid, lastWords: lastWords(home), restartInMs: delay })
      await pause(realClock, delay, stopping.signal)
      if (stopping.signal.aborted) return
      delay = Math.min(delay * 2, SLOWEST_RESTART_MS)
      try {
        current = await spawn()
        await untilReady(home, connection, current, stopping.signal)
        log.info({ event: 'postgres-restarted', pid: current.pid })
      } catch (error) {
        if (stopping.signal.aborted) return
        log.error({ event: 'postgres-restart-failed', error: messageOf(error) })
        await end(current)
      }
    }
  })()

  let stopped: Promise<void> | undefined
  return {
    stop(politeMs) {
      stopped ??= (async () => {
        stopping.abort()
        await watching
        await end(current, politeMs)
      })()
      return stopped
    },
  }
}

/**
 * Ends a postmaster: SIGTERM waits for who is connected, SIGINT rolls back what is open and writes everything, SIGQUIT leaves
 * that to the next start.
 */
export async function end(postmaster: Postmaster, politeMs = 0): Promise<void> {
  const steps = [
    ...(politeMs > 0 ? [['SIGTERM', politeMs] as const] : []),
    ['SIGINT', FAST_STOP_MS],
    ['SIGQUIT', IMMEDIATE_STOP_MS],
    ['SIGKILL', IMMEDIATE_STOP_MS],
  ] as const
  for (const [signal, patienceMs] of steps) {
    if (postmaster.isGone()) return
    postmaster.signal(signal)
    await within(realClock, patienceMs, postmaster.gone, undefined)
  }
  if (!postmaster.isGone()) throw new Error(`The embedded Postgres (pid ${postmaster.pid}) does not end`)
}

/** Resolves when the server takes connections; throws a refusal with the server's own words when it will not. */
export async function untilReady(
  home: Home,
  connection: ConnectionOptions,
  postmaster: Postmaster,
  signal?: AbortSignal,
): Promise<void> {
  const start = performance.now()
  let patienceMs = SILENT_START_MS
  for (;;) {
    const failure = await knock(connection)
    if (failure === undefined) return
    if (signal?.aborted) throw new EmbeddedPostgresRefusal('failed', 'Stopped while the embedded Postgres was starting')
    const code = (failure as { code?: string }).code
    if (code === '57P03') patienceMs = RECOVERY_MS
    if (code === '28P01') {
      throw new EmbeddedPostgresRefusal(
        'failed',
        `The embedded Postgres refuses ${home.path}/password: restore that file.`,
      )
    }
    if (postmaster.isGone()) throw await startFailure(home)
    if (performance.now() - start > patienceMs) {
      const said = lastWords(home)
      throw new EmbeddedPostgresRefusal(
        'failed',
        `The embedded Postgres does not answer after ${Math.round(patienceMs / 1000)} s: ${messageOf(failure)}. It said: ${said}`,
      )
    }
    await pause(realClock, POLL_MS, signal)
  }
}

/** One try to connect; undefined when the server lets us in. A missing database counts as in. */
async function knock(connection: ConnectionOptions): Promise<unknown> {
  const client = new pg.Client(clientConfig(connection, 'longshore-start'))
  client.on('error', () => {})
  try {
    await client.connect()
    await client.end()
    return undefined
  } catch (error) {
    return (error as { code?: string }).code === '3D000' ? undefined : error
  }
}

async function startFailure(home: Home): Promise<EmbeddedPostgresRefusal> {
  const said = lastWords(home)
  const space = await statfs(home.path).catch(() => undefined)
  if (DISK_FULL.test(said) || (space && space.bavail * space.bsize < LITTLE_SPACE_BYTES)) {
    return new EmbeddedPostgresRefusal(
      'no-space',
      `The embedded Postgres cannot start, there is no space left in ${home.path}: free some. It said: ${said}`,
    )
  }
  return new EmbeddedPostgresRefusal('failed', `The embedded Postgres in ${home.path} ended while starting: ${said}`)
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
}
