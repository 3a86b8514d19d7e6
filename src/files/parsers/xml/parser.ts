import { SaxesParser, type SaxesTagPlain } from 'saxes'
import { checkJsonText } from '../../../task/json/text.ts'
import { LIMITS, legible } from '../../../task/limits.ts'
import { DEFAULT_MAX_RECORD_BYTES, type XmlFormat } from '../../../task/source/file-format.ts'
import { FileFault, type FileFaultCode } from '../../file-fault.ts'
import { faultInWords } from '../fault-in-words.ts'
import { HEAD_BYTES, RAW_BYTES } from '../lines.ts'
import type { Checkpoint, Entry, ParserState, RecordParser } from '../parsed.ts'
import { localName, XmlTree } from './tree.ts'

/** Elements in elements, outside and inside of records. */
const MAX_DEPTH = 1_000
/** Of one tag, comment, text and so on, in UTF-16 code units: saxes holds them whole. */
const MAX_TOKEN = 16 * 1024 * 1024
/** XML's own, and nothing that an object inherits. */
const ENTITIES = Object.assign(Object.create(null) as Record<string, string>, {
  amp: '&',
  lt: '<',
  gt: '>',
  quot: '"',
  apos: "'",
})

/** A record whose element is open. */
interface OpenRecord {
  tag: SaxesTagPlain
  /** Where its start tag ends, in code units. */
  from: number
  /** Elements in elements, its own being 1. */
  deepest: number
  /** Why it is rejected, once that is known. */
  reason: string | undefined
  /** Beginning of its content, as far as it has been kept. */
  raw: string
}

/**
 * Elements at one path of an XML document, by saxes, which insists on well-formed XML. No DOCTYPE, so no entities but
 * XML's five and characters by number.
 *
 * Parsing cannot resume within a document: it is parsed again, but the records up to the checkpoint are not built, which
 * takes about two thirds of the time.
 */
export class XmlParser implements RecordParser {
  readonly entries: Entry[] = []
  readonly state: ParserState
  readonly #maxLength: number
  readonly #path: string[]
  readonly #stripsNames: boolean
  readonly #tree: XmlTree
  readonly #saxes = new SaxesParser({ position: false, xmlns: false } as const)
  /** Records that have been read before. */
  readonly #known: number
  #number: number
  #depth = 0
  /** How many of the path's elements are open. */
  #matched = 0
  #hasParent = false
  /** The record that is open. */
  #record: OpenRecord | undefined
  /** Inside a record that has been read before. */
  #isKnown = false
  #chunk = ''
  /** UTF-16 code units before `#chunk`. */
  #chunkAt = 0
  /** Where the last tag, comment or text ended, in code units. */
  #tokenAt = 0
  /** Where the last record ended, in code units. */
  #closedAt = -1
  /** Bytes of the file before `#chunk`; for UTF-8 only. */
  #bytesAt = 0

  constructor(format: XmlFormat, { number, state }: Checkpoint) {
    this.#maxLength = format.maxRecordBytes ?? DEFAULT_MAX_RECORD_BYTES
    this.#path = format.path.split('/').slice(1)
    this.#stripsNames = format.namespaces !== 'keep'
    this.#tree = new XmlTree(format)
    this.#known = number
    this.#number = state.before ?? 0
    this.state = { ...state }
    this.#listen()
  }

