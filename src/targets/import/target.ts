import { posix } from 'node:path'
import { FileFault } from '../../files/file-fault.ts'
import { openFile } from '../../files/open-file.ts'
import { START } from '../../files/parsers/open-parser.ts'
import type { Batch, Checkpoint } from '../../files/parsers/parsed.ts'
import type { Clock } from '../../runtime/clock.ts'
import { messageOf } from '../../runtime/errors.ts'
import { isUuid } from '../../runtime/uuid.ts'
import type { RunTarget, TargetContext } from '../../task/attempt/attempt.ts'
import { failed, type Outcome } from '../../task/outcome.ts'
import { compressionKind } from '../../task/source/compression.ts'
import { formatFor } from '../../task/source/file-format.ts'
import type { ImportBatch, ImportOrder, ImportStep } from '../../task/source/import.ts'
import { BatchGatherer, type GatheredBatch } from './batches.ts'

const PROGRESS_EVERY_MS = 500
/** While a file is paused its import looks again so often; who resumes it makes it due at once. */
const PAUSED_MS = 5 * 60_000
/** An attempt after this one comes to the node that has the file; it may be busy with others. */
const ELSEWHERE_MS = { first: 1_000, longest: 30_000 }

const NO_FILE =
  'The message names no file that Longshore has fetched ("fileId"), and is no announcement of a source ("sourceId" and "runId"): to have the files of a server imported make it a source (POST /api/v1/sources), and let messages for others go to a queue of their own'

/**
 * Reads a file that the ledger's side has in its spool and hands over its records in batches. Each batch is committed with
 * the place where reading goes on, so an attempt begins where the one before it, however it ended, was committed.
 */
export function createImportTarget({ clock }: { clock: Clock }): RunTarget {
  return async (execution, context) => {
    const file = askedFor(execution.payload)
    if (typeof file === 'object') return file
    const opened = await context.ask({ kind: 'import-open', file })
    switch (opened.kind) {
      case 'read':
        return new FileImport(file, opened.order, context, clock).run()
      case 'finished':
        return succeeded(opened.recordsRead, opened.recordsRejected)
      case 'paused':
        return { kind: 'snoozed', delayMs: PAUSED_MS }
      case 'elsewhere':
        return { kind: 'snoozed', delayMs: Math.min(execution.attempt * ELSEWHERE_MS.first, ELSEWHERE_MS.longest) }
      case 'refused':
        return failed(opened.error, opened.retryable)
      default:
        return opened satisfies never
    }
  }
}

/** The id of the file, or how a message ends that is about none. */
function askedFor(payload: string): string | Outcome {
  const { fileId, sourceId, runId } = (JSON.parse(payload) ?? {}) as Record<string, unknown>
  if (typeof fileId === 'string' && isUuid(fileId)) return fileId
  // An announcement is meant for whoever else takes from the exchange.
  if (typeof sourceId === 'string' && typeof runId === 'string') {
    return { kind: 'succeeded', result: '{"announced":true}' }
  }
  return failed(NO_FILE, false)
}

function succeeded(records: number, rejected: number): Outcome {
  return { kind: 'succeeded', result: JSON.stringify({ records, rejected }) }
}

/** Why reading stops before the file's end. */
class Stopped extends Error {
  constructor(readonly outcome: Outcome) {
    super('the import was stopped')
  }
}

/** One attempt at one file. */
class FileImport {
  readonly #gatherer: BatchGatherer
  readonly #start: Checkpoint
  /** Bytes of the file on disk that lie before what this attempt reads. */
  readonly #bytesBefore: number
  #bytes = 0
  #number: number
  #rejected: number
  /** The batch that is being committed, while the next one is read. */
  #committing: Promise<ImportStep> | undefined
  #toldAt = Number.NEGATIVE_INFINITY

  constructor(
    readonly file: string,
    readonly order: ImportOrder,
    readonly context: TargetContext,
    readonly clock: Clock,
  ) {
    this.#start = order.checkpoint === null ? START : (JSON.parse(order.checkpoint) as Checkpoint)
    this.#gatherer = new BatchGatherer(order.deliver.recordsPerTask, this.#start)
    this.#bytesBefore = isReadFromPlace(order) ? this.#start.offset : 0
    this.#number = order.recordsRead
    this.#rejected = order.recordsRejected
  }

