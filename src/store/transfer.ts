import { createReadStream, createWriteStream } from 'node:fs'
import { open, rename, rm } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { Readable, Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGunzip, createGzip } from 'node:zlib'
import type { PoolClient } from 'pg'
import { from as copyFrom, to as copyTo } from 'pg-copy-streams'
import { messageOf } from '../runtime/errors.ts'
import { type Database, isAboutDatabase } from './database/database.ts'
import { schemaStatus } from './database/migrate.ts'
import { inTransaction } from './database/statement.ts'
import { IS_ALIVE } from './nodes.ts'

/*
 * A ledger as one file: gzip around lines. The first is JSON about the whole; then, for each table, a line of JSON with its
 * columns, its rows as COPY writes them, and `\.`.
 */

/** Every table that is worth taking along, those that others refer to first. Locks, tokens and events are of the moment. */
const TABLES = [
  ...['queues', 'exchanges', 'bindings', 'consumers', 'nodes', 'tasks', 'counters', 'keys', 'settings'],
  ...['schedules', 'fires', 'sources', 'files', 'rejects'],
] as const

/** What a first start makes by itself. */
const MADE_AT_START = ['queues', 'exchanges', 'bindings', 'consumers', 'nodes', 'keys', 'settings'] as const

const FORMAT = 1

interface Head {
  format: number
  /** The migrations that made its schema. */
  schema: string[]
  at: string
}

interface TableHead {
  table: string
  columns: string[]
}

/** Rows by table. */
export type Transferred = Record<string, number>

/** The ledger cannot be moved as it is; the message says why and what to do. */
export class TransferRefused extends Error {
  override readonly name = 'TransferRefused'
}

/**
 * Writes the whole ledger, as it is at one instant, to `path`, which is there when it is whole. Refuses while nodes live, unless
 * `live`: what they do after that instant is not in it, and would be done again where it is imported.
 */
export async function exportLedger({ pool, db }: Database, path: string, live: boolean): Promise<Transferred> {
  const { applied } = await schemaStatus({ pool, db } as Database)
  const tx = await pool.connect()
  const partial = `${path}.partial`
  try {
    await tx.query('begin isolation level repeatable read read only')
    if (!live) await refuseLiving(tx, 'or export a ledger at work with --live, to look at it')
    const rows: Transferred = {}
    await pipeline(
      Readable.from(exported(tx, applied, rows)),
      createGzip({ level: 6 }),
      createWriteStream(partial, { mode: 0o600 }),
    )
    const file = await open(partial)
    await file.sync().finally(() => file.close())
    await rename(partial, path)
    return rows
  } catch (error) {
    await rm(partial, { force: true })
    throw error
  } finally {
    await tx.query('rollback').catch(() => {})
    tx.release()
  }
}

async function* exported(tx: PoolClient, schema: string[], rows: Transferred): AsyncGenerator<string | Buffer> {
  yield `${JSON.stringify({ format: FORMAT, schema, at: new Date().toISOString() } satisfies Head)}\n`
  for (const table of TABLES) {
    const columns = await columnsOf(tx, table)
    yield `${JSON.stringify({ table, columns } satisfies TableHead)}\n`
    const stream = tx.query(copyTo(`copy ${table} (${quoted(columns)}) to stdout`))
    for await (const chunk of stream) yield chunk as Buffer
    rows[table] = stream.rowCount
    yield '\\.\n'
  }
}

/**
 * Reads a ledger from `path` into this database, all of it or nothing. Refuses one that has tasks, one with living nodes, and
 * a file of another schema.
 */
