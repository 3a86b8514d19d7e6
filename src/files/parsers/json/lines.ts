import { checkJsonText } from '../../../task/json/text.ts'
import { DEFAULT_MAX_RECORD_BYTES, type JsonFormat } from '../../../task/source/file-format.ts'
import { faultInWords } from '../fault-in-words.ts'
import { HEAD_BYTES, rawOf } from '../lines.ts'
import type { Checkpoint, Entry, ParserState, RecordParser } from '../parsed.ts'
import { Cursor } from '../text-input.ts'

const LF = 0x0a
const EMPTY = Buffer.alloc(0)

/**
 * JSON Lines: one JSON value a line, blank lines between them. The record is the line's very text. Parsing resumes at a
 * byte offset. A line that is no JSON costs itself alone; of one that is too long only the beginning is kept.
 */
export class JsonLinesParser implements RecordParser {
  readonly entries: Entry[] = []
  readonly state: ParserState
  readonly #maxBytes: number
  /** Stands at the beginning of `#kept`. */
  readonly #cursor: Cursor
  #number: number
  /** The beginning of a line whose end has not come yet. */
  #kept: Buffer = EMPTY
  /** Beginning of a line that is too long, while the rest is passed over. */
  #overlong: Buffer | undefined

  constructor(format: JsonFormat, { number, offset, line, state }: Checkpoint) {
    this.#maxBytes = format.maxRecordBytes ?? DEFAULT_MAX_RECORD_BYTES
    this.#cursor = new Cursor(offset, line, 'utf-8')
    this.#number = number
    this.state = { ...state }
  }

  push(chunk: Buffer): void {
    const text = this.#kept.length === 0 ? chunk : Buffer.concat([this.#kept, chunk])
    let start = 0
    for (let end = text.indexOf(LF); end >= 0; end = text.indexOf(LF, start)) {
      this.#line(text, start, end)
      this.#cursor.line++
      this.#cursor.offset++
      start = end + 1
    }
    this.#kept = text.subarray(start)
    if (this.#kept.length > Math.max(this.#maxBytes, HEAD_BYTES)) this.#passOver()
  }

  end(): void {
    this.#line(this.#kept, 0, this.#kept.length)
  }

  /** A line without its break; the cursor moves to its end. */
  #line(text: Buffer, start: number, end: number): void {
    this.#cursor.offset += end - start
    if (this.#overlong) {
      this.#reject(this.#tooLong(), rawOf(this.#overlong, 0, this.#overlong.length))
      this.#overlong = undefined
      return
    }
    const json = text.toString('utf8', start, end).trim()
    if (json === '') return
    if (end - start > this.#maxBytes) {
      this.#reject(this.#tooLong(), rawOf(text, start, end))
      return
    }
    const checked = checkJsonText(json)
    if (!checked.ok) {
      this.#reject(faultInWords(checked), rawOf(text, start, end))
      return
    }
    this.entries.push({ number: ++this.#number, json, offset: this.#cursor.offset, line: this.#cursor.line })
  }

  #passOver(): void {
    this.#overlong ??= Buffer.from(this.#kept.subarray(0, HEAD_BYTES))
    this.#cursor.offset += this.#kept.length
    this.#kept = EMPTY
  }

  #tooLong(): string {
    return `Is longer than ${this.#maxBytes} bytes: raise "maxRecordBytes"`
  }

  #reject(reason: string, raw: string): void {
    const { offset, line } = this.#cursor
    this.entries.push({ number: ++this.#number, reason, raw, offset, line })
  }
}
