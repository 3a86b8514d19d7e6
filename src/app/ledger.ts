import { join } from 'node:path'
import type { Config } from '../config.ts'
import type { Assets } from '../runtime/assets.ts'
import { realClock } from '../runtime/clock.ts'
import type { Logger } from '../runtime/log.ts'
import { type Database, openDatabase } from '../store/database/database.ts'
import { assertCurrent, migrate } from '../store/database/migrate.ts'
import { waitForServer } from '../store/database/wait-for-server.ts'
import { ensureAdminKey } from '../store/keys/admin-key.ts'
import { startEmbeddedPostgres } from '../store/postgres/embedded.ts'
import type { Stops } from './stops.ts'

const POOL_SIZE = 12

/** The ledger: the server of `DATABASE_URL`, or a Postgres of our own; at the present schema. */
export async function openLedger(
  config: Config,
  log: Logger,
  stops: Stops,
  assets?: Assets,
  signal?: AbortSignal,
): Promise<Database> {
  const packed = assets?.postgres
  const embedded = config.databaseUrl
    ? undefined
    : await startEmbeddedPostgres({ dataDir: config.dataDir, log, packed })
  if (embedded) stops.push(() => embedded.stop())
  const connection = embedded?.connection ?? { url: config.databaseUrl?.reveal() ?? '' }
  const database = openDatabase({ connection, poolSize: POOL_SIZE, log })
  stops.push(() => database.close())
  await waitForServer(database, { log, clock: realClock, signal })
  if (config.migrate) await migrate(database, log, undefined, signal)
  else await assertCurrent(database)
  signal?.throwIfAborted()
  return database
}

/** Makes sure that somebody has a key, and says once where it is. */
export async function tellAdminKey(config: Config, log: Logger, { db }: Database): Promise<void> {
  const file = join(config.dataDir, 'admin.key')
  const admin = await ensureAdminKey(db, { given: config.adminKey, file })
  if (admin.source === 'elsewhere') {
    log.info({ event: 'admin-key-elsewhere', key: admin.keyId }, 'The admin key was made by another node: use that one')
  }
  if (admin.source !== 'created') return
  log.info({ event: 'admin-key-created', file }, `The admin key is in ${file}`)
  // Shown to a person only: what is not a terminal may be a log that is kept.
  if (process.stderr.isTTY) process.stderr.write(`Admin key, shown this once: ${admin.key.reveal()}\n`)
}
