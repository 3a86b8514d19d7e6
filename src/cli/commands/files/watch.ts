import { realClock } from '../../../runtime/clock.ts'
import type { Client } from '../../client.ts'
import { Failure } from '../../failure.ts'
import { paint, print, printJson, progressBar, shortDuration } from '../../output.ts'
import { watch } from '../../watch.ts'
import { progressText, type StoredFile } from './view.ts'

const LOOK_MS = 500
/** Without a terminal a line that differs only in its figures is told no more often than that. */
const LINE_EVERY_MS = 5_000

/**
 * Tells how the import of a file goes on until all tasks of its records are final. Ends with a `Failure` when it failed, when
 * tasks are dead, or when `timeout` is over. With `json` only the file as it ended is written.
 */
export async function watchFile(
  client: Client,
  path: string,
  { json, timeout }: { json?: true | undefined; timeout?: string | undefined },
): Promise<void> {
  const teller = createTeller(realClock.now())
  const file = await watch(() => client.call<StoredFile>('GET', path), {
    timeout,
    waitMs: () => LOOK_MS,
    onAnswer(file) {
      const isOver = file.finishedAt !== null
      if (!json) teller.tell(file, isOver)
      return isOver
    },
  })
  if (!file) {
    teller.end()
    throw new Failure(`The file is not finished after ${timeout}; it goes on`)
  }
  if (json) printJson(file)
  judge(file)
}

function judge({ status, error, tasks }: StoredFile): void {
  if (status !== 'done') throw new Failure(`The file is ${status}${error === null ? '' : `: ${error}`}`)
  if (tasks.dead > 0) throw new Failure(`${tasks.dead} of ${tasks.total} tasks of its records are dead`)
}

/** On a terminal a bar that moves, and lines at turns; elsewhere lines. */
function createTeller(startedAt: number) {
  const bar = progressBar(100)
  let told = ''
  let toldAt = Number.NEGATIVE_INFINITY
  return {
    end: () => bar.end(),
    tell(file: StoredFile, isOver: boolean) {
      const now = realClock.now()
      const turn = `${file.status} ${file.paused}`
      const isDue = process.stderr.isTTY ? false : now - toldAt >= LINE_EVERY_MS
      if (turn !== told || isOver || isDue) {
        bar.end()
        print(`${paint('gray', shortDuration(now - startedAt).padStart(9))}  ${progressText(file)}`)
        told = turn
        toldAt = now
      }
      if (isOver) return
      bar.at(percentOf(file), wordsOf(file))
    },
  }
}

/** Of the bytes while it is read; of the tasks afterwards. */
function percentOf({ status, size, progress, tasks }: StoredFile): number {
  if (status === 'done') return tasks.total === 0 ? 100 : ((tasks.succeeded + tasks.dead) / tasks.total) * 100
  return size ? (progress.bytesRead / size) * 100 : 0
}

function wordsOf({ status, progress, tasks }: StoredFile): string {
  if (status === 'done') return `${tasks.live} of ${tasks.total} tasks are live`
  const { recordsRead, recordsPerSecond, bytesPerSecond, remaining } = progress
  const rate = `${recordsPerSecond ?? 0}/s, ${((bytesPerSecond ?? 0) / 1_048_576).toFixed(1)} MiB/s`
  return `${recordsRead} records, ${rate}${remaining === null ? '' : `, ${remaining} left`}`
}
