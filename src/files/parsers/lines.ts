import { legible } from '../../task/limits.ts'

/** Lines of a UTF-8 text that end with LF, CR or CRLF. Places are indexes into the text. */

const LF = 0x0a
const CR = 0x0d
const SPACE = 0x20
const TAB = 0x09
/** What is kept of a rejected record, in bytes. */
export const RAW_BYTES = 4 * 1024
/** What is held of it until then: a little more, so that the cut is marked. */
export const HEAD_BYTES = RAW_BYTES + 8

/** Where the line break stands that ends the line of `from`, or -1. */
export function lineEnd(text: Buffer, from: number): number {
  const lf = text.indexOf(LF, from)
  // Without a bound, a file without CR would be searched to its end for each line.
  const cr = (lf < 0 ? text : text.subarray(0, lf)).indexOf(CR, from)
  return cr < 0 ? lf : cr
}

/** Behind the line break at `at`. */
export function afterBreak(text: Buffer, at: number): number {
  return text[at] === CR && text[at + 1] === LF ? at + 2 : at + 1
}

/** In front of the line break that ends at `at`; `at` itself when none does. */
export function beforeBreak(text: Buffer, at: number): number {
  if (text[at - 1] === CR) return at - 1
  if (text[at - 1] !== LF) return at
  return text[at - 2] === CR ? at - 2 : at - 1
}

/** Which lines stand between records. */
export interface Filler {
  comment: Buffer | undefined
  /** Whether lines of spaces are blank, and comments may be indented. */
  trim: boolean
}

/** Where the first line from `from` on begins that is neither blank nor a comment: perhaps the end. An unfinished comment counts as one that is none. */
export function firstRecord(text: Buffer, from: number, { comment, trim }: Filler): number {
  let start = from
  while (start < text.length) {
    let at = start
    while (trim && (text[at] === SPACE || text[at] === TAB)) at++
    if (at >= text.length) return start
    if (text[at] !== LF && text[at] !== CR) {
      if (!isComment(text, at, comment)) return start
      at = lineEnd(text, at)
      if (at < 0) return start
    }
    start = afterBreak(text, at)
  }
  return start
}

/** Whether a comment begins at the line of `from`. */
export function beginsComment(text: Buffer, from: number, { comment, trim }: Filler): boolean {
  let at = from
  while (trim && (text[at] === SPACE || text[at] === TAB)) at++
  return isComment(text, at, comment)
}

function isComment(text: Buffer, at: number, comment: Buffer | undefined): boolean {
  return comment !== undefined && text.subarray(at, at + comment.length).equals(comment)
}

/** What is kept of a rejected record that stands in `text[from, to)`. */
export function rawOf(text: Buffer, from: number, to: number): string {
  return legible(text.toString('utf8', from, Math.min(to, from + HEAD_BYTES)), RAW_BYTES)
}
