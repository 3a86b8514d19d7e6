import { pause, realClock } from '../runtime/clock.ts'
import { parseDuration } from '../runtime/duration.ts'
import { isFinal, type Status } from '../task/status.ts'
import type { Client } from './client.ts'
import { EXIT, Failure } from './failure.ts'
import { note, oneLine, paint, paintStatus, print, printJson, progressBar, shortDuration } from './output.ts'

/** The part of a task's JSON that people are shown. */
export interface Task {
  id: string
  queue: string
  type: string | null
  payload: unknown
  target: unknown
  status: Status
  priority: number
  attempt: number
  failures: number
  maxAttempts: number
  parentId: string | null
  result: unknown
  error: string | null
  createdAt: string
  dueAt: string
  finishedAt: string | null
  progress: { done?: number; total?: number; message?: string } | null
  waitingFor: { cause: string; detail: string } | null
  children: { total: number; succeeded: number; dead: number; live: number } | null
  logs?: string[]
  attempts?: {
    number: number
    outcome: string
    startedAt: string | null
    finishedAt: string | null
    error: string | null
    response: { status: number } | null
  }[]
}

const FIRST_LOOK_MS = 100
const SLOWEST_LOOK_MS = 1_000
/** A node that restarts must not end the watch. */
const PATIENCE_MS = 30_000

/**
 * Tells how a task goes on until it is final. Ends with a `Failure` when it did not succeed, or `timeout` is over.
 * With `json` only the final task is written.
 */
export async function watchTask(
  client: Client,
  id: string,
  { json, timeout }: { json?: true; timeout?: string },
): Promise<void> {
  const limitMs = timeout === undefined ? Number.POSITIVE_INFINITY : parseDuration(timeout)
  if (limitMs === undefined)
    throw new Failure(`--timeout must be a duration such as 30s or 5m, not ${timeout}`, EXIT.usage)
  const startedAt = realClock.now()
  let wait = FIRST_LOOK_MS
  let answeredAt = startedAt
  let told = ''
  let logged = 0
  const bar = progressBar(100)
  for (;;) {
    const text = await client.text('GET', `/tasks/${encodeURIComponent(id)}`).catch((error: unknown) => {
      const away = error instanceof Failure && error.exitCode === EXIT.unreachable
      if (!away || told === '' || realClock.now() - answeredAt > PATIENCE_MS) throw error
      return undefined
    })
    if (text !== undefined) {
      answeredAt = realClock.now()
      const task = JSON.parse(text) as Task
      const words = wordsOf(task)
      if (!json && words !== told) {
        bar.end()
        print(`${paint('gray', `${shortDuration(realClock.now() - startedAt).padStart(9)}`)}  ${words}`)
      }
      if (words !== told) wait = FIRST_LOOK_MS
      told = words
      // The API keeps the last lines only: once it is full, new ones cannot be told from old ones.
      if (!json) for (const line of (task.logs ?? []).slice(logged)) print(`           ${oneLine(line, 1_024)}`)
      logged = task.logs?.length ?? 0
      const { done, total, message } = task.progress ?? {}
      if (!json && done !== undefined && total) bar.at((done / total) * 100, message)
      if (isFinal(task.status)) {
        bar.end()
        if (json) printJson(text)
        else if (task.result !== null) print(`           ${oneLine(JSON.stringify(task.result), 1_000)}`)
        if (task.status === 'succeeded') return
        throw new Failure(`The task is ${task.status}${task.error === null ? '' : `: ${oneLine(task.error, 400)}`}`)
      }
    }
    if (realClock.now() - startedAt > limitMs) {
      bar.end()
      throw new Failure(`The task is not final after ${timeout}; it goes on`)
    }
    await pause(realClock, wait)
    wait = Math.min(SLOWEST_LOOK_MS, wait * 1.3)
  }
}

function wordsOf({ status, attempt, waitingFor, error, failures }: Task): string {
  const parts = [paintStatus(status)]
  if (attempt > 0) parts.push(`attempt ${attempt}`)
  if (waitingFor && status !== 'retrying') parts.push(oneLine(waitingFor.detail, 120))
  if (failures > 0 && error !== null && status !== 'succeeded') parts.push(oneLine(error, 200))
  return parts.join(', ')
}

/** Says on standard error that the command waits. */
export function noteSubmitted(id: string): void {
  note(`Submitted ${id}`)
}
