import type { Static } from '@sinclair/typebox'
import { BrokerUnavailable } from '../../../broker/broker.ts'
import { realClock, within } from '../../../runtime/clock.ts'
import type { Database } from '../../../store/database/database.ts'
import { queueCounts } from '../../../store/topology/queue-counts.ts'
import type { ListedQueue } from './schema.ts'

/** What the broker counts in a queue: messages that wait, and consumers of anybody. */
interface Counted {
  messages: number
  consumers: number
}

export interface ListedQueuesDeps {
  db: Database['db']
  /** Undefined: the broker has no such queue. Rejects with BrokerUnavailable. Absent while the broker is inside the process. */
  inspectQueue?: ((queue: string) => Promise<Counted | undefined>) | undefined
}

const ASKED_AT_ONCE = 10
/** A broker that does not answer is away. */
const ASK_WITHIN_MS = 2_000

/**
 * Every queue by name, or the one that is asked for, with what waits in it and who takes from it, others' messages and
 * consumers included: the ledger knows of them when they are adopted. While the broker is away only the ledger counts.
 */
export async function listedQueues(deps: ListedQueuesDeps, name?: string): Promise<Static<typeof ListedQueue>[]> {
  const queues = await queueCounts(deps.db, name)
  const atBroker = await countedAtBroker(
    deps,
    queues.map((queue) => queue.name),
  )
  return queues.map(({ name: queueName, waiting, queued, consumers }) => {
    const counted = atBroker.get(queueName)
    return {
      queueName,
      messages: waiting + Math.max(queued, counted?.messages ?? 0),
      consumers: Math.max(consumers, counted?.consumers ?? 0),
    }
  })
}

async function countedAtBroker({ inspectQueue }: ListedQueuesDeps, names: string[]): Promise<Map<string, Counted>> {
  const found = new Map<string, Counted>()
  if (!inspectQueue) return found
  const left = names.values()
  let isAway = false
  const ask = async () => {
    for (const name of left) {
      try {
        const counted = isAway ? undefined : await inspectQueue(name)
        if (counted) found.set(name, counted)
      } catch (error) {
        if (!(error instanceof BrokerUnavailable)) throw error
        isAway = true
      }
    }
  }
  await within(realClock, ASK_WITHIN_MS, Promise.all(Array.from({ length: ASKED_AT_ONCE }, ask)), undefined)
  isAway = true
  return found
}
