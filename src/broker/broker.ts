import type { BrokerKind, BrokerState } from '../task/ledger.ts'
import type { ClaimedTask } from '../task/task.ts'
import type { Destination, ExchangeType } from '../task/topology/topology.ts'

/** A header's value: what AMQP tables hold, as plain JSON-like values. */
export type HeaderValue = string | number | boolean | null | HeaderValue[] | { [name: string]: HeaderValue }

/** What AMQP 0-9-1 lets a message say of itself. */
export interface MessageProperties {
  messageId?: string | undefined
  correlationId?: string | undefined
  type?: string | undefined
  contentType?: string | undefined
  contentEncoding?: string | undefined
  priority?: number | undefined
  /** RFC 3339; AMQP keeps whole seconds. */
  timestamp?: string | undefined
  replyTo?: string | undefined
  /** Milliseconds, as AMQP writes it. */
  expiration?: string | undefined
  appId?: string | undefined
  headers?: Record<string, HeaderValue> | undefined
}

/** What travels through the broker: "task X, attempt n, is ready", or somebody else's message. */
export interface Message {
  /** '' is the default exchange, which routes to the queue that the routing key names. */
  exchange: string
  routingKey: string
  body: string | Uint8Array
  properties: MessageProperties
  /**
   * In-process only: the row, already claimed for this node, because there the hand-over is a function call. Such a
   * message is returned when no consumer takes it at once.
   */
  task?: ClaimedTask | undefined
}

/** Where a message goes: through the default exchange to a queue. */
export const destinationOf = ({ exchange, routingKey }: Message): Destination =>
  exchange === '' ? { kind: 'queue', name: routingKey } : { kind: 'exchange', name: exchange }

/** `unknown`: it may be there or not; send it again. `returned`: no queue took it. `refused`: this node's user may not publish there. */
export type PublishEnd = 'confirmed' | 'returned' | 'refused' | 'unknown'

/** One hand-over of a message to a consumer. */
export interface Delivery extends Message {
  /** The queue that it was taken from. */
  queue: string
  redelivered: boolean
}

/** How a delivery ends; a return value, so that no handler can forget it. */
export type DeliveryEnd = 'ack' | 'requeue' | 'dead-letter'

/** Takes deliveries in batches; each promise ends its delivery and never rejects. */
export type DeliveryHandler = (deliveries: Delivery[]) => Promise<DeliveryEnd>[]

/** A standing order for deliveries of one queue; it outlives lost connections, closed channels and deleted queues. */
export interface Subscription {
  /** At most about this many deliveries are out at once; 0: none more. */
  setPrefetch(prefetch: number): void
  /** No more deliveries; those that are out may still end. */
  cancel(): void
}

/** A queue as the broker should have it. */
export interface BrokerQueue {
  name: string
  type: 'quorum' | 'classic'
  maxPriority: number | null
  /** Rejected and expired messages go to `<name>.dlq`, which is declared with it. */
  deadLetter: boolean
}

/** What the broker should have. */
export interface BrokerTopology {
  queues: BrokerQueue[]
  exchanges: { name: string; type: ExchangeType }[]
  bindings: { exchange: string; queue: string; routingKey: string }[]
  /** The id of what the broker has seen so far; its mark at the broker is gone when the broker lost everything (PROTOCOL 11). */
  epoch?: string | undefined
}

/** What is found gone. */
export type Lost = Pick<Declared, 'missing' | 'wiped'>

/** What declaring came to. */
export interface Declared {
  /** Queues that were not there and are now: what was in them is gone (PROTOCOL 11). */
  missing: string[]
  /** What the broker has otherwise than it should; nothing was changed there. */
  conflicts: (Destination & { difference: string })[]
  /** The mark of the epoch was not there and is now: the broker lost everything, or never saw it (PROTOCOL 11). */
  wiped: boolean
}

/** What is to be taken away. */
export type Removal =
  | { kind: 'queue'; name: string; ifEmpty: boolean; ifUnused: boolean }
  | { kind: 'exchange'; name: string; ifUnused: boolean }
  | { kind: 'binding'; exchange: string; queue: string; routingKey: string }

export type Removed = 'removed' | 'not-empty' | 'in-use'

/** A message that could not be sent, a declaration that could not be made: the broker is away or refuses. */
export class BrokerUnavailable extends Error {
  override readonly name = 'BrokerUnavailable'
}

/** What a broker counts in a queue: messages that wait, and consumers of anybody. */
export interface Counted {
  messages: number
  consumers: number
}

/** The doorbell between dispatcher and workers (DESIGN principle 1): losing or doubling a message never loses a task. */
export interface Broker {
  readonly kind: BrokerKind
  state(): BrokerState
  /** Publishes in the order given for each queue and exchange; never rejects. Answers in the order of the messages. */
  publish(messages: Message[]): Promise<PublishEnd[]>
  consume(queue: string, prefetch: number, handler: DeliveryHandler): Subscription
  /**
   * Makes what is missing, changes nothing that is there. Rejects with BrokerUnavailable. `beforeMaking` is awaited between
   * the look and the making: once a queue is there again, nobody else can see that it was gone, so whoever has to act on
   * that commits there. When it rejects, nothing is made, and declare rejects with it.
   */
  declare(topology: BrokerTopology, beforeMaking?: (lost: Lost) => Promise<void>): Promise<Declared>
  /** Takes something away, its dead-letter queue with it; what is not there is removed. Rejects with BrokerUnavailable. */
  remove(removal: Removal): Promise<Removed>
  /**
   * What the broker counts in a queue now, and, with `purge`, after throwing away what waited; undefined: no such queue. A
   * broker that may say 0 for want of an answer is asked twice with `surely`, which takes a moment.
   */
  inspect(queue: string, options?: { purge?: boolean; surely?: boolean }): Promise<Counted | undefined>
  /** How many messages of a queue it takes now: in-process what its consumers have room for; RabbitMQ none while down or blocked. */
  room(queue: string): number
  /** Calls `listener` whenever a queue may take more (a queue's name), or the state changed (undefined). */
  onChange(listener: (queue: string | undefined) => void): void
  /** Calls `listener` when a queue that is consumed here cannot be consumed any more: it may be gone, with all that was in it. */
  onLost(listener: (queue: string) => void): void
}
