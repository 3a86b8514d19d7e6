import type { ClaimedTask } from '../task/task.ts'

/** What travels through the broker: "task X, attempt n, is ready". */
export interface Message {
  queue: string
  /** The row, already claimed for this node: in-process the hand-over is a function call, so one claim serves both sides. */
  task: ClaimedTask
}

/** How a delivery ends; a return value, so that no handler can forget it. */
export type DeliveryEnd = 'ack' | 'requeue'

/** Takes deliveries in batches; each promise ends its delivery and never rejects. */
export type DeliveryHandler = (messages: Message[]) => Promise<DeliveryEnd>[]

/** A standing order for deliveries of one queue. */
export interface Subscription {
  /** At most this many deliveries are out at once. */
  setPrefetch(prefetch: number): void
  /** No more deliveries; those that are out may still end. */
  cancel(): void
}

/** The doorbell between dispatcher and workers (DESIGN principle 1): losing or doubling a message never loses a task. */
export interface Broker {
  readonly kind: 'in-process'
  /** How many messages of a queue it takes now. */
  room(queue: string): number
  /** Hands messages over; gives back those that nobody takes. */
  publish(messages: Message[]): Promise<Message[]>
  consume(queue: string, prefetch: number, handler: DeliveryHandler): Subscription
  /** Calls `listener` whenever a queue may take more. */
  onRoom(listener: (queue: string) => void): void
}
