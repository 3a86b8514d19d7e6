import { type Options, Parser } from 'csv-parse'
import { type CsvFormat, DEFAULT_MAX_RECORD_BYTES } from '../../../task/source/file-format.ts'
import { FileFault } from '../../file-fault.ts'
import {
  afterBreak,
  beforeBreak,
  beginsComment,
  type Filler,
  firstRecord,
  HEAD_BYTES,
  lineEnd,
  RAW_BYTES,
  rawOf,
} from '../lines.ts'
import type { Checkpoint, Entry, ParserState, RecordParser } from '../parsed.ts'
import { Cursor } from '../text-input.ts'
import { headerNames } from './header.ts'
import { RowWriter } from './row.ts'

const EMPTY = Buffer.alloc(0)
/** Bytes that csv-parse wants to see behind a record before it gives it; no delimiter, quote or comment is longer. */
const LOOKAHEAD = 64
const NUL = 'Holds a NUL character, which Postgres cannot store'
const STRAY_QUOTE: Record<string, string> = {
  CSV_INVALID_CLOSING_QUOTE: 'A quoted field goes on behind its closing quote: quotes within a field are to be doubled',
  INVALID_OPENING_QUOTE: 'A quote stands within a field that does not begin with one',
  CSV_NON_TRIMABLE_CHAR_AFTER_CLOSING_QUOTE: 'A quoted field goes on behind its closing quote',
  CSV_QUOTE_NOT_CLOSED: 'A quoted field has no closing quote',
}

/** Stops csv-parse at a row whose first line alone shall be rejected. */
class Resync extends Error {}

/**
 * CSV by csv-parse, which tells where each row ends: parsing resumes at a byte offset, with the columns' names.
 *
 * By itself, csv-parse reads a stray quote up to the next quote, however far. Here what breaks the rules of quoting, what is
 * longer than a record may be, and what spans lines and has a wrong number of fields costs its first line: that one is
 * rejected, and parsing goes on with the next. So a stray quote takes no other rows with it, and memory is bounded by the
 * longest record. Lines are read again only up to the next quote, so time stays in proportion to the file.
 */
export class CsvParser implements RecordParser {
  readonly entries: Entry[] = []
  readonly state: ParserState
  readonly #format: CsvFormat
  readonly #maxBytes: number
  readonly #filler: Filler
  /** Stands at `#start`. */
  readonly #cursor: Cursor
  #number: number
  #writer: RowWriter | undefined
  #rows: Parser
  #linesToSkip: number
  /** Set while the rest of a line is passed over; `reason` makes a reject of it, else it is a comment. */
  #passing: { raw: Buffer; reason: string | undefined } | undefined

  // Places in the text count from where this parser began, in bytes of UTF-8.
  #window: Buffer = EMPTY
  #windowAt = 0
  /** The end of the last entry. */
  #start = 0
  /** Where `#rows` began. */
  #base = 0
  #hasNul = false

  /** Begins at `checkpoint`, with a format that `checkFormat` has passed. */
  constructor(format: CsvFormat, { number, offset, line, state }: Checkpoint) {
    this.#format = format
    this.#maxBytes = format.maxRecordBytes ?? DEFAULT_MAX_RECORD_BYTES
    const { comment, trim = false } = format
    this.#filler = { comment: comment === undefined ? undefined : Buffer.from(comment), trim }
    this.#cursor = new Cursor(offset, line, state.encoding ?? 'utf-8')
    this.#number = number
    this.state = { ...state }
    this.#linesToSkip = state.columns ? 0 : (format.skipLines ?? 0)
    if (!state.columns && format.header === false) this.state.columns = headerNames(format, format.columns ?? [])
    if (this.state.columns) this.#writer = new RowWriter(format, this.state.columns)
    this.#rows = this.#newRows()
  }

  async push(text: Buffer): Promise<void> {
    if (text.length > 0) await this.#take(text, false)
  }

  async end(): Promise<void> {
    await this.#take(EMPTY, true)
  }

