import { type Clock, pause } from '../../runtime/clock.ts'
import { messageOf } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/log.ts'
import { type Database, isAboutDatabase } from '../../store/database/database.ts'
import {
  commitBatch,
  failImport,
  type ImportAttempt,
  type ImportedFile,
  type ImportPlace,
  moveSpool,
  openImport,
} from '../../store/files/imports.ts'
import { completeSource } from '../../task/source/defaults.ts'
import type { ImportLedger, ImportOpened, ImportOrder } from '../../task/source/import.ts'
import type { Spool, Spooled } from '../spool.ts'

export interface ImportsDeps {
  pool: Database['pool']
  clock: Clock
  log: Logger
  spool: Spool
  /** The present id of this node. */
  node(): string
  /** Fetches a file into the spool once more. Rejects with RemoteFailure, SpoolFailure or SecretUnreadable. */
  fetchAgain(file: ImportedFile): Promise<Spooled>
  /** True: it never will be there again, or is another one now. */
  isHopeless(error: unknown): boolean
  /** Told after each commit that made tasks. */
  onSubmitted(queue: string, tasks: string[]): void
  /** A file is imported, or cannot be: what is to be done with the remote file can be done. */
  onEnded(sourceId: string): void
}

const RETRY_MS = 250

/** The ledger's side of imports. */
export function createImports(deps: ImportsDeps): ImportLedger {
  const { pool, clock, log, spool } = deps
  const attemptOf = ({ id, attempt }: { id: string; attempt: number }): ImportAttempt => ({
    task: id,
    attempt,
    node: deps.node(),
  })

  /** Repeats what may be repeated until the database has it; an outage costs an import its time only. */
  async function stored<T>(write: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await write()
      } catch (error) {
        if (!isAboutDatabase(error)) throw error
        log.warn({ event: 'import-not-stored', error: messageOf(error) }, 'Cannot store an import; trying again')
        await pause(clock, RETRY_MS)
      }
    }
  }

  /** Where the file lies here; fetched again when it lies nowhere: its node is gone, or the disk. */
  async function inSpool(attempt: ImportAttempt, file: ImportedFile): Promise<string | Refusal | Elsewhere> {
    if (await spool.has(file.spool, file.size)) return file.spool
    if (file.isElsewhere) return { kind: 'elsewhere' }
    let again: Spooled | undefined
    try {
      again = await deps.fetchAgain(file)
      if (again.sha256 !== file.sha256) {
        const error =
          'The file was changed at its server after it was fetched, and what was fetched is gone: its new version is imported by itself'
        return await refuse(attempt, file, error)
      }
      if (!(await stored(() => moveSpool(pool, attempt, file.id, again?.name ?? '')))) return OVER
      return again.name
    } catch (error) {
      const why = `What was fetched is gone, and fetching it again failed: ${messageOf(error)}`
      return deps.isHopeless(error) ? refuse(attempt, file, why) : { kind: 'refused', error: why, retryable: true }
    } finally {
      if (again) spool.release(again.name)
    }
  }

  async function refuse(attempt: ImportAttempt, file: ImportedFile, error: string): Promise<Refusal> {
    await fail(attempt, file.id, error)
    return { kind: 'refused', error, retryable: false }
  }

  async function fail(attempt: ImportAttempt, file: string, error: string): Promise<void> {
    const place = await stored(() => failImport(pool, attempt, file, error))
    if (place) await ended(place)
  }

  async function read(attempt: ImportAttempt, file: ImportedFile): Promise<ImportOpened> {
    const { deliver, format, compression, rejects, limits } = completeSource(file.settings)
    if (!deliver) {
      return { kind: 'refused', error: 'The source does not say where records go: set "deliver"', retryable: true }
    }
    const name = await inSpool(attempt, file)
    if (typeof name !== 'string') return name
    const order: ImportOrder = {
      path: spool.pathOf(name),
      name: file.path,
      size: file.size ?? 0,
      format,
      compression,
      checkpoint: file.checkpoint,
      recordsRead: file.recordsRead,
      recordsRejected: file.recordsRejected,
      bytesRead: file.bytesRead,
      deliver,
      maxRejects: rejects.mode === 'fail' ? 0 : rejects.max,
      maxRecords: limits.records ?? null,
    }
    return { kind: 'read', order }
  }

  /** Its bytes are of no use any more; a sweep finds what this does not. */
  async function ended({ sourceId, spool: name }: ImportPlace): Promise<void> {
    await spool.remove(name)
    deps.onEnded(sourceId)
  }

  return {
    async open(asker, id) {
      const attempt = attemptOf(asker)
      const file = await stored(() => openImport(pool, attempt, id))
      if (file === 'late') return OVER
      if (file === 'gone')
        return { kind: 'refused', error: 'The file is gone: was its source deleted?', retryable: false }
      const { recordsRead, recordsRejected } = file
      if (file.status === 'done') {
        await ended(file)
        return { kind: 'finished', recordsRead, recordsRejected }
      }
      return file.paused ? { kind: 'paused' } : read(attempt, file)
    },

    async commit(asker, { file, batch, deliver }) {
      const attempt = attemptOf(asker)
      const committed = await stored(() => commitBatch(pool, attempt, file, batch, deliver))
      if (committed.kind === 'late') return 'late'
      if (committed.tasks.length > 0) deps.onSubmitted(deliver.queue, committed.tasks)
      if (batch.end) await ended(committed)
      return committed.paused ? 'paused' : 'go-on'
    },

    fail: (asker, file, error) => fail(attemptOf(asker), file, error),
  }
}

type Refusal = Extract<ImportOpened, { kind: 'refused' }>
type Elsewhere = Extract<ImportOpened, { kind: 'elsewhere' }>

const OVER: Refusal = { kind: 'refused', error: 'This attempt was over for the ledger', retryable: true }
