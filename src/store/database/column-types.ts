import pg from 'pg'

const OID = {
  int8: 20,
  json: 114,
  jsonArray: 199,
  int8Array: 1016,
  textArray: 1009,
  date: 1082,
  timestamp: 1114,
  timestamptz: 1184,
  timestamptzArray: 1185,
  uuidArray: 2951,
} as const

type Parse = (text: string) => unknown

const asText: Parse = (text) => text
const asTextArray = pg.types.getTypeParser(OID.textArray as number) as (text: string) => (string | null)[]
const UTC_TIMESTAMP = /^\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}(?:\.\d{1,6})?\+00$/

/** Postgres's text of a timestamptz as RFC 3339 in UTC, cut to milliseconds; `infinity` stays as it is. */
export function parseTimestamp(text: string): string {
  if (UTC_TIMESTAMP.test(text))
    return `${text.slice(0, 10)}T${text.slice(11, 19)}.${text.slice(20, -3).slice(0, 3).padEnd(3, '0')}Z`
  const date = new Date(text.replace(' ', 'T').replace(/([+-]\d{2})$/, '$1:00'))
  return Number.isNaN(date.getTime()) ? text : date.toISOString()
}

function parseInt8(text: string): number {
  const value = Number(text)
  if (!Number.isSafeInteger(value)) throw new RangeError(`The bigint ${text} does not fit into a JavaScript number`)
  return value
}

function eachOf(parse: Parse): Parse {
  return (text) => asTextArray(text).map((item) => (item === null ? null : parse(item)))
}

const PARSERS: Readonly<Record<number, Parse>> = {
  [OID.int8]: parseInt8,
  [OID.int8Array]: eachOf(parseInt8),
  // A payload is kept as the text that was received: parsing it would lose key order, `1.0` and large integers.
  [OID.json]: asText,
  [OID.jsonArray]: asTextArray,
  [OID.timestamptz]: parseTimestamp,
  [OID.timestamptzArray]: eachOf(parseTimestamp),
  // Without a zone there is no instant to tell.
  [OID.date]: asText,
  [OID.timestamp]: asText,
  [OID.uuidArray]: asTextArray,
}

/** How this product reads columns. It belongs to a pool: pg's global parsers stay as they are. */
export const columnTypes: pg.CustomTypesConfig = {
  getTypeParser: ((oid: number, format?: 'text' | 'binary') => {
    const parse = format === 'binary' ? undefined : PARSERS[oid]
    return parse ?? pg.types.getTypeParser(oid, format as 'text')
  }) as typeof pg.types.getTypeParser,
}
