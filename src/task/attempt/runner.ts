import type { Clock } from '../../runtime/clock.ts'
import { formatDuration } from '../../runtime/duration.ts'
import type { Execution, Progress, Report } from '../executor.ts'
import { LIMITS, legible } from '../limits.ts'
import type { Outcome } from '../outcome.ts'
import type { RunTarget, TargetContext } from './attempt.ts'
import type { Answers, Question } from './question.ts'
import { describe, ReportBuffer } from './report.ts'

export interface AttemptRunnerSettings {
  runTarget: RunTarget
  clock: Clock
  /** Takes what attempts tell, at most every `reportEveryMs` for each; the last of an attempt comes before its end. */
  onReport(reports: Report[]): void
  /** By default 200. */
  reportEveryMs?: number
  /** Asks the ledger's side for the attempt of this key. */
  ask<Q extends Question>(key: number, question: Q): Promise<Answers[Q['kind']]>
  /** Wraps calls into user code; `key` is the attempt's. */
  around?<T>(key: number, userCode: () => T): T
}

/** Runs attempts in this event loop: their signals, time-outs, reports and the bounds of their outcomes. */
export interface AttemptRunner {
  /** Starts an attempt under a key of its own; `onEnd` is called once, when its target has ended. */
  start(key: number, execution: Execution, onEnd: (outcome: Outcome) => void): void
  /** Aborts the attempt's signal. No-op for a key that is not running. */
  cancel(key: number): void
  running(): number
  /** Reports at once what is gathered. */
  report(): void
  /** Ends its timers: no time-out and no report comes any more. */
  stop(): void
}

type Abort = 'timed-out' | 'cancelled'

