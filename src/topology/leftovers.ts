import type { Broker, BrokerTopology, Removal } from '../broker/broker.ts'
import type { Conflict } from '../store/topology/conflicts.ts'

/** What this node has made at the broker and nobody desires any more. */
export interface Leftovers {
  /** These are about to be made. */
  making(topology: BrokerTopology): void
  /**
   * Takes away what is not in `topology`; false when some of it is in use and shall be tried again. What conflicts is
   * somebody else's, and stays. Rejects with BrokerUnavailable.
   */
  takeAway(topology: BrokerTopology, conflicts: Conflict[]): Promise<boolean>
}

/** Our own consumers leave within seconds; what is in use for longer is somebody else's now. */
const TRIES = 3

/** Bindings first: an exchange is unused without them. */
const ORDER = { binding: 0, exchange: 1, queue: 2 } as const

/**
 * Whoever removes a queue, an exchange or a binding takes it from the broker; a node that is just declaring what the rows
 * said before makes it once more, and is the one that knows. Nothing is lost with it: a queue goes only when it is
 * empty and unused, an exchange only when nothing is bound to it.
 */
export function createLeftovers(broker: Pick<Broker, 'remove'>): Leftovers {
  const made = new Map<string, { removal: Removal; tries: number }>()
  return {
    making(topology) {
      for (const [key, removal] of removalsOf(topology)) made.set(key, { removal, tries: 0 })
    },
    async takeAway(topology, conflicts) {
      for (const { kind, name } of conflicts) made.delete(keyOf(kind, name))
      const desired = removalsOf(topology)
      const gone = [...made].filter(([key]) => !desired.has(key))
      gone.sort(([, a], [, b]) => ORDER[a.removal.kind] - ORDER[b.removal.kind])
      let isDone = true
      for (const [key, left] of gone) {
        const removed = await broker.remove(left.removal)
        if (removed === 'in-use' && ++left.tries < TRIES) isDone = false
        else made.delete(key)
      }
      return isDone
    },
  }
}

function keyOf(kind: string, ...parts: string[]): string {
  return JSON.stringify([kind, ...parts])
}

function removalsOf({ queues, exchanges, bindings }: BrokerTopology): Map<string, Removal> {
  return new Map<string, Removal>([
    ...bindings.map(({ exchange, queue, routingKey }): [string, Removal] => [
      keyOf('binding', exchange, queue, routingKey),
      { kind: 'binding', exchange, queue, routingKey },
    ]),
    ...exchanges.map(({ name }): [string, Removal] => [
      keyOf('exchange', name),
      { kind: 'exchange', name, ifUnused: true },
    ]),
    ...queues.map(({ name }): [string, Removal] => [
      keyOf('queue', name),
      { kind: 'queue', name, ifEmpty: true, ifUnused: true },
    ]),
  ])
}
