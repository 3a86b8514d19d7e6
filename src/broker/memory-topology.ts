import type { BindingOrder, ExchangeType } from '../task/topology/topology.ts'
import type { BrokerQueue, BrokerTopology, Lost, Message, Removal, Removed } from './broker.ts'
import { deadLetterQueueOf } from './dead-letter.ts'
import { createMemoryQueue, type Held, type MemoryQueue } from './memory-queue.ts'
import { route } from './routing.ts'

/** A queue that was declared, with what waits in it. */
export interface DeclaredQueue extends BrokerQueue {
  waiting: MemoryQueue
  nextPlace: number
}

/** Queues, exchanges and bindings of a broker inside the process: none at its start. */
export interface MemoryTopology {
  readonly queues: ReadonlyMap<string, DeclaredQueue>
  /** What of `wanted` is not there. */
  lost(wanted: BrokerTopology): Lost
  /** Makes what is missing; what is there follows, since nothing but this process knows it. */
  make(wanted: BrokerTopology): void
  /** As `Broker.remove`; `dropped` are the messages that went with it. */
  remove(removal: Removal, isConsumed: (queue: string) => boolean): { removed: Removed; dropped: Held[] }
  /** The declared queues that a message goes to. */
  targetsOf(message: Message): DeclaredQueue[]
}

interface Exchange {
  type: ExchangeType
  bindings: BindingOrder[]
}

export function createMemoryTopology(): MemoryTopology {
  const queues = new Map<string, DeclaredQueue>()
  const exchanges = new Map<string, Exchange>()
  const epochs = new Set<string>()

  function makeQueue(queue: BrokerQueue): void {
    const known = queues.get(queue.name)
    if (known) Object.assign(known, queue)
    else queues.set(queue.name, { ...queue, waiting: createMemoryQueue(), nextPlace: 0 })
    if (queue.deadLetter) {
      makeQueue({ ...queue, name: deadLetterQueueOf(queue.name), maxPriority: null, deadLetter: false })
    }
  }

  function bind({ exchange, queue, routingKey }: BrokerTopology['bindings'][number]): void {
    const bindings = exchanges.get(exchange)?.bindings
    const isThere = bindings?.some((other) => other.queue === queue && other.routingKey === routingKey)
    if (bindings && !isThere && queues.has(queue)) bindings.push({ exchange, queue, routingKey })
  }

  function unbind(from: Exchange, isIt: (binding: BindingOrder) => boolean): void {
    from.bindings = from.bindings.filter((one) => !isIt(one))
  }

  function dropQueue(name: string): Held[] {
    const dropped = queues.get(name)?.waiting.clear() ?? []
    queues.delete(name)
    for (const exchange of exchanges.values()) unbind(exchange, ({ queue }) => queue === name)
    return dropped
  }

  return {
    queues,
    lost: ({ queues: wanted, epoch }) => ({
      missing: wanted.flatMap(({ name }) => (queues.has(name) ? [] : name)),
      wiped: epoch !== undefined && !epochs.has(epoch),
    }),
    make(wanted) {
      for (const queue of wanted.queues) makeQueue(queue)
      for (const { name, type } of wanted.exchanges) {
        exchanges.set(name, { type, bindings: exchanges.get(name)?.bindings ?? [] })
      }
      for (const binding of wanted.bindings) bind(binding)
      if (wanted.epoch !== undefined) epochs.add(wanted.epoch)
    },
    remove(removal, isConsumed) {
      switch (removal.kind) {
        case 'queue': {
          const { name, ifEmpty, ifUnused } = removal
          const names = [name, deadLetterQueueOf(name)]
          const hasMessages = names.some((each) => (queues.get(each)?.waiting.size ?? 0) > 0)
          if (ifEmpty && hasMessages) return { removed: 'not-empty', dropped: [] }
          if (ifUnused && queues.has(name) && isConsumed(name)) return { removed: 'in-use', dropped: [] }
          return { removed: 'removed', dropped: names.flatMap(dropQueue) }
        }
        case 'exchange': {
          const { name, ifUnused } = removal
          if (ifUnused && (exchanges.get(name)?.bindings.length ?? 0) > 0) return { removed: 'in-use', dropped: [] }
          exchanges.delete(name)
          return { removed: 'removed', dropped: [] }
        }
        case 'binding': {
          const { exchange, queue, routingKey } = removal
          const from = exchanges.get(exchange)
          if (from) unbind(from, (one) => one.queue === queue && one.routingKey === routingKey)
          return { removed: 'removed', dropped: [] }
        }
        default:
          return removal satisfies never
      }
    },
    targetsOf({ exchange, routingKey }) {
      const { type, bindings } = exchanges.get(exchange) ?? { type: 'direct' as const, bindings: [] }
      const names = exchange === '' ? [routingKey] : route({ name: exchange, type }, routingKey, bindings)
      return names.flatMap((name) => queues.get(name) ?? [])
    },
  }
}
