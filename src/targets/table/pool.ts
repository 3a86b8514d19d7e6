import pg from 'pg'
import type { TableSettings } from '../../task/attempt/thread-messages.ts'

/** Connections a thread. */
export const CONNECTIONS = 2
const CONNECT_TIMEOUT_MS = 5_000
const STATEMENT_TIMEOUT_MS = 30_000
const IDLE_CONNECTION_MS = 60_000
/** A server that does not even say that a statement took too long is gone. */
const SILENCE_MS = 40_000

/** A pool on the database of table targets; it connects when first used. Its errors never hold the password. */
export function openPool({ connection }: TableSettings): pg.Pool {
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
  const pool = new pg.Pool({
    ...where,
    application_name: 'longshore-tables',
    max: CONNECTIONS,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    idleTimeoutMillis: IDLE_CONNECTION_MS,
    query_timeout: SILENCE_MS,
    keepAlive: true,
    onConnect: async (client) => {
      // Without a listener a connection that dies while nobody waits for it would end the thread.
      client.on('error', () => {})
      // A timestamp without a zone means the same on every server.
      await client.query(`set time zone 'UTC'; set statement_timeout to ${STATEMENT_TIMEOUT_MS}`)
    },
  })
  // An idle connection that dies is replaced when it is needed.
  pool.on('error', () => {})
  return pool
}