  push(text: Buffer): void {
    this.#chunk = text.toString('utf8')
    this.#saxes.write(this.#chunk)
    this.#limitToken()
    if (this.#record) this.#keepRaw(this.#record, this.#chunk.length)
    this.#chunkAt += this.#chunk.length
    this.#bytesAt += text.length
    this.#chunk = ''
  }

  end(): void {
    this.#saxes.on('error', ({ message }) => {
      throw this.#fault(
        'truncated',
        `The XML document ends too early: ${sentence(message)}`,
        'fetch the file again, or mend it',
      )
    })
    this.#saxes.close()
    if (this.#hasParent) return
    const what = `The document has no element ${JSON.stringify(`/${this.#path.slice(0, this.#parentDepth).join('/')}`)}`
    throw new FileFault('not-found', what, 'let "path" name the record element from the root')
  }

  #listen(): void {
    const saxes = this.#saxes
    saxes.ENTITIES = ENTITIES
    saxes.on('error', ({ message }) => {
      this.#takeBack()
      throw this.#fault('malformed', `The file is not well-formed XML: ${sentence(message)}`, 'mend the file')
    })
    saxes.on('doctype', () => {
      throw this.#fault('unsupported', 'The file has a DOCTYPE, which is refused', 'write it without')
    })
    saxes.on('opentag', (tag) => this.#openTag(tag))
    saxes.on('closetag', () => this.#closeTag())
    saxes.on('text', (text) => this.#text(text))
    saxes.on('cdata', (text) => this.#text(text))
    saxes.on('comment', () => this.#endToken())
    saxes.on('processinginstruction', () => this.#endToken())
  }

  /** Of the element that holds the records; the root itself may be the one record. */
  get #parentDepth(): number {
    return Math.max(1, this.#path.length - 1)
  }

  #openTag(tag: SaxesTagPlain): void {
    this.#endToken()
    if (++this.#depth > MAX_DEPTH) {
      throw this.#fault('too-large', `Elements are nested deeper than ${MAX_DEPTH} levels`, 'mend the file')
    }
    if (this.#isKnown) return
    const name = this.#stripsNames ? localName(tag.name) : tag.name
    const record = this.#record
    if (record) {
      if (record.reason !== undefined) return
      this.#tree.openElement(name, tag.attributes)
      record.deepest = Math.max(record.deepest, this.#tree.depth)
      if (this.#tree.depth > LIMITS.jsonDepth) this.#spoil(record, `Is nested deeper than ${LIMITS.jsonDepth} levels`)
      return
    }
    if (this.#depth !== this.#matched + 1 || !this.#matches(name)) return
    this.#matched++
    if (this.#matched >= this.#parentDepth) this.#hasParent = true
    if (this.#matched === this.#path.length) this.#openRecord(name, tag)
  }

  #matches(name: string): boolean {
    const wanted = this.#path[this.#matched]
    return wanted === '*' || wanted === name
  }

  #openRecord(name: string, tag: SaxesTagPlain): void {
    this.#isKnown = this.#number < this.#known
    if (this.#isKnown) return
    this.#record = { tag, from: this.#saxes.position, deepest: 1, reason: undefined, raw: '' }
    this.#tree.openElement(name, tag.attributes)
  }

  #closeTag(): void {
    this.#endToken()
    const isOfPath = this.#depth === this.#matched
    this.#depth--
    if (isOfPath) this.#matched--
    const closesRecord = isOfPath && this.#matched === this.#path.length - 1
    if (this.#isKnown) {
      if (!closesRecord) return
      this.#isKnown = false
      this.#number++
      return
    }
    if (!this.#record) return
    const value = this.#record.reason === undefined ? this.#tree.closeElement() : undefined
    if (closesRecord) this.#closeRecord(this.#record, JSON.stringify(value))
  }

  #closeRecord(record: OpenRecord, json: string | undefined): void {
    this.#record = undefined
    const number = ++this.#number
    const { line, position } = this.#saxes
    this.#closedAt = position
    const reason = record.reason ?? unfit(json ?? '', record.deepest)
    if (reason === undefined && json !== undefined) {
      this.entries.push({ number, json, offset: 0, line })
      return
    }
    this.#keepRaw(record, position - this.#chunkAt)
    const raw = legible(`${startTag(record.tag)}${record.raw}`, RAW_BYTES)
    this.entries.push({ number, reason: reason ?? '', raw, offset: 0, line })
  }

  /** saxes closes what is open before it says that a closing tag is the wrong one: such a record has not ended. */
  #takeBack(): void {
    if (this.#closedAt !== this.#saxes.position) return
    this.entries.pop()
    this.#number--
  }

  #text(text: string): void {
    this.#endToken()
    if (this.#record?.reason === undefined) this.#tree.text(text)
  }

  #endToken(): void {
    this.#tokenAt = this.#saxes.position
    const record = this.#record
    if (!record || record.reason !== undefined || this.#tokenAt - record.from <= this.#maxLength) return
    this.#spoil(record, `Is longer than ${this.#maxLength} characters: raise "maxRecordBytes"`)
  }

  #limitToken(): void {
    if (this.#saxes.position - this.#tokenAt <= MAX_TOKEN) return
    throw this.#fault('too-large', `A tag, comment or text is longer than ${MAX_TOKEN} characters`, 'mend the file')
  }

  #spoil(record: OpenRecord, reason: string): void {
    record.reason = reason
    this.#tree.clear()
  }

  /** Keeps the record's text up to `to` in the chunk, as far as a reject shows it. */
  #keepRaw(record: OpenRecord, to: number): void {
    if (record.raw.length > RAW_BYTES) return
    const from = Math.max(0, record.from - this.#chunkAt)
    record.raw += this.#chunk.slice(from, Math.min(to, from + HEAD_BYTES))
  }

  #fault(code: FileFaultCode, what: string, advice: string): FileFault {
    const { line, position } = this.#saxes
    const isInRecord = this.#record !== undefined || this.#closedAt === position
    const record = isInRecord ? { record: this.#number + 1 } : {}
    const isUtf8 = (this.state.encoding ?? 'utf-8') === 'utf-8'
    const before = this.#chunk.slice(0, Math.max(0, position - this.#chunkAt))
    const offset = isUtf8 ? { offset: this.#bytesAt + Buffer.byteLength(before) } : {}
    return new FileFault(code, what, advice, { line, ...record, ...offset })
  }
}

/** Why the record's JSON cannot be kept. Only nesting can be wrong: XML has neither NUL nor lone surrogates. */
function unfit(json: string, deepest: number): string | undefined {
  // An element is an object, perhaps in an array.
  if (2 * deepest <= LIMITS.jsonDepth) return undefined
  const checked = checkJsonText(json)
  return checked.ok ? undefined : faultInWords(checked)
}

function startTag({ name, attributes }: SaxesTagPlain): string {
  const pairs = Object.entries(attributes).map(([attribute, value]) => ` ${attribute}="${value}"`)
  return `<${name}${pairs.join('')}>`
}

/** saxes ends its messages with a period. */
function sentence(message: string): string {
  return message.replace(/\.$/, '')
}
