import { LIMITS } from '../limits.ts'

/**
 * JSON as text: what is stored and delivered is the text that was received, so it is checked and cut without being
 * parsed. The grammar is that of RFC 8259, as `JSON.parse` reads it.
 */

/** Where a value stands in its text: `text.slice(start, end)`, without the space around it. */
export type Span = readonly [start: number, end: number]

/** Why a text is refused. */
export interface JsonFault {
  ok: false
  /** `malformed-json`: `JSON.parse` would throw. `validation`: it is JSON, but not one that can be kept and sent on. */
  code: 'malformed-json' | 'validation'
  /** A sentence for the caller, without the path. */
  reason: string
  /** JSON Pointer (RFC 6901) of the refused value; empty for the whole text and for malformed ones. */
  path: string
  /** Index into the text, in UTF-16 code units. */
  offset: number
}

/** Digits after the decimal point that Postgres's numeric can hold; its jsonb fails on more. */
const MAX_SCALE = 16_383
const MAX_PATH_LENGTH = 512

const QUOTE = 0x22
const BACKSLASH = 0x5c
const COMMA = 0x2c
const COLON = 0x3a
const OPEN_OBJECT = 0x7b
const CLOSE_OBJECT = 0x7d
const OPEN_ARRAY = 0x5b
const CLOSE_ARRAY = 0x5d

/** What a scan meets: `malformed` ends it, `refused` is the first that would be refused in a text that is JSON otherwise. */
interface Findings {
  malformed: { offset: number; reason: string } | undefined
  refused: { offset: number; reason: string } | undefined
}

/**
 * Checks a whole text in one pass, without recursion: grammar, nesting of at most `maxDepth` arrays and objects, no NUL,
 * no lone surrogates (escaped or raw), no number beyond a double's range or Postgres's digits.
 * After `ok`, `JSON.parse` succeeds. A fault of grammar wins over the others, but for too deep a nesting, which ends the scan.
 * An envelope around a payload is a level of its own: pass `LIMITS.jsonDepth + 1` for it, one more for an array of them.
 */
export function checkJsonText(
  text: string,
  { maxDepth = LIMITS.jsonDepth }: { maxDepth?: number } = {},
): { ok: true } | JsonFault {
  const found: Findings = { malformed: undefined, refused: undefined }
  const tooDeep = scanText(text, maxDepth, found)
  if (found.malformed) return { ok: false, code: 'malformed-json', path: '', ...found.malformed }
  if (tooDeep !== undefined) {
    const reason = `is nested deeper than ${maxDepth} levels`
    return { ok: false, code: 'validation', reason, path: pathAt(text, tooDeep), offset: tooDeep }
  }
  if (!found.refused) return { ok: true }
  return { ok: false, code: 'validation', path: pathAt(text, found.refused.offset), ...found.refused }
}

/**
 * The members of the object at `span` (default: the whole text), by decoded name. The text has passed `checkJsonText`.
 * Undefined when the value is no object; a fault when a name stands there twice, because readers disagree on which counts.
 */
export function memberSpans(
  text: string,
  span: Span = [0, text.length],
): { ok: true; members: Map<string, Span> } | JsonFault | undefined {
  let at = skipSpace(text, span[0])
  if (text.charCodeAt(at) !== OPEN_OBJECT) return undefined
  const members = new Map<string, Span>()
  at = skipSpace(text, at + 1)
  while (text.charCodeAt(at) === QUOTE) {
    const nameEnd = skipString(text, at)
    const name = decodeString(text, at, nameEnd)
    if (members.has(name)) {
      const path = pointer(pathAt(text, at), name)
      return { ok: false, code: 'validation', reason: 'stands in the object more than once', path, offset: at }
    }
    const start = skipSpace(text, skipSpace(text, nameEnd) + 1)
    const end = skipValue(text, start)
    members.set(name, [start, end])
    at = skipSpace(text, end)
    if (text.charCodeAt(at) === COMMA) at = skipSpace(text, at + 1)
  }
  return { ok: true, members }
}

/** The elements of the array at `span` (default: the whole text), or undefined when the value is none. The text has passed `checkJsonText`. */
export function elementSpans(text: string, span: Span = [0, text.length]): Span[] | undefined {
  let at = skipSpace(text, span[0])
  if (text.charCodeAt(at) !== OPEN_ARRAY) return undefined
  const elements: Span[] = []
  at = skipSpace(text, at + 1)
  while (at < text.length && text.charCodeAt(at) !== CLOSE_ARRAY) {
    const end = skipValue(text, at)
    elements.push([at, end])
    at = skipSpace(text, end)
    if (text.charCodeAt(at) === COMMA) at = skipSpace(text, at + 1)
  }
  return elements
}

