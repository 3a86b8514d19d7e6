import type { Outcome } from './outcome.ts'
import type { Target } from './target/target.ts'

/** One attempt as a target sees it. */
export interface Execution {
  id: string
  queue: string
  type: string | null
  attempt: number
  /** JSON text as it was submitted. */
  payload: string
  target: Target
  timeoutMs: number
  priority: number
  /** RFC 3339, UTC, milliseconds. */
  createdAt: string
  parentId: string | null
  origin: string
  /** W3C trace context of this attempt, to be passed on. */
  traceparent?: string | null | undefined
  /** Lost before: give it a thread of its own, so that it can take no neighbour with it. */
  alone: boolean
  /** Runs with the same one go to the same thread, as long as it lives, and never to two at a time; null: to any. */
  affinity?: string | null | undefined
}

export interface Progress {
  done: number
  total?: number | undefined
  message?: string | undefined
}

/** What a running task tells before it ends: progress replaces, lines are added. */
export interface Report {
  id: string
  attempt: number
  progress?: Progress | undefined
  lines: string[]
}

/** Runs attempts, many at a time, outside the code that settles them. */
export interface Executor {
  /** Never rejects: every end, a crash included, is an outcome. */
  run(execution: Execution): Promise<Outcome>
  /** Aborts the task's signal; whatever ends first is its outcome. No-op for a task that is not running. */
  cancel(id: string): void
  /** Ends every thread; what still runs ends as `lost`. */
  close(): Promise<void>
}
