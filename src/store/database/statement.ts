import { type RawBuilder, sql } from 'kysely'
import type { ClientBase, Pool, PoolClient } from 'pg'
import { arrayLiteral } from './array-literal.ts'

/** A value for a `jsonb` column. */
export function jsonb(value: unknown): RawBuilder<object> {
  return sql<object>`${JSON.stringify(value)}::text::jsonb`
}

/** The pool, or the one connection of a transaction. */
export type Queryable = Pool | ClientBase

/** The one connection of a transaction. */
export type Transaction = PoolClient

/**
 * Runs a hot statement as a prepared one: it is parsed once a connection.
 * `name` is unique for `text`.
 */
export async function prepared<Row extends object>(
  tx: Queryable,
  name: string,
  text: string,
  values: unknown[],
): Promise<Row[]> {
  const written = values.map((value) => (Array.isArray(value) ? (arrayLiteral(value) ?? value) : value))
  const { rows } = await tx.query<Row>({ name, text, values: written })
  return rows
}

/** Postgres's time in milliseconds since 1970; the only clock that schedules go by. */
export async function databaseTime(tx: Queryable): Promise<number> {
  const rows = await prepared<{ now: string }>(tx, 'database-time', 'select clock_timestamp() as now', [])
  return Date.parse(rows[0]?.now as string)
}

/** Deadlock detected, serialization failure: nothing was written, and the same again may well go through. */
const REPEATABLE = new Set(['40P01', '40001'])
const TRIES = 5

function isRepeatable(error: unknown): boolean {
  return REPEATABLE.has((error as { code?: string } | undefined)?.code ?? '')
}

/** Runs `work` in one transaction and commits; rolls back and rejects when it throws. Repeats it after a deadlock. */
export function inTransaction<T>(pool: Pool, work: (tx: PoolClient) => Promise<T>): Promise<T> {
  return repeated(() => once(pool, work))
}

/** Runs `work`, one statement or one transaction, and repeats it after a deadlock. */
export async function repeated<T>(work: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await work()
    } catch (error) {
      if (tries >= TRIES || !isRepeatable(error)) throw error
    }
  }
}

async function once<T>(pool: Pool, work: (tx: PoolClient) => Promise<T>): Promise<T> {
  const tx = await pool.connect()
  let broken: Error | undefined
  try {
    await tx.query('begin')
    const result = await work(tx)
    await tx.query('commit')
    return result
  } catch (error) {
    await tx.query('rollback').catch((failure: Error) => {
      broken = failure
    })
    throw error
  } finally {
    tx.release(broken)
  }
}

/** Errors of Postgres that are about what a statement holds: data, constraints, and what is too large or too deep. */
const ABOUT_A_ROW = /^(22|23|54)/

/**
 * A statement failed for what a row of it holds, or for a mistake of ours before it was sent, and would fail again. Anything else,
 * known or not, is the database's state or the way to it: the same may go through later, and no task may end of it.
 */
export function isRefusedRow(error: unknown): boolean {
  if (error instanceof TypeError || error instanceof RangeError || error instanceof SyntaxError) return true
  const { code } = error as { code?: unknown }
  return typeof code === 'string' && code.length === 5 && ABOUT_A_ROW.test(code)
}
