import type { Clock } from '../runtime/clock.ts'
import { messageOf } from '../runtime/errors.ts'
import type { Logger } from '../runtime/log.ts'
import { createPeriodic, serviceOf } from '../runtime/periodic.ts'
import type { Service } from '../runtime/service.ts'
import type { Database } from '../store/database/database.ts'
import { concludeFiles, neededSpools } from '../store/files/after.ts'
import { pruneFiles, pruneRejects } from '../store/files/retention.ts'
import type { Spool } from './spool.ts'

export interface KeeperDeps {
  pool: Database['pool']
  clock: Clock
  log: Logger
  spool: Spool
  /** The present id of this node. */
  node(): string
  /** Remote files are to be moved or deleted now. */
  onAfter(): void
}

const CONCLUDE_MS = 1_000
const A_BATCH = 1_000
const PRUNE_MS = 3_600_000
const SWEEP_MS = 60_000
/** What lies in the spool and the ledger does not know may be on its way there; afterwards nobody comes for it. */
const YOUNG_MS = 15 * 60_000

/** Draws the line under files whose tasks are final; any number may run. */
export function createFileKeeper({ pool, clock, log, onAfter }: Omit<KeeperDeps, 'spool' | 'node'>): Service {
  const conclude = createPeriodic({
    name: 'files',
    description: 'Draws the line under files whose records are done',
    everyMs: CONCLUDE_MS,
    clock,
    async run() {
      const { concluded, sources } = await concludeFiles(pool, A_BATCH)
      if (sources.length > 0) onAfter()
      return concluded === A_BATCH ? 0 : undefined
    },
    onError: (error) => log.warn({ event: 'files-failed', error: messageOf(error) }, 'Cannot conclude files'),
  })
  return serviceOf(conclude)
}

/** Deletes what is kept of files beyond its time; any number may run. */
export function createFileRetention({ pool, clock, log }: Pick<KeeperDeps, 'pool' | 'clock' | 'log'>): Service {
  const prune = createPeriodic({
    name: 'files-retention',
    description: 'Deletes rejects, and files that are gone from their servers, when they were kept long enough',
    everyMs: PRUNE_MS,
    clock,
    async run() {
      const pruned = [await pruneRejects(pool, A_BATCH), await pruneFiles(pool, A_BATCH)]
      return pruned.includes(A_BATCH) ? 0 : undefined
    },
    onError: (error) => log.warn({ event: 'files-failed', error: messageOf(error) }, 'Cannot prune files'),
  })
  return serviceOf(prune)
}

/** Removes from this node's spool what no import needs any more. */
export function createSpoolKeeper({ pool, clock, log, spool, node }: Omit<KeeperDeps, 'onAfter'>): Service {
  const sweep = createPeriodic({
    name: 'spool',
    description: 'Removes fetched files that no import needs any more',
    everyMs: SWEEP_MS,
    clock,
    async run() {
      await spool.sweep((names) => neededSpools(pool, node(), names), YOUNG_MS)
    },
    onError: (error) => log.warn({ event: 'files-failed', error: messageOf(error) }, 'Cannot clear the spool'),
  })
  return serviceOf(sweep)
}
