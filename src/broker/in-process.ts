import type { Broker, DeliveryHandler, Message } from './broker.ts'

interface Consumer {
  prefetch: number
  out: number
  handler: DeliveryHandler
}

/** A broker inside the process: messages go straight to this node's consumers, never more than their prefetch. */
export function createInProcessBroker(): Broker {
  const queues = new Map<string, Set<Consumer>>()
  const listeners: ((queue: string) => void)[] = []
  const tellRoom = (queue: string) => {
    for (const listener of listeners) listener(queue)
  }
  const roomOf = (consumer: Consumer) => Math.max(0, consumer.prefetch - consumer.out)

  function deliver(queue: string, consumer: Consumer, batch: Message[]): void {
    consumer.out += batch.length
    for (const ended of consumer.handler(batch)) {
      // An `ack` and a `requeue` alike free a place: a task that goes back is pending in Postgres, not here.
      void ended.finally(() => {
        consumer.out--
        tellRoom(queue)
      })
    }
  }

  return {
    kind: 'in-process',

    room(queue) {
      let room = 0
      for (const consumer of queues.get(queue) ?? []) room += roomOf(consumer)
      return room
    },

    async publish(messages) {
      const refused: Message[] = []
      for (const [queue, batch] of Map.groupBy(messages, (message) => message.queue)) {
        let rest = batch
        // The fullest first: what is more than its room falls to those after it, and the odd message to the roomiest.
        const fullestFirst = [...(queues.get(queue) ?? [])].sort((a, b) => roomOf(a) - roomOf(b))
        for (const [index, consumer] of fullestFirst.entries()) {
          const share = Math.min(roomOf(consumer), Math.floor(rest.length / (fullestFirst.length - index)))
          if (share > 0) deliver(queue, consumer, rest.slice(0, share))
          rest = rest.slice(share)
        }
        refused.push(...rest)
      }
      return refused
    },

    consume(queue, prefetch, handler) {
      const consumer: Consumer = { prefetch, out: 0, handler }
      const consumers = queues.get(queue) ?? new Set()
      consumers.add(consumer)
      queues.set(queue, consumers)
      tellRoom(queue)
      return {
        setPrefetch(next) {
          const grown = next > consumer.prefetch
          consumer.prefetch = next
          if (grown) tellRoom(queue)
        },
        cancel() {
          consumers.delete(consumer)
          if (consumers.size === 0) queues.delete(queue)
        },
      }
    },

    onRoom(listener) {
      listeners.push(listener)
    },
  }
}
