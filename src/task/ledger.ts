import type { Report } from './executor.ts'
import type { Outcome } from './outcome.ts'
import type { Status } from './status.ts'
import type { Standing } from './transition.ts'

/** An attempt in a node's hands; (id, attempt, node) is its fence. */
export interface Attempt {
  id: string
  queue: string
  attempt: number
  parentId: string | null
  standing: Standing
}

/** The end of an attempt. */
export interface Settlement extends Attempt {
  outcome: Outcome
}

/** What became of a settlement; `late` when the attempt was no longer this node's: nothing was written. */
export type Settled = { id: string; late: true } | { id: string; late: false; status: Status; delayMs: number }

/** What a node has in its hands, told every 5 s. */
export interface Beat {
  node: string
  /** Every task in the node's hands. */
  held: string[]
  /** Those of them whose target was started. */
  started: string[]
  /** What this node does, for `waitingFor` and `GET /nodes`. */
  state: NodeState
}

export interface BeatAnswer {
  /** False: this node was declared dead; it aborts its work and comes back under a new id. */
  alive: boolean
  /** Held tasks that somebody asked to cancel. */
  cancel: string[]
  /** Rows that are running on this node and were not named. */
  unnamed: Attempt[]
  /** How many other nodes live. */
  others: number
}

/** What a node tells of itself in its beats. */
export interface NodeState {
  broker: 'in-process'
  /** One entry per running consumer. */
  consumers: {
    id: string
    queue: string
    concurrency: number
    running: number
    buffered: number
    /** Outcomes per second, lately. */
    rate: number
  }[]
}

/**
 * The truth about tasks as a worker needs it: the store, or (for workers without a database) HTTP.
 * Every call may be repeated: the fences make the second one harmless.
 */
export interface Ledger {
  /** Ends attempts of `node`. Answers in the order of the settlements; rejects only when nothing was written or the result is not known. */
  settle(node: string, settlements: Settlement[]): Promise<Settled[]>
  beat(beat: Beat): Promise<BeatAnswer>
  /** Writes progress and log lines of running attempts of `node`; those of others are dropped. */
  report(node: string, reports: Report[]): Promise<void>
}
