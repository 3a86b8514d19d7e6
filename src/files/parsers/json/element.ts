import { FileFault } from '../../file-fault.ts'

export const QUOTE = 0x22
export const COMMA = 0x2c
export const COLON = 0x3a
export const OPEN_ARRAY = 0x5b
export const CLOSE_ARRAY = 0x5d
export const OPEN_OBJECT = 0x7b
export const CLOSE_OBJECT = 0x7d
const BACKSLASH = 0x5c
/** Deeper than any record that is kept, and little enough to remember. */
const MAX_NESTING = 10_000

export function isSpace(byte: number | undefined): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09
}

export function skipSpace(text: Buffer, from: number): number {
  let at = from
  while (isSpace(text[at])) at++
  return at
}

/** Behind the characters of a number, `true`, `false` or `null` (or of what should be one). */
export function literalEnd(text: Buffer, from: number): number {
  let at = from
  for (; at < text.length; at++) {
    const byte = text[at]
    if (isSpace(byte) || byte === COMMA || byte === CLOSE_ARRAY || byte === CLOSE_OBJECT || byte === COLON) return at
    if (byte === QUOTE || byte === OPEN_ARRAY || byte === OPEN_OBJECT) return at
  }
  return at
}

/**
 * Goes through one value that comes in pieces, to find where it ends: by its brackets and quotes alone, for what it is made
 * of is checked when it is whole.
 */
export class ElementScanner {
  #closers: number[] = []
  #inString = false
  #isEscaped = false
  #isLiteral = false

  /** The value begins at `text[at]`. */
  begin(text: Buffer, at: number): void {
    const byte = text[at]
    this.#closers = []
    this.#inString = false
    this.#isEscaped = false
    this.#isLiteral = byte !== QUOTE && byte !== OPEN_ARRAY && byte !== OPEN_OBJECT
  }

  /**
   * Scans on from `from`. Gives the place behind the value, or -1 when it goes on behind the text.
   * Throws FileFault, with `offset` as the place in the text, where brackets do not match or a string is broken by a control character.
   */
  scan(text: Buffer, from: number): number {
    if (this.#isLiteral) {
      const end = literalEnd(text, from)
      return end < text.length ? end : -1
    }
    const { length } = text
    let inString = this.#inString
    let at = from
    if (this.#isEscaped && at < length) {
      this.#isEscaped = false
      at++
    }
    for (; at < length; at++) {
      const byte = text[at] as number
      if (inString) {
        if (byte === QUOTE) {
          inString = false
          if (this.#closers.length === 0) return at + 1
        } else if (byte === BACKSLASH) {
          if (++at === length) this.#isEscaped = true
        } else if (byte < 0x20) {
          throw broken('A string holds a line break or another control character', at)
        }
      } else if (byte === QUOTE) inString = true
      else if (byte === OPEN_OBJECT || byte === OPEN_ARRAY) this.#open(byte, at)
      else if (byte === CLOSE_OBJECT || byte === CLOSE_ARRAY) {
        if (this.#closers.pop() !== byte)
          throw broken(`There is a "${String.fromCharCode(byte)}" that closes nothing`, at)
        if (this.#closers.length === 0) return at + 1
      }
    }
    this.#inString = inString
    return -1
  }

  #open(byte: number, at: number): void {
    if (this.#closers.length === MAX_NESTING) {
      throw new FileFault('too-large', `A record is nested deeper than ${MAX_NESTING} levels`, 'mend the file', {
        offset: at,
      })
    }
    this.#closers.push(byte === OPEN_OBJECT ? CLOSE_OBJECT : CLOSE_ARRAY)
  }
}

function broken(what: string, offset: number): FileFault {
  return new FileFault('malformed', what, 'mend the file: records behind this place cannot be told apart', { offset })
}
