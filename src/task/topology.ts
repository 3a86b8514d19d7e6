import type { QueuePolicy } from './queue.ts'
import type { ConsumerTarget } from './target.ts'

/** A queue's row, as nodes go by it. */
export interface QueueOrder extends QueuePolicy {
  name: string
  paused: boolean
}

/** A consumer's row, as nodes go by it. */
export interface ConsumerOrder {
  id: string
  queue: string
  target: ConsumerTarget
  concurrency: number
  timeoutMs: number
  paused: boolean
}

/** The desired state: what the rows of queues and consumers say. */
export interface Topology {
  queues: QueueOrder[]
  consumers: ConsumerOrder[]
}