/** One pass over the grammar. Returns the offset of the bracket that nests too deep, else undefined with `found` filled. */
function scanText(text: string, maxDepth: number, found: Findings): number | undefined {
  const closers: number[] = []
  let at = skipSpace(text, 0)
  for (;;) {
    // A value starts here.
    const code = text.charCodeAt(at)
    if (code === OPEN_OBJECT || code === OPEN_ARRAY) {
      if (closers.length === maxDepth) return at
      const closer = code === OPEN_OBJECT ? CLOSE_OBJECT : CLOSE_ARRAY
      at = skipSpace(text, at + 1)
      if (text.charCodeAt(at) === closer) {
        at++
      } else {
        closers.push(closer)
        if (closer === CLOSE_OBJECT) at = scanName(text, at, found)
        if (at < 0) return undefined
        continue
      }
    } else {
      at = code === QUOTE ? scanString(text, at, found) : scanScalar(text, at, found)
      if (at < 0) return undefined
    }
    // A value has ended here: close what ends with it, up to the next comma.
    for (;;) {
      at = skipSpace(text, at)
      const closer = closers.at(-1)
      if (closer === undefined) {
        if (at < text.length) malformed(found, text, at, 'there is more after the end of the value')
        return undefined
      }
      const next = text.charCodeAt(at)
      if (next === closer) {
        closers.pop()
        at++
        continue
      }
      if (next !== COMMA) {
        malformed(found, text, at, `expected "," or "${String.fromCharCode(closer)}"`)
        return undefined
      }
      at = skipSpace(text, at + 1)
      if (closer === CLOSE_OBJECT) at = scanName(text, at, found)
      if (at < 0) return undefined
      break
    }
  }
}

/** A member's name and colon; returns where its value starts, or -1. */
function scanName(text: string, start: number, found: Findings): number {
  if (text.charCodeAt(start) !== QUOTE) return malformed(found, text, start, 'expected a name in double quotes')
  const end = scanString(text, start, found)
  if (end < 0) return -1
  const colon = skipSpace(text, end)
  if (text.charCodeAt(colon) !== COLON) return malformed(found, text, colon, 'expected ":" after a name')
  return skipSpace(text, colon + 1)
}

/** A string from its opening quote; returns the offset behind its closing one, or -1. */
function scanString(text: string, start: number, found: Findings): number {
  const { length } = text
  let at = start + 1
  while (at < length) {
    const code = text.charCodeAt(at)
    if (code === QUOTE) return at + 1
    if (code === BACKSLASH) {
      at = scanEscape(text, at, found)
      if (at < 0) return -1
    } else if (code < 0x20) {
      return malformed(found, text, at, 'a control character must be escaped')
    } else if ((code & 0xf800) === 0xd800) {
      const paired = code < 0xdc00 && (text.charCodeAt(at + 1) & 0xfc00) === 0xdc00
      if (!paired) found.refused ??= { offset: start, reason: 'holds a lone surrogate, which is no Unicode text' }
      at += paired ? 2 : 1
    } else {
      at++
    }
  }
  return malformed(found, text, start, 'a string has no closing quote')
}

/** An escape from its backslash, a surrogate pair as one; returns the offset behind it, or -1. */
function scanEscape(text: string, at: number, found: Findings): number {
  const kind = text[at + 1]
  if (kind !== 'u') {
    if (kind !== undefined && '"\\/bfnrt'.includes(kind)) return at + 2
    return malformed(found, text, at, 'unknown escape')
  }
  const unit = escapedUnit(text, at)
  if (unit === undefined) return malformed(found, text, at, 'a \\u escape needs four hexadecimal digits')
  if (unit === 0) found.refused ??= { offset: at, reason: 'holds a NUL character, which Postgres cannot store' }
  if ((unit & 0xf800) !== 0xd800) return at + 6
  const low = unit < 0xdc00 ? escapedUnit(text, at + 6) : undefined
  if (low !== undefined && (low & 0xfc00) === 0xdc00) return at + 12
  found.refused ??= { offset: at, reason: 'holds a lone surrogate, which is no Unicode text' }
  return at + 6
}

/** The code unit of the `\uXXXX` at `at`; undefined when none stands there. */
function escapedUnit(text: string, at: number): number | undefined {
  const match = /^\\u([0-9a-fA-F]{4})/.exec(text.slice(at, at + 6))
  return match ? Number.parseInt(match[1] as string, 16) : undefined
}

