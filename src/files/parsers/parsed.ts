import type { Encoding } from '../../task/source/file-format.ts'

/** The bytes of a file from `offset` on, decompressed. Each call reads anew; ending the iteration early frees what it holds. */
export type Source = (offset: number) => AsyncIterable<Uint8Array>

interface Numbered {
  /** From 1 within the file; rejected records count. A header does not. */
  number: number
  /** Bytes of the (decompressed) file before the end of this record, its line break excluded. XML: always 0. */
  offset: number
  /** The line on which the record ends, from 1. */
  line: number
}

/** A record that was read: the JSON text to be stored as a payload. */
export interface ParsedRecord extends Numbered {
  json: string
}

/** A record that was not. */
export interface RejectedRecord extends Numbered {
  /** Why, as a sentence for the file's owner. */
  reason: string
  /** The record as it stands in the file, or its JSON if that is what was refused: in UTF-8, at most 4 KiB. */
  raw: string
}

export type Entry = ParsedRecord | RejectedRecord

/** What a parser must know beside the place to go on from it. Plain data, as it is kept in the ledger. */
export interface ParserState {
  /** CSV: the names from the header. */
  columns?: string[]
  /** What a byte order mark or a declaration said. */
  encoding?: Encoding
  /** JSON: the arrays and objects around the records, outermost first, as `{[`. */
  open?: string
  /** Zip: index of the entry among those that are read. */
  part?: number
  /** Zip: records in the entries before it. */
  before?: number
}

/** Entries of about 64 KiB of the file, in order, without gaps; at least one. */
export interface Batch {
  entries: Entry[]
  state: ParserState
}

/** From where an import goes on; a JSON value. */
export interface Checkpoint {
  number: number
  offset: number
  line: number
  state: ParserState
}

/** The checkpoint to be kept with the commit of `entry` (and of all before it): parsing goes on with the next one. */
export function checkpointAfter({ state }: Batch, { number, offset, line }: Entry): Checkpoint {
  return { number, offset, line, state }
}

/** A parser of one format, fed from outside. */
export interface RecordParser {
  /** Filled by `push` and `end`, emptied by the caller. What was read before a fault is in it when they throw. */
  readonly entries: Entry[]
  readonly state: ParserState
  /** Takes the file's next bytes. Throws FileFault. */
  push(bytes: Uint8Array): void | Promise<void>
  /** The file ends here. Throws FileFault. */
  end(): void | Promise<void>
}
