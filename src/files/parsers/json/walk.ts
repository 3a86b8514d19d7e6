import { checkJsonText } from '../../../task/json/text.ts'
import { FileFault } from '../../file-fault.ts'
import {
  CLOSE_ARRAY,
  CLOSE_OBJECT,
  COLON,
  COMMA,
  literalEnd,
  OPEN_ARRAY,
  OPEN_OBJECT,
  QUOTE,
  skipSpace,
} from './element.ts'

const BACKSLASH = 0x5c
/** Of a name, a number or a word outside of the records, in bytes. */
const MAX_TOKEN = 4 * 1024

/** An array or object that is open, and the name or index of its present member. */
interface Level {
  opener: number
  key: string | number
}

/** What the walk expects next. */
type Expects =
  | 'value'
  | 'value-or-close'
  | 'name'
  | 'name-or-close'
  | 'colon'
  | 'comma-or-close'
  | 'string-rest'
  | 'end'

/**
 * Goes through the document around the array of records, in pieces, and stops wherever one of its elements begins. Names,
 * numbers and structure are checked; of strings that are passed over, only where they end.
 */
export class JsonWalk {
  readonly #levels: Level[] = []
  readonly #tokens: string[]
  #expects: Expects = 'value'
  #isEscaped = false
  /** Levels that are open in the array of records; 0 outside of it. */
  #recordsDepth = 0
  #wasFound = false

  /** `pointer` is the JSON Pointer of the array; with `open`, the walk goes on in it, behind an element. */
  constructor(
    readonly pointer: string,
    open = '',
  ) {
    this.#tokens = pointer.split('/').slice(1).map(unescapeToken)
    for (const opener of open) this.#levels.push({ opener: opener.charCodeAt(0), key: '' })
    this.#recordsDepth = this.#levels.length
    this.#wasFound = open !== ''
    if (open !== '') this.#expects = 'comma-or-close'
  }

  get isInRecords(): boolean {
    return this.#recordsDepth > 0
  }

  /** The open arrays and objects, as `{[`. */
  get open(): string {
    return this.#levels.map(({ opener }) => String.fromCharCode(opener)).join('')
  }

  /** An element has been read. */
  leaveElement(): void {
    this.#expects = 'comma-or-close'
  }