  async run(): Promise<Outcome> {
    try {
      this.#mayGoOn()
      await this.#read()
      await this.#commit(this.#gatherer.takeLast(), true)
      await this.#committed()
      this.#tell()
      return succeeded(this.#number, this.#rejected)
    } catch (error) {
      if (error instanceof Stopped) return error.outcome
      return failed(`Cannot import "${this.order.name}": ${messageOf(error)}`, true)
    }
  }

  /** Reads to the end, or, of a file that cannot be read on, to that place. */
  async #read(): Promise<void> {
    const { path, name, format, compression, checkpoint } = this.order
    const batches = openFile({
      path,
      name: posix.basename(name),
      format,
      compression,
      ...(checkpoint !== null && { checkpoint: this.#start }),
      onRead: (bytes) => {
        this.#bytes += bytes
      },
    })
    try {
      for await (const batch of batches) {
        await this.#take(batch)
        if (this.context.signal.aborted) throw new Stopped(failed('It was aborted', true))
        if (this.clock.now() - this.#toldAt >= PROGRESS_EVERY_MS) this.#tell()
      }
    } catch (error) {
      if (error instanceof FileFault) await this.#refuse(error.message)
      throw error
    }
  }

  async #take(batch: Batch): Promise<void> {
    const { maxRecords } = this.order
    for (const entry of batch.entries) {
      if (maxRecords !== null && entry.number > maxRecords) {
        await this.#refuse(`The file has more than ${maxRecords} records: raise "limits.records" if that is right`)
      }
      const isFull = this.#gatherer.add(entry, batch)
      this.#number = entry.number
      if (!('json' in entry)) {
        this.#rejected++
        if (this.#hasTooManyRejects()) await this.#refuse(this.#tooManyRejects())
      }
      if (isFull) await this.#commit(this.#gatherer.take(), false)
    }
  }

  /** An attempt before this one may have found too much, and allowed is what is allowed now. */
  #mayGoOn(): void {
    if (this.#hasTooManyRejects()) throw new Stopped(failed(this.#tooManyRejects(), false))
  }

  #hasTooManyRejects(): boolean {
    return this.#rejected > this.order.maxRejects
  }

  #tooManyRejects(): string {
    const { maxRejects } = this.order
    const many = maxRejects === 0 ? 'A record was rejected' : `More than ${maxRejects} records were rejected`
    return `${many}, the last of them is number ${this.#number}: look at the rejects, then mend the file or allow more`
  }

  /** Keeps what was read before the place where the file is refused. */
  async #refuse(error: string): Promise<never> {
    await this.#commit(this.#gatherer.takeLast(), false)
    await this.#committed()
    await this.context.ask({ kind: 'import-fail', file: this.file, error })
    throw new Stopped(failed(error, false))
  }

  /** Waits for the batch before this one, and sends this one. */
  async #commit(gathered: GatheredBatch, end: boolean): Promise<void> {
    await this.#committed()
    if (gathered.to === gathered.from && !end) return
    const { queue, type, priority } = this.order.deliver
    const batch: ImportBatch = { ...gathered, bytesRead: this.#bytesRead(), end }
    const question = { kind: 'import-batch', file: this.file, batch, deliver: { queue, type, priority } } as const
    this.#committing = this.context.ask(question)
    // It is awaited before the next one; until then nobody looks at it.
    this.#committing.catch(() => {})
  }

  async #committed(): Promise<void> {
    const step = await this.#committing
    this.#committing = undefined
    switch (step) {
      case undefined:
      case 'go-on':
        return
      case 'paused':
        throw new Stopped({ kind: 'snoozed', delayMs: PAUSED_MS })
      case 'late':
        throw new Stopped(failed('This attempt was over for the ledger', true))
      default:
        step satisfies never
    }
  }

  #bytesRead(): number {
    return Math.min(this.order.size, Math.max(this.order.bytesRead, this.#bytesBefore + this.#bytes))
  }

  #tell(): void {
    this.#toldAt = this.clock.now()
    const message = `${this.#number} records read, ${this.#rejected} rejected`
    this.context.progress({ done: this.#bytesRead(), total: this.order.size, message })
  }
}

/** Whether reading goes on at the checkpoint's byte; else everything before it is read once more. */
function isReadFromPlace({ name, format, compression }: ImportOrder): boolean {
  return compressionKind(name, compression) === 'none' && formatFor(posix.basename(name), format)?.type !== 'xml'
}
