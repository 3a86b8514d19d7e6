import { randomBytes } from 'node:crypto'
import { sql } from 'kysely'
import { Migrator } from 'kysely/migration'
import { migrations as ours } from '../../../db/migrations/index.ts'
import { messageOf } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/log.ts'
import { type Database, openDatabase } from './database.ts'

const OLDEST_POSTGRES = 150_000
const MIGRATION_TABLE = 'kysely_migration'

/** The database is not one that this version can work with; the message says what to do. */
export class SchemaRefusal extends Error {
  override readonly name = 'SchemaRefusal'
}

export interface SchemaStatus {
  /** Migrations that the database has, in order. */
  applied: string[]
  /** Migrations of this version that it lacks. */
  pending: string[]
  /** Migrations that it has and this version does not know: a newer version made them. */
  unknown: string[]
}

type Migrations = typeof ours

/** How the database's schema and this version's migrations compare; changes nothing. */
export async function schemaStatus({ db }: Database, migrations: Migrations = ours): Promise<SchemaStatus> {
  const known = Object.keys(migrations).sort()
  const { rows: tables } = await sql<{ present: boolean }>`
    select to_regclass(${MIGRATION_TABLE}) is not null as present`.execute(db)
  if (!tables[0]?.present) return { applied: [], pending: known, unknown: [] }
  const { rows } = await sql<{ name: string }>`
    select name from ${sql.table(MIGRATION_TABLE)} order by name`.execute(db)
  const applied = rows.map((row) => row.name)
  return {
    applied,
    pending: known.filter((name) => !applied.includes(name)),
    unknown: applied.filter((name) => !known.includes(name)),
  }
}

/** Why a server of this version (as in `server_version_num`) cannot be used; undefined when it can. */
export function versionRefusal(number: number, name: string): string | undefined {
  if (number >= OLDEST_POSTGRES) return undefined
  return (
    `Longshore needs Postgres 15 or later and this server is ${name}: ` +
    'upgrade it, point DATABASE_URL at a newer one, or unset DATABASE_URL to use the embedded one.'
  )
}

/** The server's version, as a number such as 150004 and as it is written. */
export async function serverVersion({ db }: Database): Promise<{ number: number; name: string }> {
  const { rows } = await sql<{ number: number; name: string }>`
    select current_setting('server_version_num')::int as number, current_setting('server_version') as name
  `.execute(db)
  return rows[0] ?? { number: 0, name: 'unknown' }
}

/** Throws a `SchemaRefusal` when the server is older than Postgres 15 or the schema newer than this version. */
export async function assertUsable(database: Database, migrations: Migrations = ours): Promise<void> {
  const { number, name } = await serverVersion(database)
  const version = versionRefusal(number, name)
  if (version) throw new SchemaRefusal(version)
  const { unknown } = await schemaStatus(database, migrations)
  if (unknown.length > 0) {
    throw new SchemaRefusal(
      `The database was migrated by a newer Longshore (it has ${unknown.join(', ')}, which this version does not know): ` +
        'start that version or a later one. Migrations run forward only; to go back, restore a backup.',
    )
  }
}

/** Throws a `SchemaRefusal` as `assertUsable` does, and when migrations of this version are missing: for nodes that do not migrate. */
export async function assertCurrent(database: Database, migrations: Migrations = ours): Promise<void> {
  await assertUsable(database, migrations)
  const { pending } = await schemaStatus(database, migrations)
  if (pending.length === 0) return
  throw new SchemaRefusal(
    `The database's schema is older than this version (it lacks ${pending.join(', ')}) and MIGRATE is off: ` +
      'run "longshore migrate up" first, or start with MIGRATE=on.',
  )
}

/**
 * Brings the schema up to this version. Any number of nodes may call it at once: one applies, the others wait.
 * Every migration of one call is committed together, or none. Throws `SchemaRefusal`, or the failed migration's error.
 * When `signal` aborts, what is not committed is rolled back and the call rejects soon.
 */
export async function migrate(
  database: Database,
  log: Logger,
  migrations: Migrations = ours,
  signal?: AbortSignal,
): Promise<void> {
  await assertUsable(database, migrations)
  if ((await schemaStatus(database, migrations)).pending.length === 0) return

  // A connection of its own, without statement timeout: building an index or waiting for another node takes long.
  const applicationName = `longshore-migrate-${randomBytes(6).toString('hex')}`
  const patient = openDatabase({
    connection: database.connection,
    poolSize: 2,
    log,
    applicationName,
    statementTimeoutMs: 0,
  })
  const abandon = () => {
    endConnections(database, applicationName).catch((error) =>
      log.warn({ event: 'migration-not-ended', error: messageOf(error) }),
    )
  }
  signal?.addEventListener('abort', abandon, { once: true })
  try {
    const migrator = new Migrator({ db: patient.db, provider: { getMigrations: async () => migrations } })
    const { error, results = [] } = await migrator.migrateToLatest()
    if (error) {
      signal?.throwIfAborted()
      // A newer node may have migrated since the look above; its refusal says more than the migrator's error.
      await assertUsable(patient, migrations)
      const failed = results.find((result) => result.status === 'Error')?.migrationName
      const what = failed ? `Migration ${failed} failed` : 'The migration failed'
      throw new Error(`${what}, nothing was changed: ${messageOf(error)}${remedyOf(error)}`, { cause: error })
    }
    for (const { migrationName } of results) log.info({ event: 'migrated', migration: migrationName })
  } finally {
    signal?.removeEventListener('abort', abandon)
    await patient.close()
  }
}

/** Ends our connections of this name; their transactions are rolled back, whether a statement runs or not. */
async function endConnections({ pool }: Database, applicationName: string): Promise<void> {
  await pool.query('select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1', [
    applicationName,
  ])
}

function remedyOf(error: unknown): string {
  const denied = (error as { code?: unknown }).code === '42501'
  return denied ? '. Its user needs the right to create tables: grant create, usage on schema public to <user>' : ''
}
