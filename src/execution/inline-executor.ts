import type { Clock } from '../runtime/clock.ts'
import type { Logger } from '../runtime/log.ts'
import type { RunTarget } from '../task/attempt/attempt.ts'
import type { Answers, Question } from '../task/attempt/question.ts'
import { createAttemptRunner } from '../task/attempt/runner.ts'
import type { Executor, Report } from '../task/executor.ts'
import type { Outcome } from '../task/outcome.ts'
import type { Answerer } from './answers.ts'

export interface InlineExecutorSettings {
  runTarget: RunTarget
  clock: Clock
  log: Logger
  /** Progress and log lines; those of a task come before its outcome. */
  onReport(reports: Report[]): void
  /** Answers what attempts ask. */
  answers: Pick<Answerer, 'answer'>
}

/** The one thread that there is. */
export const INLINE = 0

/**
 * Runs attempts in the event loop of the caller, for tests and for where threads are not wanted. A target that ignores its
 * signal is not ended, one that exits or loops takes the process with it, and `alone` and `affinity` mean nothing here.
 */
export function createInlineExecutor(settings: InlineExecutorSettings): Executor {
  const { runTarget, clock, log } = settings
  const running = new Map<number, { id: string; attempt: number; settle(outcome: Outcome): void }>()
  let keys = 0
  let closed = false
  async function ask<Q extends Question>(key: number, question: Q): Promise<Answers[Q['kind']]> {
    const run = running.get(key)
    if (!run) throw new Error('The executor was closed')
    const asker = { id: run.id, attempt: run.attempt }
    return settings.answers.answer(INLINE, asker, question) as Promise<Answers[Q['kind']]>
  }

  const runner = createAttemptRunner({
    runTarget,
    clock,
    ask,
    onReport(reports) {
      try {
        if (!closed) settings.onReport(reports)
      } catch (error) {
        log.error({ event: 'reports-failed', err: error }, 'Reports of running tasks could not be taken')
      }
    },
  })

  return {
    run(execution) {
      if (closed) return Promise.resolve({ kind: 'lost', error: 'the executor is closed', started: false })
      return new Promise((resolve) => {
        const key = ++keys
        running.set(key, { id: execution.id, attempt: execution.attempt, settle: resolve })
        runner.start(key, execution, (outcome) => {
          running.delete(key)
          resolve(outcome)
        })
      })
    },
    cancel(id) {
      for (const [key, task] of running) if (task.id === id) runner.cancel(key)
    },
    async close() {
      closed = true
      for (const [key, task] of running) {
        runner.cancel(key)
        task.settle({ kind: 'lost', error: 'the executor was closed', started: true })
      }
      running.clear()
      runner.stop()
    },
  }
}
