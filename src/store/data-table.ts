import pg, { type Pool } from 'pg'
import { MAKING_LOCK } from '../task/target/names.ts'
import { clientConfig } from './database/database.ts'
import { inTransaction } from './database/statement.ts'

/** A table of the user's, with its columns as `create table` writes them. */
export interface DataTable {
  name: string
  columns: readonly (readonly [name: string, definition: string])[]
}

/** Where targets of type table write. */
export interface DataPlace {
  /** Undefined: beside the ledger. */
  url: string | undefined
  schema: string
}

/** Runs `work` where the tables lie; a connection of its own ends with it. */
export async function inPlace<T>(ledger: Pool, { url }: DataPlace, work: (pool: Pool) => Promise<T>): Promise<T> {
  if (url === undefined) return work(ledger)
  const pool = new pg.Pool({ ...clientConfig({ url }, 'longshore'), max: 1 })
  // An idle connection that dies is no news: the next statement tells.
  pool.on('error', () => {})
  try {
    return await work(pool)
  } finally {
    await pool.end()
  }
}

/** Makes the table, unless there is one of its name, in whatever form. Its name and columns are ours, never a caller's. */
export function ensureDataTable(ledger: Pool, place: DataPlace, table: DataTable): Promise<void> {
  return inPlace(ledger, place, (pool) => make(pool, place.schema, table))
}

function make(pool: Pool, schema: string, { name, columns }: DataTable): Promise<void> {
  return inTransaction(pool, async (tx) => {
    await tx.query('select pg_advisory_xact_lock($1)', [MAKING_LOCK])
    // Asked first: "if not exists" needs the right to make one although there is nothing to make.
    const { rowCount } = await tx.query('select from pg_namespace where nspname = $1', [schema])
    if (rowCount === 0) await tx.query(`create schema ${schema}`)
    const definitions = columns.map((column) => column.join(' ')).join(', ')
    await tx.query(`create table if not exists ${schema}.${name} (${definitions})`)
  })
}
