import type { Service } from '../runtime/service.ts'
import type { Broker, Delivery, DeliveryEnd, DeliveryHandler, Message, PublishEnd } from './broker.ts'
import { deadLettered, deadLetterQueueOf } from './dead-letter.ts'
import type { Held } from './memory-queue.ts'
import { createMemoryTopology, type DeclaredQueue } from './memory-topology.ts'

/** What all queues hold together at most, in bytes of bodies and about that much again. */
const MAX_WEIGHT = 128 * 1024 * 1024
/** What a message weighs beside its body. */
const OWN_WEIGHT = 500

interface Consumer {
  prefetch: number
  out: number
  handler: DeliveryHandler
  /** Messages of ours that it has; tasks are in Postgres. */
  held: Set<Held>
}

/**
 * A broker inside the process. A task that is claimed already goes straight to this node's consumers, never more than their
 * prefetch. Other messages wait in the memory of declared queues, as at any broker, and end with the process; `stop` puts back
 * what is unsettled.
 */
export function createInProcessBroker(): Broker & Service {
  const consumersOf = new Map<string, Set<Consumer>>()
  const topology = createMemoryTopology()
  const { queues } = topology
  const listeners: ((queue: string | undefined) => void)[] = []
  const since = new Date().toISOString()
  const handingOver = new Set<string>()
  let weight = 0
  const tellRoom = (queue: string) => {
    for (const listener of listeners) listener(queue)
  }
  const roomOf = (consumer: Consumer) => Math.max(0, consumer.prefetch - consumer.out)

  function deliver<T>(
    queue: string,
    consumer: Consumer,
    batch: T[],
    deliveryOf: (one: T) => Delivery,
    onEnd: (one: T, how: DeliveryEnd) => void,
  ): void {
    consumer.out += batch.length
    for (const [index, ended] of consumer.handler(batch.map(deliveryOf)).entries()) {
      void ended.then((how) => {
        consumer.out--
        onEnd(batch[index] as T, how)
        scheduleHandOver(queue)
        tellRoom(queue)
      })
    }
  }

  /** Shares `batch` among the consumers that have room; gives how many of it were taken, from the front. */
  function share<T>(
    queue: string,
    batch: T[],
    deliveryOf: (one: T, consumer: Consumer) => Delivery,
    onEnd: (one: T, how: DeliveryEnd, consumer: Consumer) => void,
  ): number {
    let taken = 0
    // The fullest first: what is more than its room falls to those after it, and the odd message to the roomiest.
    const fullestFirst = [...(consumersOf.get(queue) ?? [])].sort((a, b) => roomOf(a) - roomOf(b))
    for (const [index, consumer] of fullestFirst.entries()) {
      const most = Math.floor((batch.length - taken) / (fullestFirst.length - index))
      const part = batch.slice(taken, taken + Math.min(roomOf(consumer), most))
      taken += part.length
      if (part.length === 0) continue
      deliver(
        queue,
        consumer,
        part,
        (one) => deliveryOf(one, consumer),
        (one, how) => onEnd(one, how, consumer),
      )
    }
    return taken
  }

  /** Tasks: returned when no consumer takes them at once. An ack and a requeue alike free a place: they are in Postgres. */
  function publishTasks(messages: Message[], indexes: number[], ends: PublishEnd[]): void {
    for (const [queue, own] of Map.groupBy(indexes, (index) => (messages[index] as Message).routingKey)) {
      const batch = own.map((index) => messages[index] as Message)
      const taken = share(
        queue,
        batch,
        (message): Delivery => ({ ...message, queue, redelivered: false }),
        () => {},
      )
      for (const [at, index] of own.entries()) ends[index] = at < taken ? 'confirmed' : 'returned'
    }
  }

  function publishMessage(message: Message): PublishEnd {
    const targets = topology.targetsOf(message)
    if (targets.length === 0) return 'returned'
    const own = OWN_WEIGHT + message.body.length
    // As a RabbitMQ under an alarm: not taken now, to be sent again.
    if (weight + own * targets.length > MAX_WEIGHT) return 'unknown'
    for (const queue of targets) hold(queue, message, own)
    return 'confirmed'
  }

  function hold(queue: DeclaredQueue, message: Message, own: number): void {
    const { priority = 0 } = message.properties
    put(queue, {
      delivery: { ...message, queue: queue.name, redelivered: false },
      place: queue.nextPlace++,
      priority: queue.maxPriority === null ? 0 : Math.min(priority, queue.maxPriority),
      weight: own,
    })
    scheduleHandOver(queue.name)
  }

  function put(queue: DeclaredQueue, held: Held): void {
    weight += held.weight
    queue.waiting.put(held)
  }

  /** What comes and what ends in one turn makes one batch. */
  function scheduleHandOver(queue: string): void {
    if (handingOver.has(queue)) return
    handingOver.add(queue)
    queueMicrotask(() => {
      handingOver.delete(queue)
      handOver(queue)
    })
  }

  function handOver(name: string): void {
    const waiting = queues.get(name)?.waiting
    if (!waiting || waiting.size === 0) return
    let room = 0
    for (const consumer of consumersOf.get(name) ?? []) room += roomOf(consumer)
    const batch: Held[] = []
    for (let held: Held | undefined; batch.length < room; batch.push(held)) {
      held = waiting.take()
      if (!held) break
    }
    const taken = share(
      name,
      batch,
      (held, consumer) => {
        consumer.held.add(held)
        return held.delivery
      },
      (held, how, consumer) => {
        // Put back already when it is not: the broker was stopped.
        if (consumer.held.delete(held)) endHeld(name, held, how)
      },
    )
    // A handler may have cancelled another one.
    for (const held of batch.slice(taken)) waiting.put(held)
  }

  function endHeld(name: string, held: Held, how: DeliveryEnd): void {
    weight -= held.weight
    if (how === 'ack') return
    const queue = queues.get(name)
    if (!queue) return
    if (how === 'requeue') {
      putBack(queue, held)
    } else if (queue.deadLetter) {
      const graveyard = queues.get(deadLetterQueueOf(name))
      if (graveyard) hold(graveyard, deadLettered(held.delivery), held.weight)
    }
  }

  function release(dropped: Held[]): void {
    for (const held of dropped) weight -= held.weight
  }

  function putBack(queue: DeclaredQueue, held: Held): void {
    put(queue, { ...held, delivery: { ...held.delivery, redelivered: true } })
    scheduleHandOver(queue.name)
  }

  return {
    kind: 'in-process',
    async start() {},
    async stop() {
      for (const [name, consumers] of consumersOf) {
        const queue = queues.get(name)
        for (const { held } of consumers) {
          for (const one of held) {
            weight -= one.weight
            if (queue) putBack(queue, one)
          }
          held.clear()
        }
      }
      consumersOf.clear()
    },
    state: () => ({ status: 'up', since, reason: null, connections: [] }),

    room(queue) {
      let room = 0
      for (const consumer of consumersOf.get(queue) ?? []) room += roomOf(consumer)
      return room
    },

    async publish(messages) {
      const ends: PublishEnd[] = new Array(messages.length).fill('returned')
      const tasks: number[] = []
      for (const [index, message] of messages.entries()) {
        if (message.task) tasks.push(index)
        else ends[index] = publishMessage(message)
      }
      publishTasks(messages, tasks, ends)
      return ends
    },

    consume(queue, prefetch, handler) {
      const consumer: Consumer = { prefetch, out: 0, handler, held: new Set() }
      const consumers = consumersOf.get(queue) ?? new Set()
      consumers.add(consumer)
      consumersOf.set(queue, consumers)
      scheduleHandOver(queue)
      tellRoom(queue)
      return {
        setPrefetch(next) {
          const grown = next > consumer.prefetch
          consumer.prefetch = next
          if (!grown) return
          scheduleHandOver(queue)
          tellRoom(queue)
        },
        cancel() {
          consumers.delete(consumer)
          if (consumers.size === 0 && consumersOf.get(queue) === consumers) consumersOf.delete(queue)
        },
      }
    },

    async declare(wanted, beforeMaking) {
      const lost = topology.lost(wanted)
      await beforeMaking?.(lost)
      topology.make(wanted)
      return { ...lost, conflicts: [] }
    },
    async remove(removal) {
      const { removed, dropped } = topology.remove(removal, (queue) => consumersOf.has(queue))
      release(dropped)
      return removed
    },
    async inspect(queue, options) {
      if (options?.purge) release(queues.get(queue)?.waiting.clear() ?? [])
      const consumers = consumersOf.get(queue)?.size ?? 0
      const waiting = queues.get(queue)?.waiting
      return waiting || consumers > 0 ? { messages: waiting?.size ?? 0, consumers } : undefined
    },

    onChange(listener) {
      listeners.push(listener)
    },
    // What is in this process is lost with it.
    onLost() {},
  }
}
