import { openParser } from '../../src/files/parsers/open-parser.ts'
import {
  type Batch,
  type Checkpoint,
  checkpointAfter,
  type Entry,
  type ParsedRecord,
  type RejectedRecord,
  type Source,
} from '../../src/files/parsers/parsed.ts'
import type { FileFormat } from '../../src/task/source/file-format.ts'

/** A file that comes in pieces of the given sizes, over and over. */
export function pieces(file: string | Uint8Array, sizes: readonly number[] = [7]): Source {
  const bytes = typeof file === 'string' ? Buffer.from(file) : file
  return async function* (offset) {
    for (let at = offset, turn = 0; at < bytes.length; turn++) {
      const size = sizes[turn % sizes.length] as number
      yield bytes.subarray(at, at + size)
      at += size
    }
  }
}

export interface Reading {
  entries: Entry[]
  records: unknown[]
  rejects: RejectedRecord[]
  checkpoints: Checkpoint[]
  fault: unknown
}

/** Everything that is read, and the fault that ended it. */
export async function readAll(source: Source, format: FileFormat, checkpoint?: Checkpoint): Promise<Reading> {
  return collect(openParser(source, format, checkpoint))
}

export async function collect(batches: AsyncIterable<Batch>): Promise<Reading> {
  const reading: Reading = { entries: [], records: [], rejects: [], checkpoints: [], fault: undefined }
  try {
    for await (const batch of batches) {
      for (const entry of batch.entries) {
        reading.entries.push(entry)
        // As it comes back from the ledger.
        reading.checkpoints.push(JSON.parse(JSON.stringify(checkpointAfter(batch, entry))) as Checkpoint)
        if (isRecord(entry)) reading.records.push(JSON.parse(entry.json))
        else reading.rejects.push(entry)
      }
    }
  } catch (error) {
    reading.fault = error
  }
  return reading
}

export function isRecord(entry: Entry): entry is ParsedRecord {
  return 'json' in entry
}

/** Records of a small text; fails on rejects and faults. */
export async function recordsOf(file: string | Uint8Array, format: FileFormat, sizes?: number[]): Promise<unknown[]> {
  const { records, rejects, fault } = await readAll(pieces(file, sizes), format)
  if (fault) throw fault
  if (rejects.length > 0) throw new Error(`Rejected: ${rejects[0]?.reason} in ${rejects[0]?.raw}`)
  return records
}
