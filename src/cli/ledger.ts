import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { pause, realClock } from '../runtime/clock.ts'
import { messageOf } from '../runtime/errors.ts'
import { createLog } from '../runtime/log.ts'
import { type ConnectionOptions, type Database, databaseProblem, openDatabase } from '../store/database/database.ts'
import { embeddedConnection, startEmbeddedPostgres } from '../store/postgres/embedded.ts'
import { EmbeddedPostgresRefusal } from '../store/postgres/refusal.ts'
import type { CliDeps, Settings } from './deps.ts'
import { EXIT, Failure } from './failure.ts'

/** The commands are quiet: what matters they say themselves. */
export const quietLog = createLog('silent')

/** The database as a command finds it. */
export interface Ledger {
  readonly database: Database
  /** `server`: DATABASE_URL; `running`: the embedded one of a node that runs; `started`: started for this command. */
  readonly kind: 'server' | 'running' | 'started'
  /** Closes the connections, and stops what was started for this command, and nothing else. */
  close(): Promise<void>
}

export interface LedgerOptions {
  /** Make the embedded database when there is none; else that is a `Failure`. */
  make?: boolean
  /** Shown in pg_stat_activity, behind `longshore-`. */
  purpose?: string
}

const OTHERS_MS = 15_000
const LOOK_MS = 50

/**
 * The database of DATABASE_URL, or the embedded one: a running one is used and left running, one that rests is started
 * and stopped again. Whether it lets us in shows at the first statement.
 */
export async function openLedger(
  { databaseUrl, dataDir }: Pick<Settings, 'databaseUrl' | 'dataDir'>,
  { packedPostgres }: Pick<CliDeps, 'packedPostgres'>,
  { make = false, purpose = 'cli' }: LedgerOptions = {},
): Promise<Ledger> {
  // One of its own for each process, so that commands tell each other apart.
  const applicationName = `longshore-${purpose}-${process.pid}`
  const open = (connection: ConnectionOptions) =>
    openDatabase({ connection, poolSize: 2, log: quietLog, applicationName })
  if (databaseUrl) {
    const database = open({ url: databaseUrl.reveal() })
    return { database, kind: 'server', close: () => database.close() }
  }
  const deadline = realClock.now() + OTHERS_MS
  for (;;) {
    const running = await embeddedConnection(dataDir)
    const database = running && (await answering(open(running)))
    if (database) return { database, kind: 'running', close: () => database.close() }
    if (!make && !existsSync(join(dataDir, 'postgres', 'data'))) throw new Failure(noDatabase(dataDir))
    try {
      const embedded = await startEmbeddedPostgres({ dataDir, log: quietLog, packed: packedPostgres })
      const started = open(embedded.connection)
      return {
        database: started,
        kind: 'started',
        async close() {
          await untilAlone(started, applicationName).catch(() => {})
          await started.close()
          // Who has come since we looked ends its work first.
          await embedded.stop(OTHERS_MS)
        },
      }
    } catch (error) {
      // A node, or another command, starts or stops it just now.
      const busy = error instanceof EmbeddedPostgresRefusal && error.reason === 'locked'
      if (!busy || realClock.now() > deadline) throw error
      await pause(realClock, LOOK_MS)
    }
  }
}

/** The database when it answers; whoever runs it may be stopping it. */
async function answering(database: Database): Promise<Database | undefined> {
  try {
    await database.pool.query('select 1')
    return database
  } catch {
    await database.close()
    return undefined
  }
}

/** Waits while other commands use what was started here: they found it running. */
async function untilAlone({ pool }: Database, own: string): Promise<void> {
  const deadline = realClock.now() + OTHERS_MS
  while (realClock.now() < deadline) {
    const { rowCount } = await pool.query(
      `select from pg_stat_activity where application_name like 'longshore-%' and application_name <> $1`,
      [own],
    )
    if (rowCount === 0) return
    await pause(realClock, LOOK_MS)
  }
}

function noDatabase(dataDir: string): string {
  return `There is no database yet: DATABASE_URL is not set and ${dataDir} holds none (longshore start makes it; DATA_DIR names another folder)`
}

/** Runs `work` on the configured database, and leaves everything as it was. */
export async function withDatabase<T>(
  deps: CliDeps,
  work: (database: Database, settings: Settings) => Promise<T>,
  options: LedgerOptions = {},
): Promise<T> {
  const { settings } = await deps.load()
  const ledger = await openLedger(settings, deps, options)
  try {
    return await work(ledger.database, settings)
  } catch (error) {
    throw databaseProblem(error)?.code === 'database-unavailable' ? unreachable(error) : error
  } finally {
    await ledger.close()
  }
}

/** The database does not let us in: the server's own words, and what to look at. */
function unreachable(error: unknown): Failure {
  return new Failure(`The database cannot be reached: ${messageOf(error)} (is DATABASE_URL right?)`, EXIT.unreachable, {
    cause: error,
  })
}
