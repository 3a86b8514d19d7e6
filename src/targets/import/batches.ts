import { type Batch, type Checkpoint, checkpointAfter, type Entry } from '../../files/parsers/parsed.ts'
import { LIMITS } from '../../task/limits.ts'
import type { ImportBatch, ImportReject } from '../../task/source/import.ts'

/** A batch is closed by whichever comes first. */
export interface BatchBounds {
  tasks: number
  records: number
  /** Characters of payloads. */
  text: number
}

/**
 * One commit costs a few milliseconds beside its rows; what a node that is killed has read for nothing is a batch, and so is
 * what has to be in memory, in the thread and on the ledger's side, while the next one is read.
 */
export const BATCH_BOUNDS: BatchBounds = { tasks: 2_000, records: 5_000, text: 1024 * 1024 }

/** A batch without what only its sender knows. */
export type GatheredBatch = Omit<ImportBatch, 'bytesRead' | 'end'>

/** Makes tasks of entries, and batches of tasks. A batch ends where a task does, so that the next one can begin there. */
export class BatchGatherer {
  #from: number
  #payloads: string[] = []
  #text = 0
  #records = 0
  #rejects: ImportReject[] = []
  #group: string[] = []
  #groupText = 0
  /** Rejects that came after the group's first record. */
  #groupRejects: ImportReject[] = []
  /** The last entry behind which nothing is open. */
  #place: { entry: Entry; batch: Batch } | undefined
  /** The last entry. */
  #last: { entry: Entry; batch: Batch } | undefined

  constructor(
    readonly recordsPerTask: number,
    readonly start: Checkpoint,
    readonly bounds: BatchBounds = BATCH_BOUNDS,
  ) {
    this.#from = start.number
  }

  /** Takes the next entry; true when a batch can be taken and should be. */
  add(entry: Entry, batch: Batch): boolean {
    if ('json' in entry) this.#addRecord(entry.json, { entry, batch })
    else this.#addReject(entry, { entry, batch })
    this.#last = { entry, batch }
    return this.#group.length === 0 && this.#isFull()
  }

  /** What was gathered up to the last whole task. */
  take(): GatheredBatch {
    const { entry, batch } = this.#place ?? {}
    const checkpoint = entry && batch ? checkpointAfter(batch, entry) : { ...this.start, number: this.#from }
    const gathered = {
      from: this.#from,
      to: checkpoint.number,
      payloads: `[${this.#payloads.join(',')}]`,
      tasks: this.#payloads.length,
      rejects: this.#rejects,
      checkpoint: JSON.stringify(checkpoint),
    }
    this.#from = checkpoint.number
    this.#payloads = []
    this.#rejects = []
    this.#text = 0
    this.#records = 0
    return gathered
  }

  /** What is left at the file's end: the last task may have fewer records. */
  takeLast(): GatheredBatch {
    this.#close(this.#last)
    return this.take()
  }

  #addRecord(json: string, place: { entry: Entry; batch: Batch }): void {
    if (this.recordsPerTask === 1) {
      this.#push(json, 1)
      this.#place = place
      return
    }
    // Each text is well below the limit; brackets and commas come on top, and a character may have three bytes.
    const isTooMuch = this.#group.length > 0 && this.#groupBytesWith(json) > LIMITS.payloadBytes
    if (isTooMuch) this.#close(this.#last)
    this.#group.push(json)
    this.#groupText += json.length + 1
    if (this.#group.length >= this.recordsPerTask) this.#close(place)
  }

  #addReject(
    { number, line, reason, raw }: Extract<Entry, { reason: string }>,
    place: { entry: Entry; batch: Batch },
  ): void {
    const reject = { number, line, reason, raw }
    if (this.#group.length > 0) {
      this.#groupRejects.push(reject)
      return
    }
    this.#rejects.push(reject)
    this.#place = place
  }

  /** Counts bytes only where the characters leave a doubt. */
  #groupBytesWith(json: string): number {
    const text = this.#groupText + json.length + 2
    if (text * 3 <= LIMITS.payloadBytes) return text
    return this.#group.reduce((sum, one) => sum + Buffer.byteLength(one) + 1, Buffer.byteLength(json) + 2)
  }

  #close(place: { entry: Entry; batch: Batch } | undefined): void {
    this.#place = place ?? this.#place
    this.#rejects.push(...this.#groupRejects)
    this.#groupRejects = []
    if (this.#group.length === 0) return
    this.#push(`[${this.#group.join(',')}]`, this.#group.length)
    this.#group = []
    this.#groupText = 0
  }

  #push(payload: string, records: number): void {
    this.#payloads.push(payload)
    this.#text += payload.length + 1
    this.#records += records
  }

  #isFull(): boolean {
    const { tasks, records, text } = this.bounds
    return (
      this.#payloads.length >= tasks ||
      this.#records + this.#rejects.length >= records ||
      this.#text >= text ||
      // A file of nothing but rejects.
      this.#rejects.length * RAW_WEIGHT >= text
    )
  }
}

/** Characters that a reject may weigh. */
const RAW_WEIGHT = 4 * 1024
