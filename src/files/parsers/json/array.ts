import { checkJsonText } from '../../../task/json/text.ts'
import { DEFAULT_MAX_RECORD_BYTES, type JsonFormat } from '../../../task/source/file-format.ts'
import { FileFault } from '../../file-fault.ts'
import { faultInWords } from '../fault-in-words.ts'
import { HEAD_BYTES, rawOf } from '../lines.ts'
import type { Checkpoint, Entry, ParserState, RecordParser } from '../parsed.ts'
import { Cursor } from '../text-input.ts'
import { ElementScanner } from './element.ts'
import { JsonWalk } from './walk.ts'

const EMPTY = Buffer.alloc(0)

/**
 * The elements of one array in a JSON document, as their very text, so that numbers keep their digits. Parsing resumes at a
 * byte offset, with the arrays and objects that are open around the records.
 *
 * The scanner is our own: streaming JSON parsers build values (which loses digits) or at best tokens of them, several a
 * field, with strings of any length in memory; what is needed is where an element ends. What it holds is then checked as a
 * whole by `checkJsonText`: an element that is not JSON is rejected alone as long as its brackets and quotes match. Where they
 * do not, the elements behind cannot be told apart, and the file fails.
 */
export class JsonArrayParser implements RecordParser {
  readonly entries: Entry[] = []
  readonly state: ParserState
  readonly #maxBytes: number
  readonly #walk: JsonWalk
  readonly #element = new ElementScanner()
  readonly #cursor: Cursor
  #number: number
  /** Text that is not done with: from the beginning of the present element, if there is one. */
  #window: Buffer = EMPTY
  /** How far in the window the cursor is. */
  #counted = 0
  /** How far in the window the scan is. */
  #scanned = 0
  #isInElement = false
  /** Beginning of an element that is too long, while the rest is passed over. */
  #overlong: Buffer | undefined

  constructor(format: JsonFormat, { number, offset, line, state }: Checkpoint) {
    this.#maxBytes = format.maxRecordBytes ?? DEFAULT_MAX_RECORD_BYTES
    this.#walk = new JsonWalk(format.path ?? '', state.open)
    this.#cursor = new Cursor(offset, line, 'utf-8')
    this.#number = number
    this.state = { ...state }
  }

  push(text: Buffer): void {
    this.#take(text, false)
  }

  end(): void {
    this.#take(EMPTY, true)
    if (this.#isInElement) {
      throw this.#located(
        new FileFault('truncated', 'The file ends within a record', 'fetch the file again, or mend it'),
      )
    }
    try {
      this.#walk.end()
    } catch (error) {
      throw this.#located(error)
    }
  }

  #take(chunk: Buffer, isLast: boolean): void {
    this.#window = this.#window.length === 0 ? chunk : Buffer.concat([this.#window, chunk])
    try {
      while (this.#isInElement ? this.#scanElement() : this.#walkOn(isLast));
    } catch (error) {
      throw this.#located(error)
    }
    this.#forget()
  }

  /** False when more text is needed. */
  #walkOn(isLast: boolean): boolean {
    const { at, isElement } = this.#walk.walk(this.#window, this.#scanned, isLast)
    this.#scanned = at
    if (!isElement) return false
    this.state.open = this.#walk.open
    this.#count(at)
    this.#isInElement = true
    this.#element.begin(this.#window, at)
    return true
  }

  /** False when more text is needed. */
  #scanElement(): boolean {
    const text = this.#window
    const end = this.#element.scan(text, this.#scanned)
    this.#scanned = end < 0 ? text.length : end
    if (end < 0) return false
    const start = this.#counted
    this.#count(end)
    this.#add(text, start, end)
    this.#isInElement = false
    this.#overlong = undefined
    this.#walk.leaveElement()
    return true
  }

  #add(text: Buffer, start: number, end: number): void {
    const number = ++this.#number
    const { offset, line } = this.#cursor
    if (this.#overlong || end - start > this.#maxBytes) {
      const raw = this.#overlong ? rawOf(this.#overlong, 0, this.#overlong.length) : rawOf(text, start, end)
      const reason = `Is longer than ${this.#maxBytes} bytes: raise "maxRecordBytes"`
      this.entries.push({ number, reason, raw, offset, line })
      return
    }
    const json = text.toString('utf8', start, end)
    const checked = checkJsonText(json)
    if (checked.ok) this.entries.push({ number, json, offset, line })
    else this.entries.push({ number, reason: faultInWords(checked), raw: rawOf(text, start, end), offset, line })
  }

  /** Drops what is done with, and of an element that is too long all but its beginning. */
  #forget(): void {
    if (this.#isInElement && this.#window.length - this.#counted > Math.max(this.#maxBytes, HEAD_BYTES)) {
      this.#overlong ??= Buffer.from(this.#window.subarray(this.#counted, this.#counted + HEAD_BYTES))
      this.#count(this.#scanned)
    }
    if (!this.#isInElement) this.#count(this.#scanned)
    this.#window = this.#window.subarray(this.#counted)
    this.#scanned -= this.#counted
    this.#counted = 0
  }

  #count(to: number): void {
    this.#cursor.advance(this.#window, this.#counted, to)
    this.#counted = to
  }

  /** A fault whose offset is a place in the window gets that of the file. */
  #located(error: unknown): unknown {
    if (!(error instanceof FileFault)) return error
    this.#count(Math.max(this.#counted, error.place.offset ?? this.#scanned))
    const { offset, line } = this.#cursor
    const record = this.#isInElement || this.#walk.isInRecords ? { record: this.#number + 1 } : {}
    return new FileFault(error.code, error.what, error.advice, { line, ...record, offset })
  }
}
