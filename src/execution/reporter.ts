import { createBatcher } from '../runtime/batcher.ts'
import { type Clock, pause } from '../runtime/clock.ts'
import { messageOf } from '../runtime/errors.ts'
import type { Logger } from '../runtime/log.ts'
import type { Report } from '../task/executor.ts'
import type { Ledger } from '../task/ledger.ts'
import { LIMITS } from '../task/limits.ts'

export interface ReporterDeps {
  ledger: Pick<Ledger, 'report'>
  clock: Clock
  log: Logger
  node(): string
  /** Rejections that are about one report, not about the database. */
  isBadRow(error: unknown): boolean
}

export interface Reporter {
  /** Takes progress and log lines on their way into the ledger. */
  report(reports: Report[]): void
  /** Resolves when what was reported of the task is written; undefined when nothing is on its way. */
  written(id: string): Promise<void> | undefined
  /** Gives up what the ledger does not take now. */
  close(): void
}

const MAX_BATCH = 500
const MAX_WAITING = 100_000
const RETRY_MS = 250

/** Writes progress and log lines of running tasks in batches; a task's outcome waits for them. */
export function createReporter({ ledger, clock, log, node, isBadRow }: ReporterDeps): Reporter {
  const closed = new AbortController()
  const pending = new Map<string, Promise<void>>()
  const batcher = createBatcher<Report, void>({
    maxBatch: MAX_BATCH,
    maxWaiting: MAX_WAITING,
    splitOnError: isBadRow,
    async run(batch) {
      for (;;) {
        try {
          await ledger.report(node(), merged(batch))
          return batch.map(() => undefined)
        } catch (error) {
          if (isBadRow(error) || closed.signal.aborted) throw error
          log.warn({ event: 'report-failed', error: messageOf(error) }, 'Cannot write progress; trying again')
          await pause(clock, RETRY_MS, closed.signal)
        }
      }
    },
  })

  return {
    report(reports) {
      for (const report of reports) {
        const written = batcher
          .add(report)
          .catch((error) => log.warn({ event: 'report-dropped', task: report.id, error: messageOf(error) }))
          .finally(() => {
            if (pending.get(report.id) === written) pending.delete(report.id)
          })
        pending.set(report.id, written)
      }
    },
    written: (id) => pending.get(id),
    close: () => closed.abort(),
  }
}

/** One report a task: the newest progress, all lines in order. */
function merged(reports: Report[]): Report[] {
  const byAttempt = new Map<string, Report>()
  for (const report of reports) {
    const key = `${report.id}/${report.attempt}`
    const before = byAttempt.get(key)
    byAttempt.set(key, {
      ...report,
      progress: report.progress ?? before?.progress,
      lines: [...(before?.lines ?? []), ...report.lines].slice(-LIMITS.logLines),
    })
  }
  return [...byAttempt.values()]
}
