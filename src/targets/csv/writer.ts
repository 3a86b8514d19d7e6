import { type Batcher, createBatcher } from '../../runtime/batcher.ts'
import type { Clock } from '../../runtime/clock.ts'
import { messageOf } from '../../runtime/errors.ts'
import { type Ask, HOLD_MS, type Hold } from '../../task/attempt/question.ts'
import { failed, type Outcome } from '../../task/outcome.ts'
import { type CsvFiles, type Item, openFiles } from './files.ts'

export interface CsvWriterDeps {
  /** Below which `path` lies. */
  outDir: string
  path: string
  ask: Ask
  clock: Clock
  now(): Date
  /** It has let its files and its name go; it takes them again when something comes. */
  onIdle(): void
}

/** The one writer of a path in this thread. */
export interface CsvWriter {
  /** Resolves when the disk has the line and the journal knows it, or says why not. */
  write(item: Item): Promise<Outcome>
  /** Resolves when nothing is being written. */
  still(): Promise<void>
}

const MAX_LINES = 1_000
/** In UTF-16 code units of payload. */
const MAX_WEIGHT = 4 * 1024 * 1024
const IDLE_MS = 5_000
const SNOOZE_MS = { least: 2_000, more: 2_000 }

/** The name belongs to another node, or did for a while, or nobody can say. */
class NotOurs extends Error {
  override readonly name = 'NotOurs'
}

/**
 * Writes what comes while a batch is on its way to the disk as the next batch. The path's name is held while there is
 * work, and asked for before each batch and after it: only what was written while nobody else could have had it counts.
 */
export function createCsvWriter({ outDir, path, ask, clock, now, onIdle }: CsvWriterDeps): CsvWriter {
  const name = `csv:${path}`
  let token: string | undefined
  let heldAt = Number.NEGATIVE_INFINITY
  let files: CsvFiles | undefined
  let writing: Promise<void> | undefined
  let closing: Promise<void> | undefined
  let stopIdling = () => {}
  let pending = 0

  /** An outage of the ledger's side is no failure of a task. */
  function askForName(): Promise<Hold> {
    return ask({ kind: 'hold', name }).catch((error: unknown) => {
      throw new NotOurs(messageOf(error))
    })
  }

  /** Takes or keeps the name; rejects with NotOurs when another node has it. A new token: somebody else may have written. */
  async function takeName(): Promise<void> {
    const askedAt = clock.now()
    const hold = await askForName()
    if (!hold.held) throw new NotOurs(`another node writes ${path}`)
    if (hold.token !== token) await closeFiles()
    token = hold.token
    heldAt = askedAt
  }

  /** Before each change of a file: this node cannot have been declared dead since the name was asked for. */
  async function mayTouch(): Promise<void> {
    if (clock.now() - heldAt < HOLD_MS) return
    await keepName()
  }

  async function keepName(): Promise<void> {
    const askedAt = clock.now()
    const hold = await askForName()
    if (!hold.held || hold.token !== token) throw new NotOurs(`another node may have written ${path} meanwhile`)
    heldAt = askedAt
  }

  async function closeFiles(): Promise<void> {
    const open = files
    files = undefined
    await open?.close()
  }

  async function write(items: Item[], outcomes: Map<Item, Outcome>): Promise<void> {
    // The files of tasks that all left may be another thread's by now.
    if (items.every(({ left }) => left)) return
    const done = Promise.withResolvers<void>()
    writing = done.promise
    try {
      files ??= await openFiles({ outDir, path, mayTouch, now })
      await files.write(
        items.filter(({ left }) => !left),
        outcomes,
      )
    } finally {
      writing = undefined
      done.resolve()
    }
  }

  async function run(items: Item[]): Promise<Outcome[]> {
    stopIdling()
    await closing
    const outcomes = new Map<Item, Outcome>()
    let otherwise: Outcome = failed('It was aborted before it was written', true)
    try {
      // Each time, however young the last answer is: a task that runs alone may have had the file in another thread.
      await takeName()
      await write(items, outcomes)
      await keepName()
    } catch (error) {
      otherwise = error instanceof NotOurs ? snoozed() : failed(`Cannot write ${path}: ${messageOf(error)}`, true)
      // A line that may be another's to write again does not count.
      for (const [item, { kind }] of outcomes) if (kind === 'succeeded') outcomes.delete(item)
      await closeFiles().catch(() => {})
    }
    stopIdling = clock.after(IDLE_MS, () => {
      closing = letGo()
    })
    return items.map((item) => outcomes.get(item) ?? otherwise)
  }

  /** Nothing came for a while: another node may write. */
  async function letGo(): Promise<void> {
    // What fails here fails nothing: every line was flushed, and the ledger's side tries again to let the name go.
    await closeFiles().catch(() => {})
    token = undefined
    await ask({ kind: 'release', name }).catch(() => {})
    if (pending === 0) onIdle()
  }

  const batcher: Batcher<Item, Outcome> = createBatcher({
    run,
    maxBatch: MAX_LINES,
    maxWaiting: Number.POSITIVE_INFINITY,
    weigh: ({ execution }) => execution.payload.length,
    maxBatchWeight: MAX_WEIGHT,
  })
  return {
    write(item) {
      pending++
      return batcher.add(item).finally(() => pending--)
    },
    still: () => writing ?? Promise.resolve(),
  }
}

function snoozed(): Outcome {
  return { kind: 'snoozed', delayMs: Math.round(SNOOZE_MS.least + Math.random() * SNOOZE_MS.more) }
}
