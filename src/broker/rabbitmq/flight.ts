import type { AMQPMessage } from '@cloudamqp/amqp-client'
import type { Message, PublishEnd } from '../broker.ts'

/** A message that was sent and has no confirm yet. */
export interface Flying {
  message: Message
  /** The clock's instant at which it was sent. */
  sentAt: number
  returned: boolean
  /** Its timeout has ended it: its confirm, should it come, tells nobody anything. */
  over: boolean
  end(end: PublishEnd): void
}

/** What is in flight on one channel, by the numbers that the server confirms. */
export interface Flight {
  readonly size: number
  /** Adds the next message. */
  sent(flying: Flying): void
  /** Ends message `tag`, with `multiple` all up to it; `taken`: the server has it. Gives how many. */
  confirm(tag: number, multiple: boolean, taken: boolean): number
  /** Notes that a message came back: the oldest that looks like it. Its confirm follows. */
  returned(message: AMQPMessage): void
  /** In the order in which they were sent. */
  all(): Iterable<Flying>
}

export function createFlight(): Flight {
  const flying = new Map<number, Flying>()
  let next = 1

  function confirmOne(tag: number, taken: boolean): number {
    const one = flying.get(tag)
    if (!one) return 0
    flying.delete(tag)
    if (!one.over) one.end(one.returned ? 'returned' : taken ? 'confirmed' : 'unknown')
    return 1
  }

  return {
    get size() {
      return flying.size
    },
    sent: (one) => void flying.set(next++, one),
    confirm(tag, multiple, taken) {
      if (!multiple) return confirmOne(tag, taken)
      let count = 0
      for (const each of flying.keys()) {
        if (each > tag) break
        count += confirmOne(each, taken)
      }
      return count
    },
    returned(message) {
      for (const one of flying.values()) {
        if (one.returned || !looksLike(one.message, message)) continue
        one.returned = true
        return
      }
    },
    all: () => flying.values(),
  }
}

/** RabbitMQ does not tell the number of what it returns, only what it was. */
function looksLike({ exchange, routingKey, properties }: Message, came: AMQPMessage): boolean {
  return (
    routingKey === came.routingKey &&
    exchange === came.exchange &&
    (properties.messageId || undefined) === came.properties.messageId &&
    (properties.correlationId || undefined) === came.properties.correlationId
  )
}
