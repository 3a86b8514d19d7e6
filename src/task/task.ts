import type { Attempt } from './ledger.ts'
import type { Origin } from './status.ts'

/** A task as it is submitted: checked, ready to be stored. */
export interface NewTask {
  /** UUIDv7. */
  id: string
  queue: string
  type: string | null
  /** JSON text as it was received. */
  payload: string
  /** JSON text of a Target, for queues whose consumer takes the task's own. */
  target: string | null
  priority: number
  /** RFC 3339. Neither this nor `delayMs` means now. */
  dueAt: string | null
  delayMs: number | null
  /** null: the queue's. */
  maxAttempts: number | null
  /** null: the consumer's. */
  timeoutMs: number | null
  idempotencyKey: string | null
  /** SHA-256 (hex) of what was asked; only beside an idempotency key. */
  fingerprint: string | null
  parentId: string | null
  origin: Origin
  /** W3C trace context that it was submitted with. */
  traceparent?: string | null | undefined
  /** Where it is addressed to when not to a queue; `queue` is then the exchange's line (`lineOf`) until it is stored. */
  exchange?: string | null | undefined
  routingKey?: string | null | undefined
  /** JSON text of a StrayMessage: headers that its messages bear. */
  message?: string | null | undefined
}

/** A task in the hands of a node: its row is running, and attempt and node are that node's. */
export interface ClaimedTask {
  id: string
  queue: string
  type: string | null
  payload: string
  target: string | null
  priority: number
  attempt: number
  failures: number
  maxAttempts: number
  lostStarts: number
  timeoutMs: number | null
  parentId: string | null
  origin: Origin
  /** RFC 3339, UTC, milliseconds. */
  createdAt: string
  /** W3C trace context that it was submitted with. */
  traceparent?: string | null | undefined
  /** For how long it had been due when it was claimed, in milliseconds. */
  waitedMs?: number | undefined
}

/** A task on its way into the broker: its row is queued, and the attempt that the message is for is one more than the row's. */
export interface QueuedTask {
  id: string
  queue: string
  type: string | null
  payload: string
  priority: number
  /** The number of the attempt that a delivery of this message begins. */
  attempt: number
  createdAt: string
  traceparent?: string | null | undefined
  /** Where it was addressed to, when not to a queue; not of a copy that one of an exchange's queues got. */
  exchange?: string | null | undefined
  routingKey?: string | null | undefined
  /** JSON text: what its messages bear beside our own headers. */
  headers?: string | null | undefined
}

/** A claimed task as its settlement names it. */
export function attemptOf(task: Pick<ClaimedTask, keyof Attempt & keyof ClaimedTask> & Attempt['standing']): Attempt {
  const { id, queue, attempt, parentId, failures, maxAttempts, lostStarts } = task
  return { id, queue, attempt, parentId, standing: { failures, maxAttempts, lostStarts } }
}
