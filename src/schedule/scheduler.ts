import type { Clock } from '../runtime/clock.ts'
import { messageOf } from '../runtime/errors.ts'
import type { Logger } from '../runtime/log.ts'
import { createPeriodic, type Periodic, pauseUntilDue, serviceOf } from '../runtime/periodic.ts'
import type { Service } from '../runtime/service.ts'
import { type Database, isAboutDatabase } from '../store/database/database.ts'
import { databaseTime, inTransaction } from '../store/database/statement.ts'
import { lockDueSchedule, nextWake, postponeSchedule } from '../store/schedules.ts'
import type { Woken } from '../store/tasks/insert/insert-addressed.ts'
import { type FireDeps, fireDue } from './fire.ts'

export interface SchedulerDeps extends FireDeps {
  pool: Database['pool']
  clock: Clock
  log: Logger
  /** Told after each commit that made tasks. */
  onFired(woken: Woken): void
}

export interface Scheduler extends Service {
  readonly periodic: readonly Periodic[]
  /** Schedules changed: looks at once. */
  wake(): void
}

/** Behind every wake-up stands this poll. */
const POLL_MS = 5_000
/** Schedules that are fired at once: many are due at midnight. */
const LANES = 3
const RETRY_MS = 500
/** After which a schedule that cannot be judged is tried again. */
const POSTPONE_MS = 30_000

/**
 * Fires schedules when they are due by Postgres's clock: the local one only wakes it. Any number of schedulers may run, on
 * as many nodes: the schedule's row lock lets one make each fire (PROTOCOL 24).
 */
export function createScheduler(deps: SchedulerDeps): Scheduler {
  const { pool, clock, log } = deps

  /** False when nothing was due that nobody else had locked. */
  async function fireNext(): Promise<boolean> {
    let name: string | undefined
    try {
      const woken = await inTransaction(pool, async (tx) => {
        const schedule = await lockDueSchedule(tx)
        name = schedule?.name
        return schedule && fireDue(tx, schedule, await databaseTime(tx), deps)
      })
      if (woken && woken.size > 0) deps.onFired(woken)
      return woken !== undefined
    } catch (error) {
      if (name === undefined || isAboutDatabase(error)) throw error
      log.error(
        { event: 'schedule-failed', schedule: name, error: messageOf(error) },
        `The schedule "${name}" cannot fire; tried again in ${POSTPONE_MS / 1_000} s`,
      )
      await postponeSchedule(pool, name, POSTPONE_MS, messageOf(error))
      return true
    }
  }

  async function lane(signal: AbortSignal): Promise<void> {
    while (!signal.aborted && (await fireNext())) {
      // Until nothing is due.
    }
  }

  const periodic = createPeriodic({
    name: 'scheduler',
    description: 'Fires the schedules that are due, and sleeps until the next is',
    everyMs: POLL_MS,
    retryMs: RETRY_MS,
    clock,
    async run(signal) {
      const delayMs = await nextWake(pool)
      if (delayMs !== 0) return pauseUntilDue(delayMs)
      const lanes = await Promise.allSettled(Array.from({ length: LANES }, () => lane(signal)))
      const failed = lanes.find((result) => result.status === 'rejected')
      if (failed) throw failed.reason
      return pauseUntilDue(await nextWake(pool))
    },
    onError: (error) =>
      log.warn({ event: 'scheduler-failed', error: messageOf(error) }, 'Cannot look at the schedules'),
  })

  return { ...serviceOf(periodic), wake: () => periodic.wake() }
}
