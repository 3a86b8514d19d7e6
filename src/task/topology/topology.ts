import { Type } from '@sinclair/typebox'
import type { ConsumerTarget } from '../target/target.ts'
import type { QueuePolicy } from './queue.ts'
import type { RateLimit } from './rate-limit.ts'

/** A queue's row, as nodes go by it. */
export interface QueueOrder extends QueuePolicy {
  name: string
  paused: boolean
  /** How the broker's queue differs from this row, and what to do; such a queue stands still. */
  conflict: string | null
}

/** An exchange's name; `amq.` and the default exchange (no name) belong to the broker, `longshore.` to us. */
export const ExchangeNameSchema = Type.String({
  pattern: '^(?!amq\\.)(?!longshore\\.)[A-Za-z0-9._:-]{1,128}$',
  description: 'Letters, digits and . _ : - , 1 to 128; not beginning with "amq." or "longshore."',
  examples: ['orders'],
})

export const EXCHANGE_TYPES = ['direct', 'topic', 'fanout'] as const
export type ExchangeType = (typeof EXCHANGE_TYPES)[number]

/** Where messages are published to. */
export interface Destination {
  kind: 'queue' | 'exchange'
  name: string
}

export interface ExchangeOrder {
  name: string
  type: ExchangeType
  /** As of a queue. */
  conflict: string | null
  /** Another one whenever one of its bindings came or went, even if it is there again. */
  version?: string | undefined
}

export interface BindingOrder {
  exchange: string
  queue: string
  /** With a topic exchange a pattern: `*` is one word, `#` any number of them. */
  routingKey: string
}

/** A consumer's row, as nodes go by it. */
export interface ConsumerOrder {
  id: string
  queue: string
  target: ConsumerTarget
  concurrency: number
  timeoutMs: number
  paused: boolean
  rateLimit?: RateLimit | null | undefined
}

/** The desired state: what the rows say. */
export interface Topology {
  queues: QueueOrder[]
  exchanges: ExchangeOrder[]
  bindings: BindingOrder[]
  consumers: ConsumerOrder[]
}
