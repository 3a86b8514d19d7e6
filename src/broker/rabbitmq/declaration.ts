import type { BrokerQueue, BrokerTopology, Declared } from '../broker.ts'
import { DEAD_LETTER_EXCHANGE, deadLetterQueueOf } from '../dead-letter.ts'
import { NOT_FOUND, PRECONDITION_FAILED, RESOURCE_LOCKED, type Refusal } from './connection/refusal.ts'
import type { Asking } from './connection/short-lived-channel.ts'
import { deadLetterArguments, type QueueArguments, queueArguments } from './queue-arguments.ts'

/** The queue that tells whether the broker is still the one that it was (PROTOCOL 11). */
export const epochQueue = (epoch: string): string => `longshore.epoch.${epoch}`

/** What is there of a queue. */
export type Found = 'there' | 'missing' | { conflict: string }

/** What is there of a topology, before anything is made. */
export interface Inventory {
  queues: Map<string, Found>
  wiped: boolean
}

export async function takeInventory({ ask }: Asking, topology: BrokerTopology): Promise<Inventory> {
  const queues = new Map<string, Found>()
  for (const { name } of topology.queues) queues.set(name, await lookFor(ask, name))
  const wiped = topology.epoch !== undefined && (await lookFor(ask, epochQueue(topology.epoch))) === 'missing'
  return { queues, wiped }
}

async function lookFor(ask: Asking['ask'], name: string): Promise<Found> {
  const looked = await ask((channel) => channel.queueDeclare(name, { passive: true }))
  if ('answer' in looked) return 'there'
  const { refusal } = looked
  // A queue whose node is down is not found either, but not gone.
  if (refusal.code === NOT_FOUND && /no queue/i.test(refusal.text)) return 'missing'
  return { conflict: differenceInWords(refusal) }
}

/** Makes what is missing of a topology, and finds what is there otherwise. */
export async function makeTopology(
  { ask }: Asking,
  topology: BrokerTopology,
  inventory: Inventory,
  serverVersion: string,
): Promise<Declared['conflicts']> {
  const conflicts: Declared['conflicts'] = []
  const note = (kind: 'queue' | 'exchange', name: string, difference: string | undefined) => {
    if (difference !== undefined) conflicts.push({ kind, name, difference })
    return difference === undefined
  }
  const declareExchange = async (name: string, type: string) => {
    const made = await ask((channel) => channel.exchangeDeclare(name, type, { durable: true }))
    return note('exchange', name, 'refusal' in made ? differenceInWords(made.refusal) : undefined)
  }
  const bind = async (queue: string, exchange: string, routingKey: string) => {
    const bound = await ask((channel) => channel.queueBind(queue, exchange, routingKey))
    // Gone since it was looked for: the next reconciliation finds it missing.
    if ('refusal' in bound && bound.refusal.code !== NOT_FOUND) note('queue', queue, bound.refusal.text)
  }
  const declareQueue = async (queue: BrokerQueue): Promise<string | undefined> => {
    const found = inventory.queues.get(queue.name)
    if (typeof found === 'object') return found.conflict
    if (queue.deadLetter) {
      const name = deadLetterQueueOf(queue.name)
      const difference = await makeQueue(ask, name, deadLetterArguments(queue, serverVersion))
      if (difference !== undefined) return `${name}: ${difference}`
      await bind(name, DEAD_LETTER_EXCHANGE, name)
    }
    return makeQueue(ask, queue.name, queueArguments(queue, serverVersion))
  }

  const usable = new Set<string>()
  const hasDeadLetters = topology.queues.some(({ deadLetter }) => deadLetter)
  if (hasDeadLetters) await declareExchange(DEAD_LETTER_EXCHANGE, 'direct')
  for (const { name, type } of topology.exchanges) if (await declareExchange(name, type)) usable.add(name)
  for (const queue of topology.queues) if (note('queue', queue.name, await declareQueue(queue))) usable.add(queue.name)
  for (const { queue, exchange, routingKey } of topology.bindings) {
    if (usable.has(queue) && usable.has(exchange)) await bind(queue, exchange, routingKey)
  }
  const { epoch } = topology
  if (epoch !== undefined) await makeQueue(ask, epochQueue(epoch), [{ 'x-queue-type': 'classic' }])
  return conflicts
}

/** Declares a queue with the first of `variants` that the server takes; gives the difference when it takes none. */
async function makeQueue(ask: Asking['ask'], name: string, variants: QueueArguments[]): Promise<string | undefined> {
  let difference: string | undefined
  for (const args of variants) {
    const made = await ask((channel) => channel.queueDeclare(name, { durable: true }, args))
    if ('answer' in made) return undefined
    // The first one is what it should be: its difference is the one to tell.
    difference ??= differenceInWords(made.refusal)
    if (made.refusal.code !== PRECONDITION_FAILED) return difference
  }
  return difference
}

/** How what the broker has differs, read from what it says. */
export function differenceInWords({ code, text }: Refusal): string {
  if (code === RESOURCE_LOCKED) return 'it belongs to another connection alone (exclusive)'
  const found = /inequivalent arg '([^']+)' for .*: received (.*) but current is (.*)$/s.exec(text)
  if (!found) return text
  const [, name, wanted = '', current = ''] = found
  return `its ${name} is ${valueInWords(current)} and should be ${valueInWords(wanted)}`
}

const valueInWords = (said: string) =>
  said === 'none' ? 'not set' : said.replace(/^the value (.*) of type '\w+'$/s, '$1')
