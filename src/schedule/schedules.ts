import { messageOf } from '../runtime/errors.ts'
import type { Logger } from '../runtime/log.ts'
import type { Database } from '../store/database/database.ts'
import { databaseTime, inTransaction, type Transaction } from '../store/database/statement.ts'
import {
  deleteSchedule,
  type Fire,
  lockSchedule,
  recordFires,
  type Schedule,
  type ScheduleRule,
  storePaused,
  storeSchedule,
} from '../store/schedules.ts'
import { readExchanges } from '../store/tasks/insert/exchange-rows.ts'
import type { Woken } from '../store/tasks/insert/insert-addressed.ts'
import { queueExists } from '../store/topology/queues.ts'
import { exchangeOfLine } from '../task/topology/exchange.ts'
import { type FireDeps, fireDue, fireNow, goesNowhere, ruleOf, standingAt } from './fire.ts'

/** A schedule as a client wants it; `paused` left out: as it is. */
export type Wanted = Omit<ScheduleRule, 'paused' | 'name'> & { paused?: boolean | undefined }

/** Changes of schedules. Each is one transaction that holds the schedule's row, so no fire comes between. */
export interface Schedules {
  /**
   * Makes or replaces a schedule. What is due of the old one is fired first, by its old rule; a new cron expression or zone
   * counts from now on, with the same ones the fires go on without a gap. Rejects with `unknown-queue` or
   * `unknown-exchange`.
   */
  put(name: string, wanted: Wanted): Promise<{ schedule: Schedule; created: boolean }>
  /** Undefined when there is no such schedule. A resumed one does not make up for the fires of its pause. */
  setPaused(name: string, paused: boolean): Promise<Schedule | undefined>
  /** Makes a task now, also of a paused schedule and whatever `overlap` says. Undefined when there is no such schedule. */
  runNow(name: string): Promise<Fire | undefined>
  /** False when there is no such schedule. */
  remove(name: string): Promise<boolean>
}

export interface SchedulesDeps extends FireDeps {
  pool: Database['pool']
  log: Logger
  onFired(woken: Woken): void
  /** Told after each change. */
  onChanged(): void
}

export function createSchedules(deps: SchedulesDeps): Schedules {
  const { pool, log } = deps

  /** Nothing of the old rule is lost by a change; one that cannot be judged must not prevent its own repair. */
  async function fireOld(tx: Transaction, old: Schedule, now: number): Promise<Woken> {
    await tx.query('savepoint old_rule')
    try {
      const woken = await fireDue(tx, old, now, deps)
      await tx.query('release savepoint old_rule')
      return woken
    } catch (error) {
      await tx.query('rollback to savepoint old_rule')
      log.warn({ event: 'schedule-failed', schedule: old.name, error: messageOf(error) })
      return new Map()
    }
  }

  return {
    async put(name, { paused: wantedPaused, ...wanted }) {
      const { woken, ...put } = await inTransaction(pool, async (tx) => {
        await checkAddress(tx, wanted.queue)
        const old = await lockSchedule(tx, name)
        const now = await databaseTime(tx)
        const woken = old && !old.paused ? await fireOld(tx, old, now) : new Map()
        const judged = old && (await lockSchedule(tx, name))
        const paused = wantedPaused ?? old?.paused ?? false
        const goesOn = judged && !judged.paused && judged.cron === wanted.cron && judged.timezone === wanted.timezone
        const rule = ruleOf({ ...wanted, name, jitterMs: wanted.jitter_ms })
        const standing = standingAt(rule, goesOn ? Date.parse(judged.cursor) : now)
        return { woken, ...(await storeSchedule(tx, { ...wanted, name, paused }, standing)) }
      })
      if (woken.size > 0) deps.onFired(woken)
      deps.onChanged()
      return put
    },
    async setPaused(name, paused) {
      const schedule = await inTransaction(pool, async (tx) => {
        const old = await lockSchedule(tx, name)
        if (!old || old.paused === paused) return old
        const now = await databaseTime(tx)
        // A rule that cannot be read must not keep its schedule from being paused.
        await storePaused(tx, name, paused, paused ? { cursor: now, wakeAt: undefined } : standingAt(ruleOf(old), now))
        return lockSchedule(tx, name)
      })
      if (schedule) deps.onChanged()
      return schedule
    },
    async runNow(name) {
      const ran = await inTransaction(pool, async (tx) => {
        const schedule = await lockSchedule(tx, name)
        if (!schedule) return undefined
        const { fire, woken } = await fireNow(tx, schedule, await databaseTime(tx), deps)
        const [recorded] = await recordFires(tx, name, [fire])
        return { fire: recorded as Fire, woken }
      })
      if (ran) deps.onFired(ran.woken)
      return ran?.fire
    },
    async remove(name) {
      const removed = await deleteSchedule(pool, name)
      if (removed) deps.onChanged()
      return removed
    },
  }
}

/** What a schedule's task is addressed to must be there; whether anything is bound for its routing key, its fires find. */
async function checkAddress(tx: Transaction, queue: string): Promise<void> {
  const exchange = exchangeOfLine(queue)
  if (exchange === undefined) {
    if (await queueExists(tx, queue)) return
    const detail = `There is no queue "${queue}": create it with PUT /api/v1/queues/<name>`
    throw goesNowhere({ code: 'unknown-queue', field: 'queue', detail })
  }
  if ((await readExchanges(tx, [exchange], [])).has(exchange)) return
  const detail = `There is no exchange "${exchange}": create it with PUT /api/v1/exchanges/<name>`
  throw goesNowhere({ code: 'unknown-exchange', field: 'exchange', detail })
}
