import type pg from 'pg'
import { type Batcher, createBatcher } from '../../runtime/batcher.ts'
import { type Clock, realClock } from '../../runtime/clock.ts'
import { messageOf } from '../../runtime/errors.ts'
import type { TableSettings } from '../../task/attempt/thread-messages.ts'
import { failed, type Outcome } from '../../task/outcome.ts'
import type { TableName } from '../../task/target/names.ts'
import { isMissing, isRowFault, isShapeFault, isWorthAnotherTry, refusal, stateOf } from './failure.ts'
import { createNotes } from './notes.ts'
import { CONNECTIONS, openPool } from './pool.ts'
import type { Row } from './row.ts'
import { findRefusedColumn, insertRows, missingColumns, qualified } from './statements.ts'

const MAX_ROWS = 500
/** In UTF-16 code units of JSON. */
const MAX_WEIGHT = 8 * 1024 * 1024
const TRIES = 3

const SUCCEEDED: Outcome = { kind: 'succeeded' }

/** Writes rows to the tables of one database. */
export interface TableWriter {
  /** Resolves when the row is committed, or says why it is not. Rows that come while a statement is in flight share the next one. */
  write(name: TableName, row: Row): Promise<Outcome>
  close(): Promise<void>
}

/** Connects when first used. */
export function createTableWriter(settings: TableSettings, clock: Clock = realClock): TableWriter {
  const notes = createNotes({ withSchema: settings.onlySchema, clock })
  /** By table and columns: rows of one shape are one statement. */
  const batchers = new Map<string, Batcher<Row, Outcome>>()
  let opened: pg.Pool | undefined

  function pool(): pg.Pool {
    opened ??= openPool(settings)
    return opened
  }

  /** A lost reply to a commit costs another statement, which finds the tasks noted. */
  async function insert(name: TableName, rows: Row[]): Promise<void> {
    for (let tries = 1; ; tries++) {
      try {
        await notes.ensure(pool(), name.schema)
        return await insertRows(pool(), name, rows)
      } catch (error) {
        if (isMissing(error)) notes.forget(name.schema)
        if (tries >= TRIES || !(isWorthAnotherTry(error) || (isMissing(error) && tries === 1))) throw error
      }
    }
  }

  async function run(name: TableName, rows: Row[]): Promise<Outcome[]> {
    try {
      await insert(name, rows)
      notes.pruneSometimes(pool(), name.schema)
      return rows.map(() => SUCCEEDED)
    } catch (error) {
      if (isShapeFault(error)) return await explainShape(name, rows, error)
      if (!isRowFault(error)) {
        const outcome = failed(`Cannot insert into ${qualified(name)}: ${messageOf(error)}${whatToDo(error)}`, true)
        return rows.map(() => outcome)
      }
      // The batcher repeats the halves, so that innocent rows go in.
      if (rows.length > 1) throw error
      const column = await findRefusedColumn(pool(), name, rows[0] as Row)
      return [failed(`${qualified(name)}: ${refusal(error, column)}`, false)]
    }
  }

  async function explainShape(name: TableName, rows: Row[], error: unknown): Promise<Outcome[]> {
    const missing = await missingColumns(pool(), name, (rows[0] as Row).columns)
    // When somebody has added it meanwhile, the next attempt goes well.
    const outcome =
      missing.length === 0
        ? failed(`${qualified(name)}: ${messageOf(error)}`, true)
        : failed(missing.map((column) => `column "${column}" of ${qualified(name)} does not exist`).join('; '), false)
    return rows.map(() => outcome)
  }

  return {
    write(name, row) {
      const key = JSON.stringify([name.schema, name.table, row.columns])
      const known = batchers.get(key)
      if (known) return known.add(row)
      const batcher = createBatcher<Row, Outcome>({
        run: (rows) => run(name, rows),
        splitOnError: isRowFault,
        lanes: CONNECTIONS,
        maxBatch: MAX_ROWS,
        maxWaiting: Number.POSITIVE_INFINITY,
        weigh: ({ record }) => record.length,
        maxBatchWeight: MAX_WEIGHT,
      })
      batchers.set(key, batcher)
      const written = batcher.add(row)
      // Payloads may have any number of shapes: what is not in use is forgotten.
      void batcher.idle().then(() => batchers.delete(key))
      return written
    },
    close: async () => opened?.end(),
  }
}

function whatToDo(error: unknown): string {
  if (isMissing(error)) return ' (make it: the task is tried again)'
  if (stateOf(error) === '42501') return ' (grant it: the task is tried again)'
  return ''
}