/** A number, `true`, `false` or `null`; returns the offset behind it, or -1. */
function scanScalar(text: string, start: number, found: Findings): number {
  for (const word of ['true', 'false', 'null']) if (text.startsWith(word, start)) return start + word.length
  let at = start
  if (text[at] === '-') at++
  if (text[at] === '0') at++
  else {
    const digits = skipDigits(text, at)
    if (digits === at) return malformed(found, text, at, 'expected a value')
    at = digits
  }
  let plain = true
  if (text[at] === '.') {
    const digits = skipDigits(text, at + 1)
    if (digits === at + 1) return malformed(found, text, digits, 'expected a digit after the decimal point')
    at = digits
  }
  if (text[at] === 'e' || text[at] === 'E') {
    plain = false
    const sign = text[at + 1] === '+' || text[at + 1] === '-' ? 1 : 0
    const digits = skipDigits(text, at + 1 + sign)
    if (digits === at + 1 + sign) return malformed(found, text, digits, 'expected a digit in the exponent')
    at = digits
  }
  if (!(plain && at - start <= 300) && isOutOfRange(text.slice(start, at))) {
    found.refused ??= { offset: start, reason: 'is a number out of range' }
  }
  return at
}

function isOutOfRange(number: string): boolean {
  if (!Number.isFinite(Number(number))) return true
  const [mantissa = '', exponent = '0'] = number.toLowerCase().split('e')
  const point = mantissa.indexOf('.')
  const fraction = point < 0 ? 0 : mantissa.length - point - 1
  return fraction - Number(exponent) > MAX_SCALE || Number(exponent) > MAX_SCALE
}

function malformed(found: Findings, text: string, offset: number, reason: string): -1 {
  found.malformed = { offset, reason: offset >= text.length ? 'the text ends too early' : reason }
  return -1
}

function skipDigits(text: string, start: number): number {
  let at = start
  for (let code = text.charCodeAt(at); code >= 0x30 && code <= 0x39; code = text.charCodeAt(++at));
  return at
}

function skipSpace(text: string, start: number): number {
  let at = start
  for (;;) {
    const code = text.charCodeAt(at)
    if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return at
    at++
  }
}

/** Behind the string whose opening quote stands at `start`, in a text that is known to be JSON. */
function skipString(text: string, start: number): number {
  let at = start + 1
  while (at < text.length) {
    const code = text.charCodeAt(at)
    if (code === QUOTE) return at + 1
    at += code === BACKSLASH ? 2 : 1
  }
  return at
}

/** Behind the value that starts at `start`, in a text that is known to be JSON. */
function skipValue(text: string, start: number): number {
  let depth = 0
  let at = start
  while (at < text.length) {
    const code = text.charCodeAt(at)
    if (code === QUOTE) {
      at = skipString(text, at)
      if (depth === 0) return at
      continue
    }
    if (code === OPEN_OBJECT || code === OPEN_ARRAY) depth++
    else if (code === CLOSE_OBJECT || code === CLOSE_ARRAY) {
      // A scalar ends where its container closes.
      if (depth === 0) return at
      if (--depth === 0) return at + 1
    } else if (depth === 0 && (code === COMMA || code <= 0x20)) return at
    at++
  }
  return at
}

function decodeString(text: string, start: number, end: number): string {
  const raw = text.slice(start + 1, end - 1)
  return raw.includes('\\') ? (JSON.parse(text.slice(start, end)) as string) : raw
}

/** The JSON Pointer of the value in which `offset` lies; all before it is known to be JSON. Only for messages: slow. */
function pathAt(text: string, offset: number): string {
  // In an object the key is undefined until its name has been read: what is wrong there is wrong with the object.
  const open: { array: boolean; key: string | number | undefined }[] = []
  let at = 0
  while (at < offset) {
    const code = text.charCodeAt(at)
    const inside = open.at(-1)
    if (code === QUOTE) {
      const end = skipString(text, at)
      if (end > offset) break
      if (inside && inside.key === undefined) inside.key = decodeString(text, at, end)
      at = end
      continue
    }
    if (code === OPEN_OBJECT) open.push({ array: false, key: undefined })
    else if (code === OPEN_ARRAY) open.push({ array: true, key: 0 })
    else if (code === CLOSE_OBJECT || code === CLOSE_ARRAY) open.pop()
    else if (code === COMMA && inside) inside.key = inside.array ? Number(inside.key) + 1 : undefined
    at++
  }
  return open.reduce((path, { key }) => (key === undefined ? path : pointer(path, key)), '')
}

function pointer(path: string, key: string | number): string {
  return `${path}/${String(key).replaceAll('~', '~0').replaceAll('/', '~1')}`.slice(0, MAX_PATH_LENGTH)
}
