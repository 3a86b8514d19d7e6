import { realClock } from '../../../runtime/clock.ts'
import { isFinal, type Status } from '../../../task/status.ts'
import type { Client } from '../../client.ts'
import { Failure } from '../../failure.ts'
import { note, oneLine, paint, paintStatus, print, printJson, progressBar, shortDuration } from '../../output.ts'
import { watch } from '../../watch.ts'

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

/**
 * Tells how a task goes on until it is final. Ends with a `Failure` when it did not succeed, or `timeout` is over.
 * With `json` only the final task is written.
 */
export async function watchTask(
  client: Client,
  id: string,
  { json, timeout }: { json?: true; timeout?: string },
): Promise<void> {
  const startedAt = realClock.now()
  let wait = FIRST_LOOK_MS
  let told = ''
  let logged = 0
  const bar = progressBar(100)

  function tell({ logs = [], progress }: Task, words: string): void {
    if (words !== told) {
      bar.end()
      print(`${paint('gray', `${shortDuration(realClock.now() - startedAt).padStart(9)}`)}  ${words}`)
    }
    // The API keeps the last lines only: once it is full, new ones cannot be told from old ones.
    for (const line of logs.slice(logged)) print(`           ${oneLine(line, 1_024)}`)
    logged = logs.length
    const { done, total, message } = progress ?? {}
    if (done !== undefined && total) bar.at((done / total) * 100, message)
  }

  const text = await watch(() => client.text('GET', `/tasks/${encodeURIComponent(id)}`), {
    timeout,
    waitMs() {
      const now = wait
      wait = Math.min(SLOWEST_LOOK_MS, wait * 1.3)
      return now
    },
    onAnswer(text) {
      const task = JSON.parse(text) as Task
      const words = wordsOf(task)
      if (!json) tell(task, words)
      if (words !== told) wait = FIRST_LOOK_MS
      told = words
      return isFinal(task.status)
    },
  })
  bar.end()
  if (text === undefined) throw new Failure(`The task is not final after ${timeout}; it goes on`)
  const { status, result, error } = JSON.parse(text) as Task
  if (json) printJson(text)
  else if (result !== null) print(`           ${oneLine(JSON.stringify(result), 1_000)}`)
  if (status !== 'succeeded')
    throw new Failure(`The task is ${status}${error === null ? '' : `: ${oneLine(error, 400)}`}`)
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
