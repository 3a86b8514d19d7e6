import type { Progress, Report } from '../executor.ts'
import { LIMITS, legible } from '../limits.ts'

/** Gathers what one attempt tells between two reports; bounded, whatever the target says. */
export class ReportBuffer {
  readonly #id: string
  readonly #attempt: number
  #lines: string[] = []
  #dropped = 0
  #progress: Progress | undefined

  constructor(id: string, attempt: number) {
    this.#id = id
    this.#attempt = attempt
  }

  add(line: unknown): void {
    this.#lines.push(legible(typeof line === 'string' ? line : describe(line), LIMITS.logLineBytes))
    if (this.#lines.length < 2 * LIMITS.logLines) return
    this.#dropped += this.#lines.length - LIMITS.logLines
    this.#lines = this.#lines.slice(-LIMITS.logLines)
  }

  /** Takes the last progress; what is none becomes a log line that says so, because a typo must not fail a task. */
  setProgress(progress: unknown): void {
    const { done, total, message } = (progress ?? {}) as Record<string, unknown>
    if (!Number.isFinite(done) || (total !== undefined && total !== null && !Number.isFinite(total))) {
      this.add('progress ignored: it takes { done, total?, message? } with finite numbers')
      return
    }
    this.#progress = { done: done as number }
    if (typeof total === 'number') this.#progress.total = total
    if (message !== undefined && message !== null)
      this.#progress.message = legible(describe(message), LIMITS.logLineBytes)
  }

  /** What was told since the last call; undefined when nothing was. */
  take(): Report | undefined {
    if (this.#lines.length === 0 && this.#progress === undefined) return undefined
    const dropped = this.#dropped + Math.max(0, this.#lines.length - LIMITS.logLines)
    const lines = dropped === 0 ? this.#lines : this.#lines.slice(1 - LIMITS.logLines)
    if (dropped > 0) lines.unshift(`[${dropped + 1} lines dropped]`)
    const report: Report = { id: this.#id, attempt: this.#attempt, lines }
    if (this.#progress) report.progress = this.#progress
    this.#lines = []
    this.#dropped = 0
    this.#progress = undefined
    return report
  }
}

/** Text for any value that user code hands over or throws; never throws itself. */
export function describe(value: unknown): string {
  try {
    if (typeof value === 'object' && value !== null && !(value instanceof Error)) {
      return JSON.stringify(value) ?? String(value)
    }
    return String(value)
  } catch {
    return 'a value that cannot be shown'
  }
}
