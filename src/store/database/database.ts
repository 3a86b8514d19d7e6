import type { Socket } from 'node:net'
import { Kysely, PostgresDialect } from 'kysely'
import type pg from 'pg'
import { messageOf, Problem } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/log.ts'
import { columnTypes } from './column-types.ts'
import { PatientPool } from './patient-pool.ts'
import type { Tables } from './tables.ts'

/** Where a database is: a URL, or a Unix socket with its credentials. */
export type ConnectionOptions =
  | { readonly url: string }
  | {
      readonly socketDir: string
      readonly port: number
      readonly user: string
      readonly password: string
      readonly database: string
    }

export interface DatabaseOptions {
  connection: ConnectionOptions
  /** The most connections that are open at once. */
  poolSize: number
  log: Logger
  /** Shown in pg_stat_activity. */
  applicationName?: string
  /** After how long the server ends a statement; 0 is never. */
  statementTimeoutMs?: number
}

export interface Database {
  readonly db: Kysely<Tables>
  readonly pool: pg.Pool
  readonly connection: ConnectionOptions
  /** Waits for statements in hand, then closes every connection. Can be called again. */
  close(): Promise<void>
}

const CONNECT_TIMEOUT_MS = 5_000
const STATEMENT_TIMEOUT_MS = 30_000
const IDLE_IN_TRANSACTION_TIMEOUT_MS = 30_000
const IDLE_CONNECTION_MS = 60_000
const GOODBYE_MS = 1_000
/** A server that is silent for the statement timeout and this share of it, but at least a second, is taken for gone. */
const SILENCE_MARGIN = 1 / 3

/** What pg needs to reach `connection`, with our column types and time-outs. */
export function clientConfig(connection: ConnectionOptions, applicationName: string) {
  const where =
    'url' in connection
      ? { connectionString: connection.url }
      : {
          host: connection.socketDir,
          port: connection.port,
          user: connection.user,
          password: connection.password,
          database: connection.database,
          ssl: false,
        }
  return {
    ...where,
    application_name: applicationName,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    keepAlive: true,
    types: columnTypes,
  }
}

/**
 * A pool on `connection` with Kysely over it; it connects when first used, so it does not fail here.
 * Errors of idle connections are logged; `databaseProblem` tells what a failed statement means.
 */
export function openDatabase(options: DatabaseOptions): Database {
  const { connection, log, poolSize, statementTimeoutMs = STATEMENT_TIMEOUT_MS } = options
  const pool = new PatientPool({
    ...clientConfig(connection, options.applicationName ?? 'longshore'),
    max: poolSize,
    idleTimeoutMillis: IDLE_CONNECTION_MS,
    onConnect: async (client) => {
      // Without a listener a connection that dies between two statements of a transaction would end the process.
      // The next statement fails, and whoever awaits it hears of it.
      client.on('error', (error) => log.debug({ event: 'database-connection-error', error: messageOf(error) }))
      if (statementTimeoutMs > 0)
        endWhenSilent(client, statementTimeoutMs + Math.max(1_000, statementTimeoutMs * SILENCE_MARGIN))
      // A generic plan made while the table was tiny would stay in use when it no longer is: a claim of 50 from
      // 100,000 waiting tasks took 155 ms with it, 3 ms with a plan of its own. Pages are in memory or on an SSD: the
      // default price of a random one (4, for spinning disks) made a settle of 476 rows take 72 ms rather than 18 ms.
      // Compiling a plan (JIT) that the planner takes for dear took 38 ms of each claim of fan-out copies, and 7 ms were left.
      await client.query(`set time zone 'UTC'; set datestyle to iso; set statement_timeout to ${statementTimeoutMs};
        set plan_cache_mode to force_custom_plan; set random_page_cost to 1.1; set jit to off;
        set idle_in_transaction_session_timeout to ${IDLE_IN_TRANSACTION_TIMEOUT_MS}`)
    },
  })
  pool.on('error', (error) => log.warn({ event: 'database-connection-lost', error: messageOf(error) }))

  const gone = countConnections(pool)
  const db = new Kysely<Tables>({ dialect: new PostgresDialect({ pool }) })
  let closed: Promise<void> | undefined
  return {
    db,
    pool,
    connection,
    close() {
      // Kysely ends the pool only if it was used.
      closed ??= db
        .destroy()
        .then(() => (pool.ending ? undefined : pool.end()))
        .then(gone)
      return closed
    },
  }
}

