import { readdirSync, readFileSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type pg from 'pg'
import { pino } from 'pino'
import { type ConnectionOptions, clientConfig } from '../../src/store/database/database.ts'
import { startEmbeddedPostgres } from '../../src/store/postgres/embedded.ts'
import { adminUrl, connectClient, type Engine, inDatabase } from '../support/database.ts'
import { type NodeFolder, type NodeOptions, type NodeProcess, nodeFolder, spawnNode } from '../support/node-process.ts'

const FIXTURES = join(import.meta.dir, 'fixtures')

/** The schemas that a version left behind, oldest first. */
export const OLD_SCHEMAS = readdirSync(FIXTURES).sort()

/** What the tests need to know of a fixture; `record.ts` writes it. */
export interface Facts {
  version: string
  adminKey: string
  readKey: string
  accounting: Record<'accepted' | 'succeeded' | 'dead' | 'cancelled' | 'live' | 'pruned' | 'unaccounted', number>
  keyed: { id: string; body: object }
  tasks: Record<
    'succeeded' | 'dead' | 'retrying' | 'waiting' | 'parent' | 'later' | 'cancelled' | 'foreign' | 'running',
    string
  >
  children: string[]
}

const read = (schema: string, file: string) => readFileSync(join(FIXTURES, schema, file), 'utf8')
export const factsOf = (schema: string) => JSON.parse(read(schema, 'facts.json')) as Facts
/** Every statement that the version sent, as text with $1, $2, ... */
export const statementsOf = (schema: string) => JSON.parse(read(schema, 'statements.json')) as string[]

/**
 * Brings the schema and the rows that were left behind into an empty database, as if the old version had been killed just
 * now: else what it kept for an hour or a week would be due or pruned by the day of the test.
 */
export async function loadOldLedger(client: pg.ClientBase, schema: string): Promise<void> {
  await client.query(read(schema, 'data.sql'))
  const { rows: times } = await client.query<{ table: string; changes: string }>(
    `select format('%I.%I', table_schema, table_name) as table,
       string_agg(format('%1$I = %1$I + $1::interval', column_name), ', ') as changes
     from information_schema.columns join information_schema.tables using (table_schema, table_name)
     where table_schema = 'public' and table_type = 'BASE TABLE' and data_type = 'timestamp with time zone'
     group by 1`,
  )
  const { rows } = await client.query<{ since: string }>(
    'select (now() - max(beat_at))::text as since from public.nodes',
  )
  for (const { table, changes } of times) await client.query(`update ${table} set ${changes}`, [rows[0]?.since])
}

/** An installation with the ledger that an old version left behind when it was killed. */
export interface OldInstallation extends AsyncDisposable {
  readonly folder: NodeFolder
  /** Starts this version on it, with the old version's admin key. */
  spawn(options?: NodeOptions): NodeProcess
  /** Runs `work` on the database, without a node: starts the embedded one for that. */
  withDatabase<T>(work: (client: pg.Client, connection: ConnectionOptions) => Promise<T>): Promise<T>
}

export async function oldInstallation(engine: Engine, schema: string): Promise<OldInstallation> {
  const folder = await nodeFolder()
  const admin = engine === 'server' ? await adminUrl(engine) : undefined
  const name = `longshore_test_${process.pid}_${Math.random().toString(36).slice(2)}`
  const url = admin && inDatabase(admin, name)
  if (admin) await once({ url: admin }, (client) => client.query(`create database ${name}`))

  const installation: OldInstallation = {
    folder,
    spawn: ({ env = {}, ...options } = {}) =>
      spawnNode(folder, {
        ...options,
        env: { LONGSHORE_ADMIN_KEY: factsOf(schema).adminKey, ...(url ? { DATABASE_URL: url } : {}), ...env },
      }),
    async withDatabase(work) {
      if (url) return once({ url }, work)
      const dataDir = join(folder.path, 'data')
      await mkdir(dataDir, { recursive: true })
      const postgres = await startEmbeddedPostgres({ dataDir, log: pino({ level: 'silent' }) })
      return once(postgres.connection, work).finally(() => postgres.stop())
    },
    async [Symbol.asyncDispose]() {
      await folder[Symbol.asyncDispose]()
      if (admin) await once({ url: admin }, (client) => client.query(`drop database ${name} with (force)`))
    },
  }
  await installation.withDatabase((client) => loadOldLedger(client, schema))
  return installation
}

async function once<T>(
  connection: ConnectionOptions,
  work: (client: pg.Client, connection: ConnectionOptions) => Promise<T>,
): Promise<T> {
  const client = await connectClient(clientConfig(connection, 'longshore-test'))
  return work(client, connection).finally(() => client.end())
}