export function createAttemptRunner(settings: AttemptRunnerSettings): AttemptRunner {
  const { runTarget, clock, onReport, reportEveryMs = 200 } = settings
  const attempts = new Map<number, Attempt>()
  const told = new Set<Attempt>()
  let wakeAt = Number.POSITIVE_INFINITY
  let stopWaking = () => {}
  let stopReporting = () => {}
  let stopped = false

  /** One timer for all attempts, at the earliest deadline: a start costs a comparison. */
  function wakeBy(deadline: number): void {
    if (deadline >= wakeAt || stopped) return
    stopWaking()
    wakeAt = deadline
    stopWaking = clock.after(deadline - clock.now(), () => {
      wakeAt = Number.POSITIVE_INFINITY
      const now = clock.now()
      let next = Number.POSITIVE_INFINITY
      for (const attempt of attempts.values()) {
        if (attempt.deadline <= now) attempt.abort('timed-out')
        else next = Math.min(next, attempt.deadline)
      }
      wakeBy(next)
    })
  }

  function reportSoon(attempt: Attempt): void {
    told.add(attempt)
    if (told.size > 1 || stopped) return
    stopReporting = clock.after(reportEveryMs, report)
  }

  function report(): void {
    const reports = [...told].flatMap((teller) => teller.report.take() ?? [])
    told.clear()
    if (reports.length > 0) onReport(reports)
  }

  class Attempt implements TargetContext {
    readonly report: ReportBuffer
    readonly deadline: number
    readonly #key: number
    readonly #execution: Execution
    readonly #onEnd: (outcome: Outcome) => void
    #controller: AbortController | undefined
    #aborted: Abort | undefined
    #ended = false

    constructor(key: number, execution: Execution, onEnd: (outcome: Outcome) => void) {
      this.#key = key
      this.#execution = execution
      this.#onEnd = onEnd
      this.report = new ReportBuffer(execution.id, execution.attempt)
      this.deadline = clock.now() + execution.timeoutMs
    }

    /** Made on first use: most targets of short tasks never look at it. */
    get signal(): AbortSignal {
      if (!this.#controller) {
        this.#controller = new AbortController()
        if (this.#aborted) this.#controller.abort(this.#reason(this.#aborted))
      }
      return this.#controller.signal
    }

    // Arrow functions, because targets take their context apart.
    readonly log = (line: string): void => {
      if (this.#ended) return
      this.report.add(line)
      reportSoon(this)
    }

    readonly progress = (progress: Progress): void => {
      if (this.#ended) return
      this.report.setProgress(progress)
      reportSoon(this)
    }

    readonly ask = <Q extends Question>(question: Q): Promise<Answers[Q['kind']]> => {
      if (this.#ended) return Promise.reject(new Error('The attempt has ended: it asks nothing more'))
      return unlessAborted(this.signal, () => settings.ask(this.#key, question))
    }

    readonly call = <T>(userCode: () => T): T => (settings.around ? settings.around(this.#key, userCode) : userCode())

    abort(why: Abort): void {
      if (this.#aborted) return
      this.#aborted = why
      this.#controller?.abort(this.#reason(why))
    }

    end(outcome: Outcome): void {
      this.#ended = true
      attempts.delete(this.#key)
      const report = this.report.take()
      if (report) onReport([report])
      this.#onEnd(bounded(this.#judge(outcome)))
    }

    /** A success stands, however late: its work is done. Any other end after an abort is that abort's. */
    #judge(outcome: Outcome): Outcome {
      if (!this.#aborted || outcome.kind === 'succeeded') return outcome
      if (this.#aborted === 'cancelled') return { kind: 'cancelled' }
      const failed: Outcome = { kind: 'failed', retryable: true, error: timedOut(this.#execution) }
      if (outcome.kind === 'failed' && outcome.response) failed.response = outcome.response
      return failed
    }

    #reason(why: Abort): DOMException {
      if (why === 'cancelled') return new DOMException('The task was cancelled', 'AbortError')
      return new DOMException(timedOut(this.#execution), 'TimeoutError')
    }
  }

  return {
    start(key, execution, onEnd) {
      const attempt = new Attempt(key, execution, onEnd)
      attempts.set(key, attempt)
      wakeBy(attempt.deadline)
      startTarget(runTarget, execution, attempt).then(
        (outcome) => attempt.end(outcome),
        (thrown) => attempt.end({ kind: 'failed', retryable: true, error: describe(thrown) }),
      )
    },
    cancel: (key) => attempts.get(key)?.abort('cancelled'),
    running: () => attempts.size,
    report,
    stop() {
      stopped = true
      stopWaking()
      stopReporting()
    },
  }
}

/** The error of an attempt that ran past its timeout. */
export function timedOut({ timeoutMs }: Pick<Execution, 'timeoutMs'>): string {
  return `timed out after ${formatDuration(timeoutMs)}`
}

/** What `work` comes to, or a rejection with the signal's reason as soon as that aborts. */
function unlessAborted<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  if (signal.aborted) return Promise.reject(signal.reason)
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
    void work()
      .then(resolve, reject)
      .finally(() => signal.removeEventListener('abort', onAbort))
  })
}

/** A target that throws before its first await must not break the batch it came with. */
function startTarget(runTarget: RunTarget, execution: Execution, context: TargetContext): Promise<Outcome> {
  try {
    return runTarget(execution, context)
  } catch (thrown) {
    return Promise.reject(thrown)
  }
}

/** Keeps an outcome within LIMITS, before it crosses a thread. */
function bounded(outcome: Outcome): Outcome {
  switch (outcome.kind) {
    case 'succeeded': {
      const { result } = outcome
      if (result === undefined || result.length * 3 <= LIMITS.resultBytes) return outcome
      const bytes = Buffer.byteLength(result)
      if (bytes <= LIMITS.resultBytes) return outcome
      const error = `The result has ${bytes} bytes; at most ${LIMITS.resultBytes} are kept. The work itself was done: return less, or store it elsewhere and return where.`
      return { kind: 'failed', retryable: false, error }
    }
    case 'failed': {
      const { retryAfterMs } = outcome
      const error = legible(outcome.error, LIMITS.errorBytes)
      if (retryAfterMs === undefined) return { ...outcome, error }
      return { ...outcome, error, retryAfterMs: Math.min(retryAfterMs, LIMITS.retryAfterMs) }
    }
    case 'lost':
      return { ...outcome, error: legible(outcome.error, LIMITS.errorBytes) }
    default:
      return outcome
  }
}
