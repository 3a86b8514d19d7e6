import { type Static, Type } from '@sinclair/typebox'

/** How a file is read as records: what a source says of its files, and what the parsers under files/ go by. */

/** Bounds of a format. Sizes in bytes. */
export const FORMAT_LIMITS = {
  minRecordBytes: 1024,
  maxRecordBytes: 8 * 1024 * 1024,
  columns: 2_000,
  schemaBytes: 64 * 1024,
  pathLength: 512,
} as const

export const DEFAULT_MAX_RECORD_BYTES = 1024 * 1024

const COMMON = {
  maxRecordBytes: Type.Optional(
    Type.Integer({
      minimum: FORMAT_LIMITS.minRecordBytes,
      maximum: FORMAT_LIMITS.maxRecordBytes,
      default: DEFAULT_MAX_RECORD_BYTES,
      description: 'A longer record is rejected, in bytes. What it becomes as JSON may have 1 MiB at most',
    }),
  ),
  schema: Type.Optional(
    Type.Record(Type.String(), Type.Unknown(), {
      description:
        'JSON Schema that each record must satisfy, else it is rejected: 2020-12, or draft-07 if `$schema` says so. At most 64 KiB; `$ref` only within it',
      examples: [{ type: 'object', required: ['client_name', 'amount'] }],
    }),
  ),
}

const Name = Type.String({ minLength: 1, maxLength: 256 })
const EMPTY = {
  empty: Type.Optional(
    Type.Union([Type.Literal('null'), Type.Literal('string')], {
      default: 'null',
      description: 'What an empty value becomes: null, or "" (in columns of other types always null)',
    }),
  ),
}

export const ENCODINGS = ['utf-8', 'utf-16le', 'utf-16be', 'windows-1252', 'iso-8859-1'] as const
export type Encoding = (typeof ENCODINGS)[number]

const DateColumn = Type.Object(
  {
    type: Type.Literal('date'),
    pattern: Type.String({
      minLength: 1,
      maxLength: 64,
      description:
        'yyyy, MM or M, dd or d, HH or H, mm, ss, SSS (fraction), XXX (Z or an offset); other characters stand for themselves, letters in single quotes',
      examples: ['dd.MM.yyyy', "yyyy-MM-dd'T'HH:mm:ssXXX"],
    }),
  },
  {
    additionalProperties: false,
    description: 'Becomes text as in ISO 8601: 2025-01-31, or 2025-01-31T10:00:00 with a time',
  },
)

export const ColumnTypeSchema = Type.Union(
  [
    Type.Literal('string'),
    Type.Literal('integer', { description: 'Of any size; the digits are kept' }),
    Type.Literal('number', { description: 'The nearest double; an exponent may follow' }),
    Type.Literal('decimal', { description: 'A number with exactly the digits of the file: 1,10 becomes 1.10' }),
    Type.Literal('boolean', { description: 'true, t, yes, y, 1 and false, f, no, n, 0, in any case' }),
    Type.Literal('json', { description: 'JSON in the field, kept as it is' }),
    DateColumn,
  ],
  { default: 'string' },
)
export type ColumnType = Static<typeof ColumnTypeSchema>

const CSV_OPTIONS = {
  delimiter: Type.Optional(
    Type.String({
      minLength: 1,
      maxLength: 8,
      default: ',',
      description: 'Between fields; never guessed. By extension, .tsv files have a tab',
      examples: [';', '\t'],
    }),
  ),
  quote: Type.Optional(
    Type.Union([Type.String({ minLength: 1, maxLength: 1 }), Type.Null()], {
      default: '"',
      description: 'Around fields; null: no quoting',
    }),
  ),
  escape: Type.Optional(
    Type.String({
      minLength: 1,
      maxLength: 1,
      description: 'In front of a quote in a quoted field; the quote itself by default',
    }),
  ),
  header: Type.Optional(
    Type.Boolean({ default: true, description: 'Whether the first record names the columns; if not, `columns` does' }),
  ),
  columns: Type.Optional(
    Type.Array(Name, {
      minItems: 1,
      maxItems: FORMAT_LIMITS.columns,
      uniqueItems: true,
      description: "The columns' names in order; with a header, they stand instead of its names",
      examples: [['client_name', 'amount', 'date']],
    }),
  ),
  types: Type.Optional(
    Type.Record(Type.String(), ColumnTypeSchema, {
      maxProperties: FORMAT_LIMITS.columns,
      description: 'Types by column; string by default. A column that the file does not have fails it',
      examples: [{ amount: 'decimal', date: { type: 'date', pattern: 'dd.MM.yyyy' } }],
    }),
  ),
  decimal: Type.Optional(
    Type.Union([Type.Literal('.'), Type.Literal(',')], { default: '.', description: 'Decimal mark of numbers' }),
  ),
  grouping: Type.Optional(
    Type.Union(
      ['.', ',', ' ', "'", '\u00a0', '\u202f'].map((mark) => Type.Literal(mark)),
      { description: 'Mark between groups of three digits; none by default' },
    ),
  ),
  encoding: Type.Optional(
    Type.Union(
      ENCODINGS.map((encoding) => Type.Literal(encoding)),
      { default: 'utf-8', description: 'A byte order mark in the file wins over it' },
    ),
  ),
  trim: Type.Optional(
    Type.Boolean({ default: false, description: 'Removes white space around fields; inside quotes it stays' }),
  ),
  ...EMPTY,
  comment: Type.Optional(
    Type.String({ minLength: 1, maxLength: 8, description: 'Lines that begin with it are skipped', examples: ['#'] }),
  ),
  skipLines: Type.Optional(
    Type.Integer({ minimum: 0, maximum: 1_000, default: 0, description: 'Lines to skip before the header' }),
  ),
  relaxQuotes: Type.Optional(
    Type.Boolean({
      default: false,
      description: 'Takes a quote within an unquoted field as text instead of rejecting the record',
    }),
  ),
  missingColumns: Type.Optional(
    Type.Union([Type.Literal('reject'), Type.Literal('null')], {
      default: 'reject',
      description: 'What happens to a record with too few fields',
    }),
  ),
  extraColumns: Type.Optional(
    Type.Union([Type.Literal('reject'), Type.Literal('drop')], {
      default: 'reject',
      description: 'What happens to a record with too many fields',
    }),
  ),
  ...COMMON,
}