  /**
   * Walks on from `from`. Gives the place up to which the text is done, and whether an element begins there; if not, more
   * text is needed. Throws FileFault, with `offset` as the place in the text.
   */
  walk(text: Buffer, from: number, isLast: boolean): { at: number; isElement: boolean } {
    let at = from
    for (;;) {
      if (this.#expects !== 'string-rest') at = skipSpace(text, at)
      if (at >= text.length) return { at, isElement: false }
      if (this.#beginsElement(text[at] as number)) return { at, isElement: true }
      const next = this.#step(text, at, isLast)
      if (next < 0) return { at, isElement: false }
      at = next
    }
  }

  /** The document ends. Throws FileFault when it should not, or when the records were not in it. */
  end(): void {
    if (this.#expects !== 'end') {
      throw new FileFault('truncated', 'The JSON document ends too early', 'fetch the file again, or mend it')
    }
    if (this.#wasFound) return
    const what = `The document has nothing at ${JSON.stringify(this.pointer)}`
    throw new FileFault('not-found', what, 'let "path" be the JSON Pointer of the array of records')
  }

  #beginsElement(byte: number): boolean {
    if (this.#levels.length !== this.#recordsDepth || this.#recordsDepth === 0) return false
    if (this.#expects === 'value-or-close') return byte !== CLOSE_ARRAY
    return this.#expects === 'value'
  }

  /** One token; the place behind it, or -1 when its end is not in the text. */
  #step(text: Buffer, at: number, isLast: boolean): number {
    const byte = text[at] as number
    switch (this.#expects) {
      case 'value-or-close':
        return byte === CLOSE_ARRAY ? this.#close(byte, at) : this.#value(text, at, isLast)
      case 'value':
        return this.#value(text, at, isLast)
      case 'name-or-close':
        return byte === CLOSE_OBJECT ? this.#close(byte, at) : this.#name(text, at)
      case 'name':
        return this.#name(text, at)
      case 'colon':
        if (byte !== COLON) throw unexpected('":"', at)
        this.#expects = 'value'
        return at + 1
      case 'comma-or-close': {
        if (byte !== COMMA) return this.#close(byte, at)
        this.#expects = this.#levels.at(-1)?.opener === OPEN_ARRAY ? 'value' : 'name'
        return at + 1
      }
      case 'string-rest':
        return this.#stringRest(text, at)
      case 'end':
        throw unexpected('the end of the document', at)
    }
  }

  #value(text: Buffer, at: number, isLast: boolean): number {
    const byte = text[at] as number
    const level = this.#levels.at(-1)
    const isOpening = byte === OPEN_ARRAY || byte === OPEN_OBJECT
    const end = isOpening || byte === QUOTE ? at + 1 : literalEnd(text, at)
    if (end === text.length && !isOpening && byte !== QUOTE && !isLast && end - at <= MAX_TOKEN) return -1
    if (typeof level?.key === 'number') level.key++
    if (this.#isTarget()) this.#enterTarget(byte, at)
    if (isOpening) {
      this.#levels.push({ opener: byte, key: byte === OPEN_ARRAY ? -1 : '' })
      this.#expects = byte === OPEN_ARRAY ? 'value-or-close' : 'name-or-close'
    } else if (byte === QUOTE) {
      this.#expects = 'string-rest'
    } else {
      if (end - at > MAX_TOKEN || !checkJsonText(text.toString('utf8', at, end)).ok) throw unexpected('a value', at)
      this.#expects = this.#levels.length === 0 ? 'end' : 'comma-or-close'
    }
    return end
  }

  #isTarget(): boolean {
    if (this.#levels.length !== this.#tokens.length) return false
    return this.#levels.every(({ key }, index) => String(key) === this.#tokens[index])
  }

  #enterTarget(byte: number, offset: number): void {
    const name = this.pointer === '' ? 'The document' : `What stands at ${JSON.stringify(this.pointer)}`
    if (byte !== OPEN_ARRAY) {
      const advice = 'let "path" be the JSON Pointer of the array of records, or set "lines" for one record a line'
      throw new FileFault('not-found', `${name} is no array`, advice, { offset })
    }
    if (this.#wasFound) throw new FileFault('malformed', `${name} stands there twice`, 'mend the file', { offset })
    this.#wasFound = true
    this.#recordsDepth = this.#levels.length + 1
  }

  #name(text: Buffer, at: number): number {
    if (text[at] !== QUOTE) throw unexpected('a name in double quotes', at)
    let end = at + 1
    while (end < text.length && text[end] !== QUOTE) end += text[end] === BACKSLASH ? 2 : 1
    if (end - at > MAX_TOKEN) throw unexpected(`a name of at most ${MAX_TOKEN} bytes`, at)
    if (end >= text.length) return -1
    const name = text.toString('utf8', at, end + 1)
    const level = this.#levels.at(-1)
    if (!level || !checkJsonText(name).ok) throw unexpected('a name', at)
    level.key = JSON.parse(name) as string
    this.#expects = 'colon'
    return end + 1
  }

  #stringRest(text: Buffer, from: number): number {
    let at = this.#isEscaped ? from + 1 : from
    this.#isEscaped = false
    for (; at < text.length; at++) {
      const byte = text[at] as number
      if (byte === QUOTE) {
        this.#expects = this.#levels.length === 0 ? 'end' : 'comma-or-close'
        return at + 1
      }
      if (byte === BACKSLASH) {
        if (++at === text.length) this.#isEscaped = true
      } else if (byte < 0x20) throw unexpected('no line break within a string', at)
    }
    return text.length
  }

  #close(byte: number, at: number): number {
    const level = this.#levels.pop()
    const closer = level?.opener === OPEN_ARRAY ? CLOSE_ARRAY : CLOSE_OBJECT
    if (byte !== closer) throw unexpected(`"," or "${String.fromCharCode(closer)}"`, at)
    if (this.#levels.length < this.#recordsDepth) this.#recordsDepth = 0
    this.#expects = this.#levels.length === 0 ? 'end' : 'comma-or-close'
    return at + 1
  }
}

function unexpected(expected: string, offset: number): FileFault {
  return new FileFault('malformed', `The file is not JSON: expected ${expected}`, 'mend the file', { offset })
}

function unescapeToken(token: string): string {
  return token.replaceAll('~1', '/').replaceAll('~0', '~')
}
