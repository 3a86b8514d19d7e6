import { afterEach, expect } from 'bun:test'
import type { BrokerTopology } from '../../src/broker/broker.ts'
import type { Conflict } from '../../src/store/topology/conflicts.ts'
import { queuePolicy } from '../../src/task/topology/queue.ts'
import type { QueueOrder, Topology } from '../../src/task/topology/topology.ts'
import { createReconciler, type Reconciler, type ReconcilerDeps } from '../../src/topology/reconciler.ts'
import { CountedClock, silent } from '../support/services.ts'

export const queue = (name: string, given: Partial<QueueOrder> = {}): QueueOrder => {
  return { ...queuePolicy(), name, paused: false, conflict: null, ...given }
}
export const rows = (queues: QueueOrder[], more: Partial<Topology> = {}): Topology => {
  return { queues, exchanges: [], bindings: [], consumers: [], ...more }
}

export interface Control {
  missing: string[][]
  /** Epochs that were begun: after which one. */
  begun: (string | undefined)[]
  conflicts: Conflict[]
  ready: string[][]
  /** The database is away. */
  away: boolean
}

const started: { reconciler: Reconciler; clock: CountedClock }[] = []
afterEach(async () => {
  for (const { reconciler, clock } of started.splice(0)) {
    await reconciler.stop()
    expect(clock.timers).toBe(0)
  }
})

export function reconciling(broker: ReconcilerDeps['broker'], ledger = { epoch: undefined as string | undefined }) {
  const clock = new CountedClock()
  const control: Control = { missing: [], begun: [], conflicts: [], ready: [], away: false }
  const asked = () => {
    if (control.away) throw new Error('the database is away')
  }
  const reconciler = createReconciler({
    broker,
    clock,
    log: silent,
    async epoch() {
      asked()
      return ledger.epoch
    },
    async onMissing(queues) {
      asked()
      control.missing.push(queues)
    },
    async onWiped(seen) {
      asked()
      control.begun.push(seen)
      if (seen === ledger.epoch) ledger.epoch = `after-${seen ?? 'nothing'}`
      return ledger.epoch as string
    },
    async saveConflicts(_, conflicts) {
      asked()
      control.conflicts = conflicts
    },
    onReady: (queues) => control.ready.push(queues.toSorted()),
  })
  started.push({ reconciler, clock })
  return { reconciler, clock, control, ledger }
}

export const names = ({ queues }: BrokerTopology) => queues.map(({ name }) => name)
