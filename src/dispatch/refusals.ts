import type { Clock } from '../runtime/clock.ts'
import type { Service } from '../runtime/service.ts'
import type { Destination } from '../task/topology/topology.ts'

/** Rights may have been given at the broker, which tells nobody. */
const AGAIN_MS = 15_000

/** Where the broker did not let this node's user publish of late: nothing is sent there until it is tried again. */
export interface Refusals extends Service {
  add(destination: Destination): void
  has(destination: Destination): boolean
  all(): Destination[]
}

export interface RefusalsDeps {
  clock: Clock
  /** There is one more, or one less. */
  onChange(): void
  /** It is to be tried again. */
  onOver(destination: Destination): void
}

export function createRefusals({ clock, onChange, onOver }: RefusalsDeps): Refusals {
  const refused = new Map<string, { destination: Destination; cancel: () => void }>()
  return {
    add(destination) {
      const key = keyOf(destination)
      if (refused.has(key)) return
      const cancel = clock.after(AGAIN_MS, () => {
        refused.delete(key)
        onChange()
        onOver(destination)
      })
      refused.set(key, { destination, cancel })
      onChange()
    },
    has: (destination) => refused.has(keyOf(destination)),
    all: () => Array.from(refused.values(), ({ destination }) => destination),
    async start() {},
    async stop() {
      for (const { cancel } of refused.values()) cancel()
      refused.clear()
    },
  }
}

const keyOf = ({ kind, name }: Destination) => `${kind} ${name}`
