import { checkJsonText } from '../../../task/json/text.ts'
import { LIMITS } from '../../../task/limits.ts'
import type { ColumnType, CsvFormat } from '../../../task/source/file-format.ts'
import { type DateReader, dateReader } from './date-pattern.ts'

/** Why a row is no record. */
export interface BadRow {
  reason: string
}

/** The JSON of a field's text, which is not empty; undefined when it is not of the column's type. */
type FieldReader = (text: string) => string | undefined

interface Column {
  name: string
  /** What stands before the value: `,"name":`. */
  head: string
  type: string
  read: FieldReader
  empty: string
}

/** Digits and signs of one number; more than a double has room for anyway. */
const MAX_NUMBER_LENGTH = 300
const MAX_SHOWN = 60
const WORDS: Record<string, string> = {
  ...Object.fromEntries(['true', 't', 'yes', 'y', '1'].map((word) => [word, 'true'])),
  ...Object.fromEntries(['false', 'f', 'no', 'n', '0'].map((word) => [word, 'false'])),
}

/** Makes JSON records of rows, for the columns of one file. */
export class RowWriter {
  readonly #columns: Column[]
  readonly #takesFewer: boolean
  readonly #takesMore: boolean

  /** Every type's pattern has been checked. */
  constructor(format: CsvFormat, names: readonly string[]) {
    this.#takesFewer = format.missingColumns === 'null'
    this.#takesMore = format.extraColumns === 'drop'
    this.#columns = names.map((name, index) => {
      const type = ownType(format, name)
      return {
        name,
        head: `${index === 0 ? '{' : ','}${JSON.stringify(name)}:`,
        type: typeof type === 'string' ? type : `date of the pattern ${type.pattern}`,
        read: fieldReader(type, format),
        empty: type === 'string' && format.empty === 'string' ? '""' : 'null',
      }
    })
  }

  /** Undefined when a row may have so many fields. */
  wrongCount(count: number): BadRow | undefined {
    const wanted = this.#columns.length
    if (count === wanted || (count < wanted ? this.#takesFewer : this.#takesMore)) return undefined
    return { reason: `The record has ${count} ${count === 1 ? 'field' : 'fields'}; the file has ${wanted} columns` }
  }

  /** The record's JSON text. The number of fields has been found right. */
  write(fields: readonly string[]): string | BadRow {
    let json = ''
    for (let index = 0; index < this.#columns.length; index++) {
      const column = this.#columns[index] as Column
      const text = fields[index]
      const value = text === undefined ? 'null' : text === '' ? column.empty : column.read(text)
      if (value === undefined) return { reason: badField(column, text ?? '') }
      json += column.head + value
    }
    return `${json}}`
  }
}

function badField({ name, type }: Column, text: string): string {
  const shown = text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN)}...` : text
  return `Column ${JSON.stringify(name)}: ${JSON.stringify(shown)} is no ${type}`
}

function ownType({ types = {} }: CsvFormat, name: string): ColumnType {
  return Object.hasOwn(types, name) ? (types[name] ?? 'string') : 'string'
}

function fieldReader(type: ColumnType, format: CsvFormat): FieldReader {
  switch (type) {
    case 'string':
      return JSON.stringify
    case 'integer':
      return numberReader(format, integerText)
    case 'decimal':
      return numberReader(format, decimalText)
    case 'number':
      return numberReader(format, doubleText)
    case 'boolean':
      return (text) => {
        const word = text.toLowerCase()
        return Object.hasOwn(WORDS, word) ? WORDS[word] : undefined
      }
    case 'json':
      return (text) => (checkJsonText(text, { maxDepth: LIMITS.jsonDepth - 1 }).ok ? text.trim() : undefined)
    default: {
      const read = dateReader(type.pattern) as DateReader
      return (text) => {
        const date = read(text)
        return date && `"${date}"`
      }
    }
  }
}

/** Brings a number to the form that JSON and English share, then lets `read` look at it. */
function numberReader({ decimal = '.', grouping }: CsvFormat, read: FieldReader): FieldReader {
  const mark = `\\${grouping}`
  const grouped = new RegExp(`^[+-]?\\d{1,3}(?:${mark}\\d{3})+(?:[${decimal}eE][^${mark}]*)?$`)
  return (text) => {
    if (text.length > MAX_NUMBER_LENGTH) return undefined
    let plain = text
    if (grouping !== undefined && plain.includes(grouping)) {
      if (!grouped.test(plain)) return undefined
      plain = plain.replaceAll(grouping, '')
    }
    if (decimal === ',') {
      if (plain.includes('.')) return undefined
      plain = plain.replace(',', '.')
    }
    return read(plain)
  }
}

function integerText(text: string): string | undefined {
  const [, sign = '', digits] = /^([+-]?)0*(\d+)$/.exec(text) ?? []
  if (digits === undefined) return undefined
  return sign === '-' && digits !== '0' ? `-${digits}` : digits
}

function decimalText(text: string): string | undefined {
  const [, sign, whole = '', fraction = ''] = /^([+-]?)0*(\d*)(?:\.(\d*))?$/.exec(text) ?? []
  if (sign === undefined || !/\d/.test(text)) return undefined
  return `${sign === '-' ? '-' : ''}${whole || '0'}${fraction && `.${fraction}`}`
}

function doubleText(text: string): string | undefined {
  if (!/^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/.test(text)) return undefined
  const value = Number(text)
  return Number.isFinite(value) ? String(value) : undefined
}
