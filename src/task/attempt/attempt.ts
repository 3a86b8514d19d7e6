import type { Execution, Progress } from '../executor.ts'
import type { Outcome } from '../outcome.ts'
import type { Ask } from './question.ts'

/** What a target is given beside its execution. */
export interface TargetContext {
  /** Aborts when the attempt times out (reason: a `TimeoutError`) or is cancelled (an `AbortError`). Made on first use. */
  readonly signal: AbortSignal
  /** Adds a line to the task's log; cut at 1 KiB, the last 100 are kept. */
  log(line: string): void
  /** Replaces the task's progress. */
  progress(progress: Progress): void
  /** Asks the ledger's side; rejects once the attempt is aborted, though what was asked may have been done. */
  ask: Ask
  /** Calls user code. Until it returns, the executor knows that this task holds the event loop. Absent: just call it. */
  call?<T>(userCode: () => T): T
}

/** Runs one attempt at a target. An expected failure is an outcome; a rejection is a bug and counts as a retryable failure. */
export type RunTarget = (execution: Execution, context: TargetContext) => Promise<Outcome>
