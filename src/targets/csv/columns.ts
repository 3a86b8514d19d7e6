import { pointerParts, valueAt } from '../../task/json/pointer.ts'
import { memberSpans } from '../../task/json/text.ts'
import type { CsvTarget } from '../../task/target/target.ts'
import { cellOf, csvLine, guarded, type LineFormat } from './line.ts'

export function formatOf({ delimiter = ',', guardFormulas = false }: CsvTarget): LineFormat {
  return { delimiter, guardFormulas }
}

/** The columns that the target names; undefined: the file's, or those of the first payload. */
export function namedColumns({ columns }: CsvTarget): string[] | undefined {
  return columns?.map((column) => (typeof column === 'string' ? column : column.name))
}

/** The columns that a payload would begin a file with, or why it has none. */
export function fieldsOf(payload: string): string[] | { error: string } {
  const object = memberSpans(payload)
  if (!object)
    return { error: 'The payload must be an object whose fields are the columns, or the target needs "columns"' }
  if (!object.ok) return { error: `The payload's ${object.path} ${object.reason}` }
  if (object.members.size === 0) return { error: 'The payload has no fields: there is nothing to write' }
  return [...object.members.keys()]
}

export function headerLine(columns: readonly string[], format: LineFormat): string {
  return csvLine(
    columns.map((column) => guarded(column, format.guardFormulas)),
    format,
  )
}

/** The payload (JSON text that was checked) as a line under `columns`, or why it makes none. */
export function payloadLine(
  payload: string,
  target: CsvTarget,
  columns: readonly string[],
): string | { error: string } {
  const format = formatOf(target)
  if (!target.columns) return fieldsLine(payload, columns, format)
  const isObject = memberSpans(payload) !== undefined
  const cells: (string | null)[] = []
  for (const column of target.columns) {
    if (typeof column === 'string' && !isObject) return { error: 'The payload is no object, so it has no fields' }
    const parts = typeof column === 'string' ? [column] : pointerParts(column.path)
    cells.push(cellOf(valueAt(payload, parts), format))
  }
  return csvLine(cells, format)
}

/** A field without a column is an error: leaving it out would lose what it holds. */
function fieldsLine(payload: string, columns: readonly string[], format: LineFormat): string | { error: string } {
  const fields = fieldsOf(payload)
  if (!Array.isArray(fields)) return fields
  const extra = fields.find((field) => !columns.includes(field))
  if (extra !== undefined) {
    const has = columns.map((column) => `"${column}"`).join(', ')
    return { error: `The payload's field "${extra}" has no column: the file has ${has}. Give the target "columns"` }
  }
  return csvLine(
    columns.map((column) => cellOf(valueAt(payload, [column]), format)),
    format,
  )
}