  /** Takes the next text, and what of it has to be read again. */
  async #take(text: Buffer, isLast: boolean): Promise<void> {
    const kept = this.#window.subarray(this.#start - this.#windowAt)
    this.#window = kept.length === 0 ? text : Buffer.concat([kept, text])
    this.#windowAt = this.#start
    this.#hasNul = this.#window.includes(0)
    let unread: Buffer | undefined = text
    if (this.#linesToSkip > 0) unread = this.#skipLines(isLast)
    else if (this.#passing) unread = this.#passOver(this.#passing, isLast)
    while (unread) {
      const reason = (await this.#read(unread, isLast)) ?? this.#overlong()
      unread = reason === undefined ? undefined : this.#rejectLine(reason, isLast)
    }
  }

  /** Lets csv-parse read on. Gives why the first line of what is not read yet must be rejected, if so. */
  async #read(text: Buffer, isLast: boolean): Promise<string | undefined> {
    const rows = this.#rows
    let error: Error | null | undefined
    if (text.length > 0) error = await new Promise((resolve) => rows.write(text, resolve))
    if (!error && isLast) error = await new Promise((resolve) => rows.end(resolve as () => void))
    if (!error) return undefined
    if (error instanceof Resync) return error.message
    const reason = 'code' in error ? STRAY_QUOTE[String(error.code)] : undefined
    if (reason === undefined) throw error
    return reason
  }

  #newRows(): Parser {
    const { delimiter = ',', quote = '"', comment, trim = false, relaxQuotes = false } = this.#format
    const options: Options<string[]> = {
      delimiter,
      quote,
      escape: quote === null ? null : (this.#format.escape ?? quote),
      trim,
      relax_quotes: relaxQuotes,
      record_delimiter: ['\r\n', '\n', '\r'],
      skip_empty_lines: true,
      // Numbers of fields are judged by `#onRow`.
      relax_column_count: true,
      on_record: (fields, { bytes }) => this.#onRow(fields as unknown as string[], this.#base + bytes - this.#windowAt),
      ...(comment !== undefined && { comment, comment_no_infix: true }),
    }
    const rows = new Parser(options as Options)
    // Each error comes back to the one who wrote; this only keeps it from being thrown as unhandled.
    rows.on('error', () => {})
    return rows
  }

  /** A row that ends, with its line break, at `index` of the window. Gives null: nothing shall pass through csv-parse's own buffer. */
  #onRow(fields: string[], index: number): null {
    const text = this.#window
    const from = this.#start - this.#windowAt
    const to = beforeBreak(text, index)
    if (!this.#writer) {
      this.#readHeader(fields)
      this.#moveTo(to)
      return null
    }
    const wrong = this.#tooLong(from, to) ?? this.#writer.wrongCount(fields.length)?.reason
    if (wrong !== undefined) {
      const first = firstRecord(text, from, this.#filler)
      const end = lineEnd(text, first)
      if (end >= 0 && end < to) throw new Resync(wrong)
    }
    this.#moveTo(to)
    const json = wrong === undefined ? this.#jsonOf(fields, this.#writer) : { reason: wrong }
    const number = ++this.#number
    const { offset, line } = this.#cursor
    if (typeof json === 'string') this.entries.push({ number, json, offset, line })
    else {
      const raw = rawOf(text, firstRecord(text, from, this.#filler), to)
      this.entries.push({ number, reason: json.reason, raw, offset, line })
    }
    return null
  }

  #jsonOf(fields: string[], writer: RowWriter): string | { reason: string } {
    if (this.#hasNul && fields.some((field) => field.includes('\0'))) return { reason: NUL }
    return writer.write(fields)
  }

  #tooLong(from: number, to: number): string | undefined {
    if (to - from <= this.#maxBytes) return undefined
    const length = to - firstRecord(this.#window, from, this.#filler)
    return length <= this.#maxBytes ? undefined : this.#overlongReason()
  }

  #readHeader(fields: string[]): void {
    try {
      this.state.columns = headerNames(this.#format, fields)
    } catch (error) {
      throw error instanceof FileFault ? error.at({ line: this.#cursor.line }) : error
    }
    this.#writer = new RowWriter(this.#format, this.state.columns)
  }

  /** The reason to reject what is not a whole record yet and already too long. */
  #overlong(): string | undefined {
    const hasRoom = () => this.#windowAt + this.#window.length - this.#start <= this.#maxBytes + LOOKAHEAD
    if (hasRoom()) return undefined
    this.#moveTo(firstRecord(this.#window, this.#start - this.#windowAt, this.#filler))
    return hasRoom() ? undefined : this.#overlongReason()
  }

  #overlongReason(): string {
    return `Is longer than ${this.#maxBytes} bytes: a quote without its partner, or raise "maxRecordBytes"`
  }

  /** Rejects the first line that is not read yet. Gives what has to be read (again), if there is any. */
  #rejectLine(reason: string, isLast: boolean): Buffer | undefined {
    const text = this.#window
    const first = firstRecord(text, this.#start - this.#windowAt, this.#filler)
    this.#moveTo(first)
    if (!this.#writer) {
      const where = { line: this.#cursor.line, offset: this.#cursor.offset }
      throw new FileFault('columns', `The header cannot be read: ${reason}`, 'mend the file or "skipLines"', where)
    }
    const isComment = beginsComment(text, first, this.#filler)
    this.#passing = { raw: EMPTY, reason: isComment ? undefined : reason }
    return this.#passOver(this.#passing, isLast)
  }

  /** Passes over a line up to its break, and begins anew there. Gives what has to be read; undefined while there is no break. */
  #passOver(line: { raw: Buffer; reason: string | undefined }, isLast: boolean): Buffer | undefined {
    const text = this.#window
    const from = this.#start - this.#windowAt
    const end = lineEnd(text, from)
    const to = end < 0 ? text.length : end
    if (line.raw.length <= RAW_BYTES)
      line.raw = Buffer.concat([line.raw, text.subarray(from, Math.min(to, from + HEAD_BYTES))])
    this.#moveTo(to)
    if (end < 0 && !isLast) return undefined
    this.#passing = undefined
    if (line.reason !== undefined) {
      const { offset, line: number } = this.#cursor
      const raw = rawOf(line.raw, 0, line.raw.length)
      this.entries.push({ number: ++this.#number, reason: line.reason, raw, offset, line: number })
    }
    return this.#beginAnew()
  }

  /** Passes over the lines before the header. */
  #skipLines(isLast: boolean): Buffer | undefined {
    const text = this.#window
    while (this.#linesToSkip > 0) {
      const end = lineEnd(text, this.#start - this.#windowAt)
      // A CR at the end of the text may have its LF in the next one.
      if (end < 0 || (end === text.length - 1 && !isLast)) {
        this.#moveTo(end < 0 ? text.length : end)
        return isLast ? EMPTY : undefined
      }
      this.#moveTo(afterBreak(text, end))
      this.#linesToSkip--
    }
    return this.#beginAnew()
  }

  #beginAnew(): Buffer {
    this.#rows.destroy()
    this.#rows = this.#newRows()
    this.#base = this.#start
    return this.#window.subarray(this.#start - this.#windowAt)
  }

  #moveTo(index: number): void {
    this.#cursor.advance(this.#window, this.#start - this.#windowAt, index)
    this.#start = this.#windowAt + index
  }
}
