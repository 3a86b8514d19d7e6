import type { Clock } from '../runtime/clock.ts'
import { parseDuration } from '../runtime/duration.ts'
import { messageOf } from '../runtime/errors.ts'
import type { Logger } from '../runtime/log.ts'
import { createPeriodic, serviceOf } from '../runtime/periodic.ts'
import type { Service } from '../runtime/service.ts'
import { FINAL_STATUSES, type FinalStatus } from '../task/status.ts'
import type { Retention } from '../task/topology/queue.ts'

export interface RetentionDeps {
  clock: Clock
  log: Logger
  queues(): { name: string; retention: Retention }[]
  prune(prune: { queue: string; status: FinalStatus; keepMs: number; limit: number }): Promise<number>
  foldEndedNodes(): Promise<void>
}

const EVERY_MS = 60_000
const BATCH = 1_000
/** A hundred years stand for all that is longer: Postgres cannot count back much further. */
const MAX_KEEP_MS = 36_525 * 86_400_000

/** Deletes final tasks that have been kept for as long as their queue says, in bounded batches. */
export function createRetention({ clock, log, queues, prune, foldEndedNodes }: RetentionDeps): Service {
  async function pruneAll(signal: AbortSignal): Promise<void> {
    for (const { name, retention } of queues()) {
      for (const status of FINAL_STATUSES) {
        const keepMs = parseDuration(retention[status])
        if (keepMs === undefined) continue
        let pruned = BATCH
        while (pruned === BATCH && !signal.aborted)
          pruned = await prune({ queue: name, status, keepMs: Math.min(keepMs, MAX_KEEP_MS), limit: BATCH })
      }
    }
    await foldEndedNodes()
  }

  const periodic = createPeriodic({
    name: 'retention',
    description:
      'Deletes final tasks that were kept for as long as their queues say, and folds the counters of ended nodes',
    everyMs: EVERY_MS,
    clock,
    run: pruneAll,
    onError: (error) => log.warn({ event: 'retention-failed', error: messageOf(error) }),
  })
  return serviceOf(periodic)
}
