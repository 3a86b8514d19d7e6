import { expect } from 'bun:test'
import { rm } from 'node:fs/promises'
import { createThreadPool, type ThreadPoolSettings } from '../../src/execution/threads/pool.ts'
import { realClock } from '../../src/runtime/clock.ts'
import type { Execution, Report } from '../../src/task/executor.ts'
import type { Outcome } from '../../src/task/outcome.ts'
import { until } from '../support/until.ts'
import { handlersWith, NO_ANSWERS, silent, threadSettings } from './executor.conformance.ts'

export const THREAD = new URL('../../src/thread.ts', import.meta.url)

/** Tells in which thread it runs, after as many milliseconds as its payload says. */
export const THREAD_ID = `import { threadId } from 'node:worker_threads'
export default async (ms) => { await new Promise((resolve) => setTimeout(resolve, ms ?? 0)); return threadId }`

const pools: { pool: ReturnType<typeof createThreadPool>; dir: string }[] = []

/** After each test: nothing runs and nothing waits. */
export async function endPools(): Promise<void> {
  for (const { pool, dir } of pools.splice(0)) {
    await pool.close()
    expect(pool.stats()).toMatchObject({ threads: 0, retiring: 0, alone: 0, running: 0, waiting: 0 })
    await rm(dir, { recursive: true, force: true })
  }
}

/** A pool of one thread, by default, with handlers of its own. */
export async function aPool(handlers: Record<string, string>, over: Partial<ThreadPoolSettings> = {}) {
  const dir = await handlersWith(handlers)
  const reports: Report[] = []
  const pool = createThreadPool({
    threads: 1,
    threadUrl: THREAD,
    workerData: threadSettings(dir),
    clock: realClock,
    log: silent,
    graceMs: 200,
    onReport: (batch) => reports.push(...batch),
    answers: NO_ANSWERS,
    ...over,
  })
  pools.push({ pool, dir })
  /** Runs an execution and waits until its handler has said that it started. */
  const started = async (execution: Execution): Promise<{ outcome: Promise<Outcome> }> => {
    const outcome = pool.run(execution)
    const isTold = () => reports.some(({ id, lines }) => id === execution.id && lines.includes('started'))
    await until(isTold, { what: 'the start' })
    return { outcome }
  }
  return { pool, dir, reports, started }
}

export const resultOf = async (run: Promise<Outcome>): Promise<unknown> => {
  const outcome = await run
  if (outcome.kind !== 'succeeded') throw new Error(`The task ended as ${JSON.stringify(outcome)}`)
  return JSON.parse(outcome.result ?? 'null')
}
