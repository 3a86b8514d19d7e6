import type { RunTarget } from '../../task/attempt/attempt.ts'
import type { TableSettings } from '../../task/attempt/thread-messages.ts'
import { failed } from '../../task/outcome.ts'
import { readTableName } from '../../task/target/names.ts'
import { unlessAborted } from '../unless-aborted.ts'
import { readRow } from './row.ts'
import { createTableWriter } from './writer.ts'

/**
 * Inserts payloads as rows of Postgres tables. A row and the note that its task is applied are written together, so that
 * another attempt at the task adds nothing. What a row holds and its table refuses is dead; all else is tried again,
 * because somebody can mend it. `close` ends its connections.
 */
export function createTableTarget({
  tables,
}: {
  tables: TableSettings | null
}): RunTarget & { close(): Promise<void> } {
  const writer = tables && createTableWriter(tables)
  const run: RunTarget = async ({ id, payload, target }, { signal }) => {
    if (target.type !== 'table') throw new TypeError(`The table target was given a target of type ${target.type}`)
    if (!tables || !writer) return failed('This process has no database for tables: set TABLE_DATABASE_URL', true)
    const name = readTableName(target.table, tables)
    if ('reason' in name) return failed(`The table ${name.reason}`, false)
    const row = readRow(id, payload, target)
    if ('error' in row) return failed(row.error, false)
    return unlessAborted(signal, writer.write(name, row))
  }
  return Object.assign(run, { close: async () => writer?.close() })
}
