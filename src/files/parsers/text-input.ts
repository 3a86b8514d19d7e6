import { isUtf8 } from 'node:buffer'
import type { Encoding } from '../../task/source/file-format.ts'

/** What the first bytes of a file say of its encoding. */
export interface Detected {
  encoding: Encoding
  /** Bytes of the byte order mark. */
  markBytes: number
}

interface Decoded {
  text: Buffer
  invalidAt?: number
}

const EMPTY = Buffer.alloc(0)

/** Of the longest byte order mark. */
export const MARK_BYTES = 3

/** The encoding that a byte order mark names; undefined without one. */
export function detectMark(head: Uint8Array): Detected | undefined {
  const [a, b, c] = head
  if (a === 0xef && b === 0xbb && c === 0xbf) return { encoding: 'utf-8', markBytes: 3 }
  if (a === 0xff && b === 0xfe) return { encoding: 'utf-16le', markBytes: 2 }
  if (a === 0xfe && b === 0xff) return { encoding: 'utf-16be', markBytes: 2 }
  return undefined
}

/**
 * Turns the chunks of a text into UTF-8 chunks of whole characters, so that a parser knows one encoding only. Nothing is
 * replaced: what is not in the encoding is told.
 */
export class TextInput {
  /** The start of a character whose end is in the next chunk. UTF-8 only, the other decoders keep their own. */
  #carry: Buffer = EMPTY
  readonly #decoder: TextDecoder | undefined

  constructor(readonly encoding: Encoding) {
    // ISO 8859-1 is Windows-1252 to a TextDecoder; the Buffer knows the difference.
    const own = encoding === 'utf-8' || encoding === 'iso-8859-1'
    this.#decoder = own ? undefined : new TextDecoder(encoding, { fatal: true, ignoreBOM: true })
  }

  /**
   * The text of `chunk`, as UTF-8. When something in it is not in the encoding, `text` is what stands before, as far as that
   * can be told, and `invalidAt` is where in the chunk (below 0: in the one before).
   */
  push(chunk: Uint8Array): Decoded {
    if (this.encoding === 'utf-8') return this.#pushUtf8(chunk)
    if (this.encoding === 'iso-8859-1') return { text: Buffer.from(bufferOf(chunk).toString('latin1')) }
    return this.#decode(() => this.#decoder?.decode(chunk, { stream: true }))
  }

  /** False when the text ends within a character. */
  end(): boolean {
    if (!this.#decoder) return this.#carry.length === 0
    return this.#decode(() => this.#decoder?.decode()).invalidAt === undefined
  }

  #pushUtf8(chunk: Uint8Array): Decoded {
    const bytes = this.#carry.length === 0 ? bufferOf(chunk) : Buffer.concat([this.#carry, chunk])
    const end = bytes.length - incompleteTail(bytes)
    const text = bytes.subarray(0, end)
    if (!isUtf8(text)) {
      const valid = validPrefix(text)
      return { text: text.subarray(0, valid), invalidAt: valid - this.#carry.length }
    }
    this.#carry = bytes.subarray(end)
    return { text }
  }

  #decode(decode: () => string | undefined): Decoded {
    try {
      return { text: Buffer.from(decode() ?? '') }
    } catch (error) {
      if (error instanceof TypeError) return { text: EMPTY, invalidAt: 0 }
      throw error
    }
  }
}

/** Counts bytes of the file and lines while a parser goes through its text in UTF-8. */
export class Cursor {
  /** The byte before, so that a CRLF in two pieces is one line break. */
  #last: number | undefined

  constructor(
    /** Bytes of the file. */
    public offset: number,
    /** From 1. */
    public line: number,
    public encoding: Encoding,
  ) {}

  /** Goes over `text[from, to)`. A line ends with LF, CR or both. */
  advance(text: Uint8Array, from: number, to: number): void {
    if (to <= from) return
    let { line } = this
    for (let at = from; at < to; at++) {
      const byte = text[at] as number
      if (byte > 0x0d) continue
      if (byte === 0x0d || (byte === 0x0a && (at > from ? text[at - 1] : this.#last) !== 0x0d)) line++
    }
    this.#last = text[to - 1]
    this.line = line
    this.offset += this.encoding === 'utf-8' ? to - from : encodedLength(this.encoding, text, from, to)
  }
}

/** How many bytes the UTF-8 `text[from, to)` has in `encoding`. */
function encodedLength(encoding: Encoding, text: Uint8Array, from: number, to: number): number {
  const isWide = encoding === 'utf-16le' || encoding === 'utf-16be'
  let length = 0
  for (let at = from; at < to; at++) {
    const byte = text[at] as number
    if ((byte & 0xc0) === 0x80) continue
    length += isWide ? (byte >= 0xf0 ? 4 : 2) : 1
  }
  return length
}

export function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

/** Bytes at the end that may be the start of a character: 0 to 3. */
function incompleteTail(bytes: Uint8Array): number {
  for (let back = 1; back <= Math.min(3, bytes.length); back++) {
    const byte = bytes[bytes.length - back] as number
    if ((byte & 0xc0) !== 0x80) return characterLength(byte) > back ? back : 0
  }
  return 0
}

function characterLength(lead: number): number {
  return lead < 0xc0 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4
}

/** Where the first thing stands that is no UTF-8. Slow: only for a text that has one. */
function validPrefix(text: Buffer): number {
  let at = 0
  while (at < text.length) {
    const end = at + characterLength(text[at] as number)
    if (!isUtf8(text.subarray(at, end))) return at
    at = end
  }
  return at
}
