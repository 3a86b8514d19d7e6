import type { Report } from './executor.ts'
import type { Outcome } from './outcome.ts'
import type { Status } from './status.ts'
import type { ClaimedTask } from './task.ts'
import type { Tokens } from './topology/rate-limit.ts'
import type { Destination } from './topology/topology.ts'
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
  /** Every publish of this node up to this number is confirmed (PROTOCOL 11); absent in-process. */
  confirmed?: number | undefined
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

export const BROKER_KINDS = ['in-process', 'rabbitmq'] as const
export type BrokerKind = (typeof BROKER_KINDS)[number]

/** How a node stands with its broker. */
export interface BrokerState {
  /** `blocked`: the broker takes no messages for now (memory or disk alarm). */
  status: 'up' | 'down' | 'blocked'
  /** RFC 3339. */
  since: string
  /** Why it is not up, or does not do all that it should. */
  reason: string | null
  /** Where it takes messages and confirms none; absent when there is no such place. */
  unconfirmed?: Destination[] | undefined
  /** The connections that this node has, by their names at the broker. */
  connections: { name: string; host: string; purpose: 'publish' | 'consume'; since: string }[]
}

/** What a node tells of itself in its beats. */
export interface NodeState {
  broker: BrokerKind
  /** Absent in-process, where there is nothing to stand with. */
  link?: BrokerState | undefined
  /** Where its user may not publish, as the broker said lately. */
  refused?: Destination[] | undefined
  /** One entry per running consumer. */
  consumers: {
    id: string
    queue: string
    concurrency: number
    running: number
    buffered: number
    /** Outcomes per second, lately. */
    rate: number
    /** RFC 3339: its rate limit lets the next task start then; absent while it holds nothing back. */
    limitedUntil?: string | undefined
  }[]
}

/** A message that a worker was handed, as the ledger judges it. */
export type DeliveryClaim =
  /** Attempt `attempt` of a task. */
  | { kind: 'task'; id: string; attempt: number }
  /** This queue's copy of a task that was published to an exchange. */
  | { kind: 'copy'; parentId: string }
  /** A readable message of somebody else's; `id` is the same for every copy of it (PROTOCOL 17). */
  | ({ kind: 'foreign' } & Stray)
  /** A message that cannot be worked on, and why: it becomes a dead letter. */
  | ({ kind: 'unreadable'; reason: string } & Stray)

/** A message that becomes a task by itself. */
export interface Stray {
  /** Of the task that it becomes. */
  id: string
  /** JSON text; `null` (the text) where its bytes are none. */
  payload: string
  type: string | null
  /** 0 to 9. */
  priority: number
  traceparent: string | null
  /** What else there was to the message, kept with the task. */
  message: StrayMessage
}

export interface StrayMessage {
  /** Its body is no payload: the task has the payload null until it is mended, and cannot be replayed before. */
  unreadable?: true | undefined
  /** Base64; absent where the payload is all of it. */
  body?: string | undefined
  exchange: string
  routingKey: string
  properties: Record<string, unknown>
  headers: Record<string, unknown>
}

export interface Claim {
  /** New for every claim; the same again gives the same answer (PROTOCOL 2). */
  claimId: string
  node: string
  queue: string
  deliveries: DeliveryClaim[]
}

/**
 * What a delivery is: `claimed`, this node's to run; `duplicate`, somebody else's, over, or given back: ack it; `dead`, kept
 * as a dead letter: ack it; `unknown`, of a task that the ledger does not have: claim it again as `unreadable` (PROTOCOL 14).
 */
export type ClaimAnswer = { kind: 'claimed'; task: ClaimedTask } | { kind: 'duplicate' | 'dead' | 'unknown' }

/**
 * The truth about tasks as a worker needs it: the store, or (for workers without a database) HTTP.
 * Every call may be repeated: the fences make the second one harmless.
 */
export interface Ledger {
  /** Judges deliveries of one queue, in their order, and takes those that are to be run. */
  claim(claim: Claim): Promise<ClaimAnswer[]>
  /** Ends attempts of `node`. Answers in the order of the settlements; rejects only when nothing was written or the result is not known. */
  settle(node: string, settlements: Settlement[]): Promise<Settled[]>
  beat(beat: Beat): Promise<BeatAnswer>
  /** Writes progress and log lines of running attempts of `node`; those of others are dropped. */
  report(node: string, reports: Report[]): Promise<void>
  /** Takes up to `count` tokens of a consumer's rate limit, exact over all nodes. */
  takeTokens(consumer: string, count: number): Promise<Tokens>
  /** Takes or keeps a name that one living node at a time can have; false while another one has it. */
  hold(node: string, name: string): Promise<boolean>
  /** Lets a held name go. */
  release(node: string, name: string): Promise<void>
}
