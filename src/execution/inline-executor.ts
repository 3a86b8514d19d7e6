import type { Clock } from '../runtime/clock.ts'
import type { Logger } from '../runtime/log.ts'
import type { RunTarget } from '../task/attempt.ts'
import { createAttemptRunner } from '../task/attempt-runner.ts'
import type { Executor, Report } from '../task/executor.ts'
import type { Outcome } from '../task/outcome.ts'

export interface InlineExecutorSettings {
  runTarget: RunTarget
  clock: Clock
  log: Logger
  /** Progress and log lines; those of a task come before its outcome. */
  onReport(reports: Report[]): void
}

/**
 * Runs attempts in the event loop of the caller, for tests and for where threads are not wanted. A target that ignores its
 * signal is not ended, one that exits or loops takes the process with it, and `alone` means nothing here.
 */
export function createInlineExecutor(settings: InlineExecutorSettings): Executor {
  const { runTarget, clock, log } = settings
  const running = new Map<number, { id: string; settle(outcome: Outcome): void }>()
  let keys = 0
  let closed = false
  const runner = createAttemptRunner({
    runTarget,
    clock,
    onReport(reports) {
      try {
        if (!closed) settings.onReport(reports)
      } catch (error) {
        log.error({ event: 'executor.report-failed', err: error }, 'Reports of running tasks could not be taken')
      }
    },
  })

  return {
    run(execution) {
      if (closed) return Promise.resolve({ kind: 'lost', error: 'the executor is closed', started: false })
      return new Promise((resolve) => {
        const key = ++keys
        running.set(key, { id: execution.id, settle: resolve })
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