const JSON_OPTIONS = {
  path: Type.Optional(
    Type.String({
      maxLength: FORMAT_LIMITS.pathLength,
      pattern: '^(/([^~/]|~[01])*)*$',
      default: '',
      description: 'JSON Pointer (RFC 6901) to the array of records; empty: the document is the array',
      examples: ['/data/rows'],
    }),
  ),
  lines: Type.Optional(
    Type.Boolean({
      default: false,
      description: 'JSON Lines: one record a line, of .ndjson and .jsonl files by default',
    }),
  ),
  ...COMMON,
}

const XML_OPTIONS = {
  path: Type.String({
    maxLength: FORMAT_LIMITS.pathLength,
    pattern: '^(/[^/\\s]+)+$',
    description: 'Path of the record element from the root; `*` stands for any element',
    examples: ['/orders/order'],
  }),
  namespaces: Type.Optional(
    Type.Union([Type.Literal('strip'), Type.Literal('keep')], {
      default: 'strip',
      description:
        'strip: `ns:name` is `name`, and declarations are dropped. keep: names and declarations as they stand',
    }),
  ),
  arrays: Type.Optional(
    Type.Array(Name, {
      maxItems: 1_000,
      uniqueItems: true,
      description: 'Elements that become arrays even when they stand there once; repeated ones always do',
      examples: [['line']],
    }),
  ),
  trim: Type.Optional(Type.Boolean({ default: false, description: 'Removes white space around text' })),
  ...EMPTY,
  ...COMMON,
}

const CLOSED = { additionalProperties: false } as const

export const CsvFormatSchema = Type.Object(
  { type: Type.Literal('csv'), ...CSV_OPTIONS },
  {
    ...CLOSED,
    title: 'csv',
    description: 'RFC 4180 with any delimiter. Each record becomes an object of its columns',
    examples: [{ type: 'csv', delimiter: ';', decimal: ',', encoding: 'windows-1252', types: { amount: 'decimal' } }],
  },
)
export type CsvFormat = Static<typeof CsvFormatSchema>

export const JsonFormatSchema = Type.Object(
  { type: Type.Literal('json'), ...JSON_OPTIONS },
  {
    ...CLOSED,
    title: 'json',
    description:
      'Each element of the array, or each line, is a record: the very text, so numbers keep all digits. UTF-8',
    examples: [{ type: 'json', path: '/data/rows' }],
  },
)
export type JsonFormat = Static<typeof JsonFormatSchema>

export const XmlFormatSchema = Type.Object(
  { type: Type.Literal('xml'), ...XML_OPTIONS },
  {
    ...CLOSED,
    title: 'xml',
    description:
      'An element with text alone becomes a string; else an object: attributes as `@name`, text beside them as `#text`, repeated elements as arrays. No DOCTYPE',
    examples: [{ type: 'xml', path: '/orders/order', arrays: ['line'] }],
  },
)
export type XmlFormat = Static<typeof XmlFormatSchema>

export const FileFormatSchema = Type.Union([CsvFormatSchema, JsonFormatSchema, XmlFormatSchema], {
  description: 'How a file is read as records',
})
export type FileFormat = Static<typeof FileFormatSchema>

export const ByExtensionSchema = Type.Object(
  {
    type: Type.Literal('by-extension'),
    csv: Type.Optional(Type.Object(CSV_OPTIONS, CLOSED)),
    json: Type.Optional(Type.Object(JSON_OPTIONS, CLOSED)),
    xml: Type.Optional(Type.Object(XML_OPTIONS, CLOSED)),
  },
  {
    ...CLOSED,
    title: 'by-extension',
    description:
      "By the file's extension: .csv, .tsv, .json, .ndjson, .jsonl, .xml (needs `xml`), also before .gz and inside .zip",
    examples: [{ type: 'by-extension', csv: { delimiter: ';' }, xml: { path: '/orders/order' } }],
  },
)

export const FormatChoiceSchema = Type.Union([...FileFormatSchema.anyOf, ByExtensionSchema], {
  description: "A source's format",
})
export type FormatChoice = Static<typeof FormatChoiceSchema>

/** The format of a file of this name (`orders.csv`, `orders.csv.gz`); undefined when the choice has none for its extension. */
export function formatFor(name: string, choice: FormatChoice): FileFormat | undefined {
  if (choice.type !== 'by-extension') return choice
  const extension = /\.([a-z]+)(?:\.gz)?$/.exec(name.toLowerCase())?.[1]
  switch (extension) {
    case 'csv':
      return { type: 'csv', ...choice.csv }
    case 'tsv':
      return { type: 'csv', ...choice.csv, delimiter: '\t' }
    case 'json':
      return { type: 'json', ...choice.json }
    case 'ndjson':
    case 'jsonl':
      return { type: 'json', ...withoutPath(choice.json), lines: true }
    case 'xml':
      return choice.xml && { type: 'xml', ...choice.xml }
    default:
      return undefined
  }
}

function withoutPath<T extends { path?: string }>({ path: _, ...rest }: T = {} as T): Omit<T, 'path'> {
  return rest
}
