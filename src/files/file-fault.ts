/** Why a whole file cannot be read (on). What is wrong with one record is a reject, not a fault. */
export type FileFaultCode =
  /** Not in the encoding that was said. */
  | 'encoding'
  /** Breaks its format in a way that reading cannot go on after. */
  | 'malformed'
  /** Ends too early. */
  | 'truncated'
  /** Exceeds a cap: decompressed size, ratio, entries, nesting. */
  | 'too-large'
  | 'encrypted'
  /** Well-formed, but of a kind that is not read: a DOCTYPE, another compression, an unknown extension. */
  | 'unsupported'
  /** The records, or the entry of an archive, are not where the format says. */
  | 'not-found'
  /** The header does not fit: names twice, empty or missing. */
  | 'columns'

/** Where in the file, as far as it is known. */
export interface Place {
  /** From 1. */
  line?: number
  /** Number of the record that could not be read, from 1 within the file. */
  record?: number
  /** In bytes, of the decompressed file. */
  offset?: number
  /** Name of the archive's entry. */
  entry?: string
}

/** A file that cannot be read (on): its message says what is wrong, where, and what to do. */
export class FileFault extends Error {
  override readonly name = 'FileFault'

  constructor(
    readonly code: FileFaultCode,
    /** What is wrong, a sentence without its period. */
    readonly what: string,
    /** What to do, a sentence without its period. */
    readonly advice: string,
    readonly place: Place = {},
  ) {
    super(`${what}${inWords(place)}: ${advice}`)
  }

  /** The same fault, at a place that is known better by now. */
  at(place: Place): FileFault {
    return new FileFault(this.code, this.what, this.advice, { ...place, ...this.place })
  }
}

function inWords({ line, record, offset, entry }: Place): string {
  const words = [
    ...(entry === undefined ? [] : [`in ${JSON.stringify(entry.slice(0, 200))}`]),
    ...(line === undefined ? [] : [`line ${line}`]),
    ...(record === undefined ? [] : [`record ${record}`]),
    ...(offset === undefined ? [] : [`byte ${offset}`]),
  ]
  return words.length === 0 ? '' : ` (${words.join(', ')})`
}
