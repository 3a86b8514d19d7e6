import { execFile, spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { chmod, mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import pg from 'pg'
import { pino } from 'pino'
import { type ConnectionOptions, type Database, openDatabase } from '../../src/store/database/database.ts'
import { migrate } from '../../src/store/database/migrate.ts'
import { PatientPool } from '../../src/store/database/patient-pool.ts'
import { until } from './until.ts'

/** Both kinds of Postgres that the product runs on; tests of the store run on each (or on those that scripts/test.ts found). */
export const ENGINES = (['embedded', 'server'] as const).filter(
  (engine) => process.env.TEST_ENGINES === undefined || process.env.TEST_ENGINES.split(',').includes(engine),
)
export type Engine = (typeof ENGINES)[number]

export interface TestDatabase {
  connection: ConnectionOptions
  database: Database
  /** Closes `database` and drops it, whoever else is connected. */
  drop(): Promise<void>
}

const MIGRATIONS = join(import.meta.dir, '../../db/migrations')
const TEMPLATE_LOCK = 7_431_001
const CONNECT_WITHIN_MS = 50_000
const log = pino({ level: 'warn' })

/** A fresh, migrated database on `engine`; throws when that engine cannot be had. */
export async function testDatabase(engine: Engine, { poolSize = 10 } = {}): Promise<TestDatabase> {
  const { url, drop } = await newDatabase(engine, await templateOf(engine, await adminUrl(engine)))
  const connection = { url }
  const database = openDatabase({ connection, poolSize, log, applicationName: 'longshore-test' })
  return {
    connection,
    database,
    async drop() {
      await database.close()
      await drop()
    },
  }
}

/** A database without anything in it. `drop` does so whoever is connected. */
export function emptyDatabase(engine: Engine): Promise<{ url: string; drop(): Promise<unknown> }> {
  return newDatabase(engine, 'template1')
}

async function newDatabase(engine: Engine, template: string) {
  const admin = await adminUrl(engine)
  const name = `longshore_test_${process.pid}_${randomBytes(5).toString('hex')}`
  await asAdmin(engine, admin, (client) => client.query(`create database ${name} template ${template}`))
  const drop = () => asAdmin(engine, admin, (client) => client.query(`drop database if exists ${name} with (force)`))
  return { url: inDatabase(admin, name), drop }
}

/** A connection of its own, which the caller ends. Waits for it: the nodes of other tests may have them all. */
export async function connectClient(config: pg.ClientConfig): Promise<pg.Client> {
  const deadline = performance.now() + CONNECT_WITHIN_MS
  for (;;) {
    const client = new pg.Client(config)
    client.on('error', () => {})
    try {
      await client.connect()
      return client
    } catch (error) {
      await client.end().catch(() => {})
      if ((error as { code?: unknown }).code !== '53300' || performance.now() > deadline) throw error
    }
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}

/** The superuser's URL of `engine`, database `postgres`. */
export function adminUrl(engine: Engine): Promise<string> {
  if (engine === 'embedded') return embeddedUrl()
  return Promise.resolve(process.env.TEST_SERVER_URL ?? 'postgres://postgres@127.0.0.1:5432/postgres')
}

/** `url` with another database. */
export function inDatabase(url: string, name: string): string {
  return url.replace(/^([a-z]+:\/\/[^/]*\/)[^?]*/, `$1${name}`)
}

/** Waits for a connection: the nodes of other tests may have them all. */
async function asAdmin<T>(engine: Engine, url: string, run: (client: pg.ClientBase) => Promise<T>): Promise<T> {
  const pool = new PatientPool({ connectionString: url, max: 1, connectionTimeoutMillis: CONNECT_WITHIN_MS })
  pool.on('error', () => {})
  try {
    const client = await pool.connect().catch((cause: unknown) => {
      throw new Error(`The engine "${engine}" does not answer at ${url.replace(/:[^:@/]*@/, ':***@')}`, { cause })
    })
    client.on('error', () => {})
    return await run(client).finally(() => client.release())
  } finally {
    await pool.end()
  }
}

/** Runs one of Postgres's programs and gives what it prints; waits for a connection, as `connectClient` does. */
export async function runPostgresClient(program: string, args: string[]): Promise<string> {
  const deadline = performance.now() + CONNECT_WITHIN_MS
  for (;;) {
    try {
      return (await promisify(execFile)(program, args, { maxBuffer: 64 * 1024 * 1024 })).stdout
    } catch (error) {
      const isCrowded = /too many clients|connection slots/.test((error as { stderr?: string }).stderr ?? '')
      if (!isCrowded || performance.now() > deadline) throw error
    }
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}

const templates = new Map<Engine, Promise<string>>()

function templateOf(engine: Engine, admin: string): Promise<string> {
  let template = templates.get(engine)
  if (!template) {
    template = makeTemplate(engine, admin)
    templates.set(engine, template)
  }
  return template
}

/** Migrates a template once for all processes; its name holds a digest of the migrations, so that a change is seen. */
async function makeTemplate(engine: Engine, admin: string): Promise<string> {
  const digest = createHash('sha256')
  for (const file of readdirSync(MIGRATIONS).sort()) digest.update(readFileSync(join(MIGRATIONS, file)))
  const template = `longshore_template_${digest.digest('hex').slice(0, 16)}`
  await asAdmin(engine, admin, async (client) => {
    await client.query('select pg_advisory_lock($1)', [TEMPLATE_LOCK])
    const exists = await client.query('select from pg_database where datname = $1 and datistemplate', [template])
    if (exists.rowCount) return
    await dropLeftovers(client)
    await client.query(`create database ${template}`)
    const database = openDatabase({ connection: { url: inDatabase(admin, template) }, poolSize: 2, log })
    await migrate(database, log).finally(() => database.close())
    await client.query(`alter database ${template} with allow_connections false is_template true`)
  })
  return template
}

/**
 * Templates of other migrations that are a day old (another checkout may use a younger one), half-made ones, and databases of
 * test processes that were killed.
 */
async function dropLeftovers(client: pg.ClientBase): Promise<void> {
  const { rows } = await client.query<{ datname: string }>(
    `select datname from pg_database
     where datname ~ '^longshore_test_' or datname ~ '^longshore_template_' and (not datistemplate
       or (pg_stat_file('base/' || oid || '/PG_VERSION')).modification < now() - interval '1 day')`,
  )
  for (const { datname } of rows) {
    const pid = /^longshore_test_(\d+)_/.exec(datname)?.[1]
    if (pid && isAlive(Number(pid))) continue
    await client.query(`alter database ${datname} with is_template false`)
    await client.query(`drop database if exists ${datname} with (force)`)
  }
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

let starting: Promise<string> | undefined

/**
 * An embedded cluster for this process, started when first needed and shared by its test files. It runs under a keeper
 * process that stops and removes it as soon as this process is gone, however that ends.
 */
function embeddedUrl(): Promise<string> {
  if (process.env.TEST_EMBEDDED_URL) return Promise.resolve(process.env.TEST_EMBEDDED_URL)
  starting ??= startKeeper()
  return starting
}

async function startKeeper(): Promise<string> {
  const folder = `/var/tmp/longshore-test-${process.pid}`
  const read = (name: string) => readFile(join(folder, name), 'utf8').catch(() => undefined)
  if (!existsSync(folder)) {
    await mkdir(folder)
    await chmod(folder, 0o755)
    // Through a shell that ends at once: `bun test --isolate` kills the child processes of a file at its end.
    const keeper = [process.execPath, join(import.meta.dir, 'embedded-keeper.ts'), folder, String(process.pid)]
    spawn('sh', ['-c', '"$@" </dev/null >/dev/null 2>&1 &', 'sh', ...keeper], { stdio: 'ignore', detached: true })
  }
  return until(
    async () => {
      const failure = await read('failure')
      if (failure) throw new Error(`The engine "embedded" does not start: ${failure}`)
      return await read('url')
    },
    { timeoutMs: 60_000, what: `the embedded Postgres in ${folder}` },
  )
}
