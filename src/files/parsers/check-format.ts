import type { FieldError } from '../../runtime/errors.ts'
import type { CsvFormat, FileFormat, FormatChoice } from '../../task/source/file-format.ts'
import { dateReader } from './csv/date-pattern.ts'
import { recordCheck } from './record-schema.ts'

/** What is wrong with a format that satisfies its schema; empty when a parser can be made of it. Paths are JSON Pointers into the choice. */
export function checkFormat(choice: FormatChoice): FieldError[] {
  if (choice.type !== 'by-extension') return checkOne(choice, '')
  const { csv, json, xml } = choice
  return [
    ...(csv ? checkOne({ type: 'csv', ...csv }, '/csv') : []),
    ...(json ? checkOne({ type: 'json', ...json }, '/json') : []),
    ...(xml ? checkOne({ type: 'xml', ...xml }, '/xml') : []),
  ]
}

function checkOne(format: FileFormat, path: string): FieldError[] {
  const errors: FieldError[] = []
  if (format.type === 'csv') errors.push(...checkCsv(format, path))
  if (format.type === 'json' && format.lines && format.path) {
    errors.push({ path: `${path}/path`, message: 'cannot stand beside lines: each line is a record' })
  }
  const checked = format.schema && recordCheck(format.schema)
  if (checked && 'reason' in checked) errors.push({ path: `${path}/schema`, message: checked.reason })
  return errors
}

function checkCsv(format: CsvFormat, path: string): FieldError[] {
  const { delimiter = ',', quote = '"', columns, header = true, types = {}, comment, decimal = '.', grouping } = format
  const errors: FieldError[] = []
  const refuse = (field: string, message: string) => errors.push({ path: `${path}/${field}`, message })
  for (const [field, mark] of Object.entries({ delimiter, quote, escape: format.escape, comment })) {
    if (mark && /[\r\n\0]/.test(mark)) refuse(field, 'cannot hold a line break or NUL')
  }
  if (quote !== null && delimiter.includes(quote)) refuse('delimiter', 'cannot hold the quote')
  if (format.escape !== undefined && delimiter.includes(format.escape)) refuse('escape', 'cannot be in the delimiter')
  if (quote === null && format.escape !== undefined) refuse('escape', 'has no use without a quote')
  if (comment !== undefined && (comment === delimiter || comment === quote))
    refuse('comment', 'is the delimiter or the quote')
  if (grouping === decimal) refuse('grouping', 'cannot be the decimal mark')
  if (!header && !columns) refuse('columns', 'are needed when there is no header')
  for (const [name, type] of Object.entries(types)) {
    const field = `types/${name.replaceAll('~', '~0').replaceAll('/', '~1')}`
    if (columns && !columns.includes(name)) refuse(field, 'is not among the columns')
    if (typeof type === 'string') continue
    const reader = dateReader(type.pattern)
    if (typeof reader === 'object') refuse(`${field}/pattern`, reader.reason)
  }
  return errors
}
