import type { Broker } from '../../broker/broker.ts'
import type { Clock } from '../../runtime/clock.ts'
import type { Logger } from '../../runtime/log.ts'
import type { Database } from '../../store/database/database.ts'
import { returnQueued } from '../../store/tasks/at-broker/unqueue.ts'
import { beginEpoch, readEpoch } from '../../store/topology/broker-epoch.ts'
import { mendedQueues, saveConflicts } from '../../store/topology/conflicts.ts'
import { createReconciler, type Reconciler } from '../../topology/reconciler.ts'

export interface ReconcilingDeps {
  pool: Database['pool']
  clock: Clock
  log: Logger
  broker: Broker
  /** Kind and vhost of the broker. */
  brokerName: string
  /** Says that these tasks were changed. */
  touched(ids: string[]): void
  wake(queues: string[]): void
  /** Conflicts were written: this node and the others read the rows again. */
  topologyChanged(): void
}

/** Keeps the broker as the rows say; what it has lost is sent again. */
export function createReconciling(deps: ReconcilingDeps): Reconciler {
  const { pool, clock, log, broker, brokerName, touched, wake } = deps
  async function sendAgain(queues: string[]): Promise<void> {
    for (const queue of queues) wake((await returnQueued(pool, { queue }, touched)).queues)
  }
  const reconciler = createReconciler({
    broker,
    clock,
    log,
    epoch: () => readEpoch(pool, brokerName),
    onMissing: sendAgain,
    async onWiped(seen) {
      const { epoch, ids, queues } = await beginEpoch(pool, brokerName, seen)
      touched(ids)
      wake(queues)
      return epoch
    },
    async saveConflicts(declared, conflicts) {
      await sendAgain(await mendedQueues(pool, declared, conflicts))
      if (await saveConflicts(pool, declared, conflicts)) deps.topologyChanged()
    },
    onReady: wake,
  })
  broker.onLost((queue) => reconciler.recheck(queue.replace(/\.dlq$/, '')))
  return reconciler
}
