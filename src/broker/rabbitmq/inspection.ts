import { pause, realClock } from '../../runtime/clock.ts'
import { BrokerUnavailable, type Counted, type Removal, type Removed } from '../broker.ts'
import { deadLetterQueueOf } from '../dead-letter.ts'
import { NOT_FOUND, PRECONDITION_FAILED, type Refusal } from './connection/refusal.ts'
import type { Asking } from './connection/short-lived-channel.ts'

/** What the broker counts in a queue; undefined: no such queue. */
export async function countIn({ ask }: Asking, queue: string): Promise<Counted | undefined> {
  const counted = await ask((channel) => channel.queueDeclare(queue, { passive: true }))
  if ('answer' in counted) return { messages: counted.answer.messageCount, consumers: counted.answer.consumerCount }
  if (counted.refusal.code === NOT_FOUND) return undefined
  throw unexpected(counted.refusal)
}

/**
 * RabbitMQ says that a quorum queue is empty and unused when its leader does not answer within 250 ms
 * (`stat` in https://github.com/rabbitmq/rabbitmq-server/blob/v3.10.8/deps/rabbit/src/rabbit_quorum_queue.erl).
 */
const LOOK_AGAIN_MS = 300

/** The larger of two counts of each queue: one 0 alone is no proof. */
export async function countSurely(asking: Asking, queues: string[]): Promise<(Counted | undefined)[]> {
  const count = async () => {
    const counted = []
    for (const queue of queues) counted.push(await countIn(asking, queue))
    return counted
  }
  const first = await count()
  await pause(realClock, LOOK_AGAIN_MS)
  return (await count()).map((again, n) => again && larger(again, first[n] ?? again))
}

const larger = (one: Counted, other: Counted): Counted => ({
  messages: Math.max(one.messages, other.messages),
  consumers: Math.max(one.consumers, other.consumers),
})

/** Throws away what waits in a queue. */
export async function purge({ ask }: Asking, queue: string): Promise<void> {
  const purged = await ask((channel) => channel.queuePurge(queue))
  if ('refusal' in purged && purged.refusal.code !== NOT_FOUND) throw unexpected(purged.refusal)
}

export async function exchangeExists({ ask }: Asking, name: string): Promise<boolean> {
  const looked = await ask((channel) => channel.exchangeDeclare(name, '', { passive: true }))
  return 'answer' in looked || looked.refusal.code !== NOT_FOUND
}

/** As `Broker.remove`. */
export async function remove(asking: Asking, removal: Removal): Promise<Removed> {
  const { ask } = asking
  switch (removal.kind) {
    case 'queue':
      return removeQueue(asking, removal)
    case 'exchange': {
      const { name, ifUnused } = removal
      const removed = await ask((channel) => channel.exchangeDelete(name, { ifUnused }))
      return removedUnless('refusal' in removed ? removed.refusal : undefined, 'in-use')
    }
    case 'binding': {
      const { exchange, queue, routingKey } = removal
      const removed = await ask((channel) => channel.queueUnbind(queue, exchange, routingKey))
      return removedUnless('refusal' in removed ? removed.refusal : undefined)
    }
    default:
      return removal satisfies never
  }
}

/** Counted first, because quorum queues refuse the conditions that a deletion can have, and close the connection for it. */
async function removeQueue(asking: Asking, removal: Removal & { kind: 'queue' }): Promise<Removed> {
  const { name, ifEmpty, ifUnused } = removal
  const names = [name, deadLetterQueueOf(name)]
  if (ifEmpty || ifUnused) {
    const [own, dead] = await countSurely(asking, names)
    if (ifEmpty && [own, dead].some((counted) => counted && counted.messages > 0)) return 'not-empty'
    if (ifUnused && own && own.consumers > 0) return 'in-use'
  }
  for (const each of names) {
    const removed = await asking.ask((channel) => channel.queueDelete(each))
    if ('refusal' in removed && removed.refusal.code !== NOT_FOUND) throw unexpected(removed.refusal)
  }
  return 'removed'
}

function removedUnless(refusal: Refusal | undefined, condition?: Removed): Removed {
  if (!refusal || refusal.code === NOT_FOUND) return 'removed'
  if (condition && refusal.code === PRECONDITION_FAILED && /in use/i.test(refusal.text)) return condition
  throw unexpected(refusal)
}

const unexpected = ({ text }: Refusal) => new BrokerUnavailable(`the broker refuses: ${text}`)
