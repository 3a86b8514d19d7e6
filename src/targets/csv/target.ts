import { type Clock, realClock } from '../../runtime/clock.ts'
import type { RunTarget } from '../../task/attempt/attempt.ts'
import type { Ask } from '../../task/attempt/question.ts'
import { failed } from '../../task/outcome.ts'
import { csvPathRefusal } from '../../task/target/names.ts'
import { unlessAborted } from '../unless-aborted.ts'
import type { Item } from './files.ts'
import { type CsvWriter, createCsvWriter } from './writer.ts'

export interface CsvTargetSettings {
  /** Absolute path of the folder below which files lie. */
  outDir: string
  /** Asks for the thread: a name outlives the attempts that it is held for. */
  ask: Ask
  clock?: Clock
  /** By whose day files are begun. */
  now?: () => Date
}

/** Appends payloads as lines of CSV files, one line a task, whatever crashes when. A success is on the disk. */
export function createCsvTarget({
  outDir,
  ask,
  clock = realClock,
  now = () => new Date(),
}: CsvTargetSettings): RunTarget {
  const writers = new Map<string, CsvWriter>()

  function writerOf(path: string): CsvWriter {
    const known = writers.get(path)
    if (known) return known
    const onIdle = () => void writers.delete(path)
    const writer = createCsvWriter({ outDir, path, ask, clock, now, onIdle })
    writers.set(path, writer)
    return writer
  }

  return async (execution, { signal }) => {
    const { target } = execution
    if (target.type !== 'csv') throw new TypeError(`The csv target was given a target of type ${target.type}`)
    const refusal = csvPathRefusal(target.path)
    if (refusal !== undefined) return failed(`The path "${target.path}" ${refusal}`, false)
    if (target.header === false && !target.columns)
      return failed('A csv target without a header needs "columns"', false)
    const item: Item = { execution, target, left: false }
    const writer = writerOf(target.path)
    return unlessAborted(signal, writer.write(item), () => {
      item.left = true
      return writer.still()
    })
  }
}
