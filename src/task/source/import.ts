import type { Compression } from './compression.ts'
import type { FormatChoice } from './file-format.ts'

/*
 * What the target `import`, in its thread, and the ledger's side say to each other: which file to read and from where, and
 * what was read, batch by batch. Each answer is awaited before the next batch is sent.
 */

/** The payload of an import's task. */
export interface ImportPayload {
  fileId: string
  sourceId: string
  /** Its name. */
  source: string
  path: string
  /** In bytes. */
  size: number
  sha256: string
  contentType: string
}

/** What is to be read. */
export interface ImportOrder {
  /** Where the file lies on this machine. */
  path: string
  /** Its name at the source, whose extension counts. */
  name: string
  /** In bytes, as it lies there. */
  size: number
  format: FormatChoice
  compression: Compression
  /** JSON text; null: from the beginning. */
  checkpoint: string | null
  /** Where it stands: number of the last record, records that were rejected, bytes. */
  recordsRead: number
  recordsRejected: number
  bytesRead: number
  deliver: ImportDelivery
  /** More rejects than this fail the file. */
  maxRejects: number
  /** More records than this fail the file; null: any number. */
  maxRecords: number | null
}

export interface ImportDelivery {
  queue: string
  recordsPerTask: number
  type: string | null
  priority: number
}

export type ImportOpened =
  | { kind: 'read'; order: ImportOrder }
  /** All of it is committed: what an attempt before this one came to. */
  | { kind: 'finished'; recordsRead: number; recordsRejected: number }
  | { kind: 'paused' }
  /** It lies on another node's disk, which lives. */
  | { kind: 'elsewhere' }
  | { kind: 'refused'; error: string; retryable: boolean }

/** A record that is kept aside. */
export interface ImportReject {
  number: number
  line: number
  reason: string
  raw: string
}

/** What follows the entry number `from`, up to `to`, with nothing left out. */
export interface ImportBatch {
  from: number
  to: number
  /** JSON text of an array, one element a task. */
  payloads: string
  /** How many they are. */
  tasks: number
  rejects: ImportReject[]
  /** Of the file on disk that were read. */
  bytesRead: number
  /** JSON text: reading goes on behind `to`. */
  checkpoint: string
  /** The file ends here. */
  end: boolean
}

/** `late`: the attempt is over for the ledger (cancelled, or taken from this node): nothing was written. */
export type ImportStep = 'go-on' | 'paused' | 'late'

export interface ImportOpenQuestion {
  kind: 'import-open'
  file: string
}

export interface ImportBatchQuestion {
  kind: 'import-batch'
  file: string
  batch: ImportBatch
  deliver: Omit<ImportDelivery, 'recordsPerTask'>
}

/** The file cannot be imported, and trying again would not help. */
export interface ImportFailQuestion {
  kind: 'import-fail'
  file: string
  error: string
}

/** The ledger's side of imports, for the attempt that asks. Rejects when nothing is known to be written. */
export interface ImportLedger {
  open(asker: ImportAsker, file: string): Promise<ImportOpened>
  commit(asker: ImportAsker, question: ImportBatchQuestion): Promise<ImportStep>
  fail(asker: ImportAsker, file: string, error: string): Promise<void>
}

/** The attempt that asks. */
export interface ImportAsker {
  id: string
  attempt: number
}
