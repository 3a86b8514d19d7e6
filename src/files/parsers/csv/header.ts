import { type CsvFormat, FORMAT_LIMITS } from '../../../task/source/file-format.ts'
import { FileFault } from '../../file-fault.ts'

/** The columns' names: those of the header, or those that the format gives instead. Throws FileFault `columns`. */
export function headerNames(format: CsvFormat, header: readonly string[]): string[] {
  const { columns } = format
  if (columns && columns.length !== header.length) {
    const what = `The header has ${count(header.length)}, the format names ${columns.length}`
    throw new FileFault('columns', what, 'name as many in "columns", or leave it out to take the names of the header')
  }
  const names = columns ?? header
  if (names.length > FORMAT_LIMITS.columns) {
    const what = `The header has ${count(names.length)}; ${FORMAT_LIMITS.columns} are the most`
    throw new FileFault('columns', what, 'is "delimiter" right?')
  }
  const seen = new Set<string>()
  for (const [index, name] of names.entries()) {
    if (name === '') throw unnamed(`The header's column ${index + 1} has no name`)
    if (name.includes('\0')) {
      const what = `The name of the header's column ${index + 1} holds a NUL character`
      throw new FileFault('columns', what, 'is "encoding" right? A file in UTF-16 has one beside each letter')
    }
    if (seen.has(name)) throw unnamed(`The header names the column ${JSON.stringify(name)} twice`)
    seen.add(name)
  }
  for (const name of Object.keys(format.types ?? {})) {
    if (!seen.has(name)) throw missing(name, names)
  }
  return [...names]
}

function unnamed(what: string): FileFault {
  return new FileFault('columns', what, 'mend the file, or give the names in "columns"')
}

function missing(name: string, names: readonly string[]): FileFault {
  const shown = names.slice(0, 20).map((column) => JSON.stringify(column.slice(0, 60)))
  const what = `The file has no column ${JSON.stringify(name)}, which "types" names; it has ${shown.join(', ')}`
  return new FileFault(
    'columns',
    what,
    'mend the file or the format, and look whether "delimiter" and "encoding" are right',
  )
}

function count(columns: number): string {
  return columns === 1 ? '1 column' : `${columns} columns`
}
