import { LIMITS, legible } from '../../task/limits.ts'
import type { FileFormat } from '../../task/source/file-format.ts'
import { FileFault } from '../file-fault.ts'
import { CsvParser } from './csv/parser.ts'
import { JsonArrayParser } from './json/array.ts'
import { JsonLinesParser } from './json/lines.ts'
import { RAW_BYTES } from './lines.ts'
import type { Batch, Checkpoint, Entry, RecordParser, Source } from './parsed.ts'
import { type RecordCheck, recordCheck } from './record-schema.ts'
import { bufferOf, type Detected, detectMark, MARK_BYTES, TextInput } from './text-input.ts'
import { detectXml, XML_HEAD } from './xml/encoding.ts'
import { XmlParser } from './xml/parser.ts'

/** Bytes of the file that a batch is made of, more or less. */
const BATCH_BYTES = 64 * 1024

/** The beginning of a file. */
export const START: Checkpoint = { number: 0, offset: 0, line: 1, state: {} }

/**
 * Reads the records of one file, in batches. The format has passed `checkFormat`.
 *
 * With a checkpoint, goes on behind its entry: for CSV, JSON Lines and JSON arrays the source is read from the checkpoint's
 * byte on; for XML it is read from the beginning again, without building the records before. Either way the batches hold
 * exactly the entries that would have followed.
 *
 * Throws FileFault where the file cannot be read (on), after all entries before that place. Memory is bounded by the longest
 * record and a batch. Ending the iteration ends the reading of the source.
 */
export async function* openParser(
  source: Source,
  format: FileFormat,
  checkpoint: Checkpoint = START,
): AsyncGenerator<Batch, void, undefined> {
  const check = format.schema && recordCheck(format.schema)
  if (check && 'reason' in check) throw new Error(`The format's schema has not been checked: it ${check.reason}`)
  const from = format.type === 'xml' ? 0 : checkpoint.offset
  const pipe = new Pipe(format, checkpoint)
  let bytes = 0
  for await (const chunk of source(from)) {
    for (let at = 0; at < chunk.length; at += BATCH_BYTES) {
      const piece = chunk.subarray(at, at + BATCH_BYTES)
      const fault = await pipe.push(bufferOf(piece))
      bytes += piece.length
      if ((fault || bytes >= BATCH_BYTES) && pipe.hasEntries) {
        bytes = 0
        yield pipe.take(check)
      }
      if (fault) throw fault.error
    }
  }
  const fault = await pipe.end()
  if (pipe.hasEntries) yield pipe.take(check)
  if (fault) throw fault.error
}

/** From a file's bytes to a parser: finds out the encoding, hands on UTF-8, and keeps a fault until the entries before are taken. */
class Pipe {
  #input: TextInput | undefined
  #parser: RecordParser | undefined
  #head: Buffer = Buffer.alloc(0)
  /** Bytes of the file before the next chunk. */
  #offset: number
  /** The last one that was taken. */
  #last: Entry | undefined

  constructor(
    readonly format: FileFormat,
    readonly checkpoint: Checkpoint,
  ) {
    this.#offset = format.type === 'xml' ? 0 : checkpoint.offset
  }

  get hasEntries(): boolean {
    return (this.#parser?.entries.length ?? 0) > 0
  }

  push(chunk: Buffer): Promise<{ error: unknown } | undefined> {
    return caught(() => this.#push(chunk))
  }

  end(): Promise<{ error: unknown } | undefined> {
    return caught(async () => {
      if (!this.#parser) await this.#begin()
      if (!this.#input?.end()) throw this.#notInEncoding()
      await this.#parser?.end()
    })
  }

  /** The entries so far; those that the schema or a payload's size forbids are rejects. */
  take(check: RecordCheck | undefined): Batch {
    const { entries = [], state = {} } = this.#parser ?? {}
    this.#last = entries.at(-1)
    return { entries: entries.splice(0).map((entry) => finished(entry, check)), state: { ...state } }
  }

  async #push(chunk: Buffer): Promise<void> {
    if (this.#parser) return await this.#decode(chunk)
    this.#head = Buffer.concat([this.#head, chunk])
    if (this.#head.length >= (this.format.type === 'xml' ? XML_HEAD : MARK_BYTES)) await this.#begin()
  }

  /** Enough has come to tell the encoding. */
  async #begin(): Promise<void> {
    const { encoding, markBytes } = this.#detect(this.#head)
    const { checkpoint, format } = this
    const state = { ...checkpoint.state, encoding }
    this.#input = new TextInput(encoding)
    this.#offset += markBytes
    this.#parser = newParser(format, { ...checkpoint, offset: this.#offset, state })
    const text = this.#head.subarray(markBytes)
    this.#head = Buffer.alloc(0)
    await this.#decode(text)
  }

  #detect(head: Buffer): Detected {
    const { format, checkpoint } = this
    if (format.type === 'xml') return detectXml(head)
    const known = checkpoint.state.encoding
    if (this.#offset > 0 && known) return { encoding: known, markBytes: 0 }
    const marked = detectMark(head)
    if (format.type === 'csv') return marked ?? { encoding: format.encoding ?? 'utf-8', markBytes: 0 }
    if (!marked || marked.encoding === 'utf-8') return marked ?? { encoding: 'utf-8', markBytes: 0 }
    throw new FileFault('encoding', `The file is in ${marked.encoding}`, 'JSON files must be in UTF-8: write it so')
  }

  async #decode(chunk: Buffer): Promise<void> {
    const { text, invalidAt } = (this.#input as TextInput).push(chunk)
    if (text.length > 0) await this.#parser?.push(text)
    if (invalidAt !== undefined) throw this.#notInEncoding(invalidAt)
    this.#offset += chunk.length
  }

  /** `at` is the place in the present chunk. */
  #notInEncoding(at = 0): FileFault {
    const { encoding } = this.#input as TextInput
    const last = this.#parser?.entries.at(-1) ?? this.#last
    const near = last ? { line: last.line, record: last.number + 1 } : {}
    const advice =
      this.format.type === 'csv'
        ? 'set "encoding" to what the file is in, such as windows-1252'
        : 'write the file in the encoding that it claims'
    return new FileFault('encoding', `The file is not in ${encoding}`, advice, {
      ...near,
      offset: this.#offset + at,
    })
  }
}

function newParser(format: FileFormat, checkpoint: Checkpoint): RecordParser {
  switch (format.type) {
    case 'csv':
      return new CsvParser(format, checkpoint)
    case 'json':
      return format.lines ? new JsonLinesParser(format, checkpoint) : new JsonArrayParser(format, checkpoint)
    case 'xml':
      return new XmlParser(format, checkpoint)
  }
}

function finished(entry: Entry, check: RecordCheck | undefined): Entry {
  if (!('json' in entry)) return entry
  const { json, number, offset, line } = entry
  const reason = isTooLarge(json)
    ? `Has more than ${LIMITS.payloadBytes} bytes as JSON, which is the most that a payload may have`
    : check?.(json)
  return reason === undefined ? entry : { number, reason, raw: legible(json, RAW_BYTES), offset, line }
}

function isTooLarge(json: string): boolean {
  return json.length * 3 > LIMITS.payloadBytes && Buffer.byteLength(json) > LIMITS.payloadBytes
}

async function caught(run: () => Promise<void>): Promise<{ error: unknown } | undefined> {
  try {
    await run()
    return undefined
  } catch (error) {
    return { error }
  }
}