/** What it returns resolves when the pool's connections are closed, or the server does not answer the goodbye. */
function countConnections(pool: pg.Pool): () => Promise<void> {
  let open = 0
  let none = () => {}
  pool.on('connect', () => open++)
  pool.on('remove', () => {
    open--
    if (open === 0) none()
  })
  return () =>
    new Promise((resolve) => {
      const timer = setTimeout(resolve, GOODBYE_MS)
      none = () => {
        clearTimeout(timer)
        resolve()
      }
      if (open === 0) none()
    })
}

/**
 * Cuts a connection whose server says nothing for `ms` while a statement runs: the server's own statement
 * timeout cannot help when the server or the way to it is frozen.
 */
function endWhenSilent(client: pg.ClientBase, ms: number): void {
  const { connection } = client as pg.Client
  const stream = (connection as unknown as { stream: Socket }).stream
  stream.setTimeout(ms, () => {
    const idle = (client as unknown as { readyForQuery: boolean }).readyForQuery
    if (!idle) stream.destroy(new Error(`Connection terminated: the database was silent for ${ms / 1000} s`))
  })
}

const SOCKET_CODES = new Set([
  ...['ECONNREFUSED', 'ECONNRESET', 'ECONNABORTED', 'EPIPE', 'ETIMEDOUT', 'EHOSTUNREACH', 'ENETUNREACH'],
  ...['ENOTFOUND', 'EAI_AGAIN', 'ERR_SOCKET_CLOSED', 'ERR_STREAM_DESTROYED', 'ERR_STREAM_WRITE_AFTER_END'],
])

/** SQLSTATEs that mean "not now", https://www.postgresql.org/docs/current/errcodes-appendix.html */
const UNAVAILABLE_STATES = new Set([
  ...['57P01', '57P02', '57P03', '57P04', '57P05'], // shut down, crashed, starting up, dropped, idle session
  ...['57014', '55P03', '25P03', '25P04'], // statement, lock and transaction time-outs
  ...['53000', '53200', '53300'], // out of memory or connections
  '25006', // read-only: a standby
  ...['28000', '28P01', '3D000'], // it does not let us in
])

const UNAVAILABLE_MESSAGE =
  /^(Connection terminated|timeout exceeded when trying to connect|timeout expired|Client has encountered a connection error|Client was closed|Cannot use a pool after calling end|driver has already been destroyed|This socket has been ended)/

const NO_SPACE = /No space left on device/i

function codeOf(error: unknown): string {
  const code = (error as { code?: unknown } | null | undefined)?.code
  return typeof code === 'string' ? code : ''
}

/**
 * What a failed statement or connection means to a caller: the database cannot be reached now, or is full.
 * Undefined for everything else (a constraint, a mistake in the SQL, a bug).
 */
export function databaseProblem(error: unknown): Problem | undefined {
  const code = codeOf(error)
  const message = messageOf(error)
  if (code === '53100' || NO_SPACE.test(message)) {
    return new Problem('storage-full', 'The database has no space left: free some, then try again', [], {
      cause: error,
    })
  }
  const syscall = (error as { syscall?: unknown } | null | undefined)?.syscall
  const unavailable =
    UNAVAILABLE_STATES.has(code) ||
    /^08...$/.test(code) ||
    SOCKET_CODES.has(code) ||
    ((code === 'ENOENT' || code === 'EACCES') && syscall === 'connect') ||
    UNAVAILABLE_MESSAGE.test(message)
  if (!unavailable) return undefined
  return new Problem('database-unavailable', 'The database cannot be used now: try again', [], { cause: error })
}

/**
 * True when a statement's result is not known: its connection died after it may have been sent, so it may have
 * been committed. False when it was never sent (no connection), and when the server answered with a refusal.
 */
export function isConnectionLoss(error: unknown): boolean {
  const code = codeOf(error)
  // Ended between the commit and its answer, the server says only that it ends.
  if (code === '57P01' || code === '57P02' || code === '08006' || code === '08003' || code === '08007') return true
  const syscall = (error as { syscall?: unknown } | null | undefined)?.syscall
  if (syscall === 'connect' || syscall === 'getaddrinfo') return false
  if (['ECONNRESET', 'ECONNABORTED', 'EPIPE', 'ETIMEDOUT', 'ERR_SOCKET_CLOSED'].includes(code)) return true
  const message = messageOf(error)
  if (message.startsWith('Connection terminated due to connection timeout')) return false
  // Kysely's rollback on a lost connection replaces the error of the lost commit by the second of these.
  return /^(Connection terminated|Client has encountered a connection error)/.test(message)
}

/** The database is away, or full: what failed is nobody's fault, and the same may go through later. */
export function isAboutDatabase(error: unknown): boolean {
  return databaseProblem(error) !== undefined || isConnectionLoss(error)
}
