import { createRescuer } from '../../dispatch/rescuer.ts'
import { createRetention } from '../../dispatch/retention.ts'
import type { ChangeRecorder } from '../../execution/change-recorder.ts'
import type { Heart } from '../../execution/heart.ts'
import type { Clock } from '../../runtime/clock.ts'
import type { Logger } from '../../runtime/log.ts'
import type { Service } from '../../runtime/service.ts'
import type { Database } from '../../store/database/database.ts'
import { foldEndedNodes, markSilentNodes, orphanedTasks } from '../../store/nodes.ts'
import { returnLostPublishes, takeUnreported } from '../../store/tasks/at-broker/lost-publishes.ts'
import { takeFromSilentOwners } from '../../store/tasks/foreign-report.ts'
import { pruneTasks } from '../../store/tasks/remove.ts'
import type { Ledger } from '../../task/ledger.ts'
import { lineOf } from '../../task/topology/exchange.ts'
import { DEFAULT_RETENTION } from '../../task/topology/queue.ts'
import type { Registry } from '../../topology/registry.ts'

export interface DispatcherRoleDeps {
  pool: Database['pool']
  clock: Clock
  log: Logger
  heart: Heart
  ledger: Ledger
  registry: Registry
  recorder: ChangeRecorder
  wake(queue: string): void
}

/** Fan-outs are in no queue that could say how long; the children go first, by their queues' retention. */
const fanOutRetention = ({ name }: { name: string }) => ({ name: lineOf(name), retention: DEFAULT_RETENTION })

/** What the role `dispatcher` does for all nodes: sends the work of dead ones again, and removes what is old. */
export function dispatcherRole(deps: DispatcherRoleDeps): Service[] {
  const { pool, clock, log, heart, ledger, registry, recorder } = deps
  /** Says that these tasks were changed; gives their queues. */
  const queuesOf = (tasks: { id: string; queue: string }[]) => {
    recorder.touched(tasks.map((task) => task.id))
    return [...new Set(tasks.map(({ queue }) => queue))]
  }
  return [
    createRescuer({
      clock,
      log,
      steadyMs: () => heart.steadyMs(),
      markSilentNodes: (silentMs) => markSilentNodes(pool, heart.node(), silentMs).then(recorder.gapAfter),
      orphanedTasks: (limit) => orphanedTasks(pool, limit),
      settle: (node, settlements) => ledger.settle(node, settlements),
      takeFromSilentOwners: (limit) =>
        takeFromSilentOwners(pool, limit, (queue) => registry.retryOf(queue)).then(recorder.gapAfter),
      returnLostPublishes: (limit) => returnLostPublishes(pool, limit).then(queuesOf),
      takeUnreported: (limit) => takeUnreported(pool, limit).then(queuesOf),
      wake: deps.wake,
    }),
    createRetention({
      clock,
      log,
      queues: () => [...registry.queues(), ...registry.exchanges().map(fanOutRetention)],
      prune: (prune) => pruneTasks(pool, heart.node(), prune),
      foldEndedNodes: () => foldEndedNodes(pool),
    }),
  ]
}