export async function importLedger(database: Database, path: string): Promise<Transferred> {
  const { applied } = await schemaStatus(database)
  return inTransaction(database.pool, async (tx) => {
    await tx.query('lock table nodes, tasks in share row exclusive mode')
    await refuseLiving(tx, 'and import then')
    const { rows: tasks } = await tx.query<{ some: boolean }>('select exists (select from tasks) as some')
    if (tasks[0]?.some) {
      throw new TransferRefused(
        'This ledger has tasks of its own: import into a database that no task was submitted to',
      )
    }
    await tx.query(`truncate ${MADE_AT_START.join(', ')} cascade`)
    const rows = await copyIn(tx, path, applied)
    for (const table of ['fires', 'events']) {
      await tx.query(
        `select setval(pg_get_serial_sequence('${table}', 'id'), greatest(1, (select coalesce(max(id), 0) from ${table})))`,
      )
    }
    return rows
  })
}

async function copyIn(tx: PoolClient, path: string, schema: string[]): Promise<Transferred> {
  const next = linesOf(path)
  const head = readHead(await next(), path)
  if (JSON.stringify(head.schema) !== JSON.stringify(schema)) {
    throw new TransferRefused(
      `${path} has the schema ${head.schema.at(-1)}, this database ${schema.at(-1)}: export and import with the same version`,
    )
  }
  const rows: Transferred = {}
  for (const _ of TABLES) {
    const { table, columns } = JSON.parse(await next()) as TableHead
    if (!TABLES.some((known) => known === table)) throw new TransferRefused(`${path} has an unknown table, "${table}"`)
    const copy = tx.query(copyFrom(`copy ${table} (${quoted(columns)}) from stdin`))
    await pipeline(Readable.from(rowsOf(next)), inChunks(), copy).catch((error) => {
      if (isAboutDatabase(error)) throw error
      throw new TransferRefused(`${path} is damaged at the table "${table}": ${messageOf(error)}`, { cause: error })
    })
    rows[table] = copy.rowCount
  }
  return rows
}

/** Gives the next line of a packed file; rejects at its end, where there should be more. */
function linesOf(path: string): () => Promise<string> {
  const text = createReadStream(path).pipe(createGunzip())
  const reader = createInterface({ input: text, crlfDelay: Number.POSITIVE_INFINITY })
  const lines = reader[Symbol.asyncIterator]()
  // Lines end without a word when what they are read from fails.
  text.once('error', () => reader.close())
  return async () => {
    const line = await lines.next().catch(() => undefined)
    if (!line || line.done) throw new TransferRefused(`${path} is damaged, or ends in the middle: export again`)
    return line.value
  }
}

function readHead(line: string, path: string): Head {
  try {
    const head = JSON.parse(line) as Head
    if (head.format === FORMAT && Array.isArray(head.schema)) return head
  } catch {
    // Told below.
  }
  throw new TransferRefused(`${path} is no export of Longshore, or one of another version`)
}

async function* rowsOf(next: () => Promise<string>): AsyncGenerator<string> {
  for (let line = await next(); line !== '\\.'; line = await next()) yield `${line}\n`
}

/** One write to the server for many rows. */
function inChunks(): Transform {
  let waiting = ''
  return new Transform({
    writableObjectMode: true,
    transform(line: string, _, done) {
      waiting += line
      if (waiting.length < 64 * 1024) return done()
      const chunk = waiting
      waiting = ''
      done(null, chunk)
    },
    flush(done) {
      done(null, waiting)
    },
  })
}

async function refuseLiving(tx: PoolClient, what: string): Promise<void> {
  const { rows } = await tx.query<{ name: string }>(`select name from nodes n where ${IS_ALIVE} limit 1`)
  if (rows[0]) throw new TransferRefused(`Node ${rows[0].name} works on this ledger: stop every node first, ${what}`)
}

async function columnsOf(tx: PoolClient, table: string): Promise<string[]> {
  const { rows } = await tx.query<{ name: string }>(
    `select attname as name from pg_attribute
     where attrelid = to_regclass($1) and attnum > 0 and not attisdropped order by attnum`,
    [table],
  )
  return rows.map(({ name }) => name)
}

const quoted = (columns: string[]) => columns.map((name) => `"${name.replaceAll('"', '""')}"`).join(', ')
