import { pointerParts, valueAt } from '../../task/json/pointer.ts'
import { memberSpans } from '../../task/json/text.ts'
import type { ColumnSource, TableTarget } from '../../task/target/target.ts'

/** A task as a row: which columns it fills, and a JSON object with their values, digit by digit as they came. */
export interface Row {
  /** The task's. */
  id: string
  /** Sorted, so that rows of one shape are told by it. */
  columns: string[]
  record: string
}

/** Makes the row that `payload` (JSON text that was checked) is for the target, or says why it makes none. */
export function readRow(id: string, payload: string, { table, columns }: TableTarget): Row | { error: string } {
  return columns ? mappedRow(id, payload, columns) : fieldsAsColumns(id, payload, table)
}

function fieldsAsColumns(id: string, payload: string, table: string): Row | { error: string } {
  const object = memberSpans(payload)
  if (!object || (object.ok && object.members.size === 0)) {
    return {
      error: `The payload must be an object whose fields are the columns of "${table}", or the target needs "columns"`,
    }
  }
  if (!object.ok) return { error: `The payload's ${object.path} ${object.reason}` }
  return { id, columns: [...object.members.keys()].sort(), record: payload }
}

function mappedRow(id: string, payload: string, sources: Record<string, ColumnSource>): Row | { error: string } {
  const columns = Object.keys(sources).sort()
  const members: string[] = []
  for (const column of columns) {
    const source = sources[column] as ColumnSource
    const value = valueFrom(payload, source)
    if (value === undefined) {
      const path = typeof source === 'string' ? source : 'path' in source ? source.path : ''
      return { error: `The payload has nothing at "${path}", which column "${column}" is taken from` }
    }
    members.push(`${JSON.stringify(column)}:${value}`)
  }
  return { id, columns, record: `{${members.join()}}` }
}

/** JSON text. */
function valueFrom(payload: string, source: ColumnSource): string | undefined {
  if (typeof source === 'string') return valueAt(payload, pointerParts(source))
  if ('value' in source) return JSON.stringify(source.value)
  const found = valueAt(payload, pointerParts(source.path))
  return found ?? (source.default === undefined ? undefined : JSON.stringify(source.default))
}
