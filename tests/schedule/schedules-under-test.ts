import { v7 as uuidv7 } from 'uuid'
import { checked } from '../../src/api/validation.ts'
import { type Clock, realClock } from '../../src/runtime/clock.ts'
import type { FireDeps } from '../../src/schedule/fire.ts'
import { createScheduler, type Scheduler } from '../../src/schedule/scheduler.ts'
import { createSchedules, type Schedules, type Wanted } from '../../src/schedule/schedules.ts'
import { storedTaskReader } from '../../src/schedule/stored-task.ts'
import { type Database, openDatabase } from '../../src/store/database/database.ts'
import { putQueue } from '../../src/store/topology/queues.ts'
import { addressingFor } from '../../src/submit/addressing.ts'
import { DEFAULT_RETRY_POLICY } from '../../src/task/retry-policy.ts'
import { DEFAULT_RETENTION } from '../../src/task/topology/queue.ts'
import { type Engine, testDatabase } from '../support/database.ts'
import { until } from '../support/until.ts'

export interface Logged {
  event: string
  [field: string]: unknown
}

export interface SchedulesUnderTest {
  pool: Database['pool']
  schedules: Schedules
  /** Queues whose new tasks were told, in order. */
  woken: string[]
  logged: Logged[]
  /** A scheduler on connections of its own, as another process has; it is not started. */
  scheduler(options?: { clock?: Clock }): { scheduler: Scheduler; database: Database }
  put(name: string, wanted?: Partial<Wanted>): Promise<void>
  /** Pretends that nobody has looked at the schedule for `interval`. */
  unseenFor(name: string, interval: string): Promise<void>
  /** Looks until nothing is due any more. */
  fireAll(): Promise<void>
  /** What became of the fires of a schedule, in order. */
  fires(name: string): Promise<{ fire_at: string; outcome: string; task_id: string | null; detail: string | null }[]>
  tasks(): Promise<{ id: string; queue: string; payload: string; status: string; origin: string; due_in: number }[]>
  finish(id: string): Promise<void>
  close(): Promise<void>
}

export const TASK = '{"queue":"q","payload":{"b":1.0,"a":12345678901234567890}}'
export const WANTED: Wanted = {
  cron: '* * * * * *',
  timezone: 'UTC',
  task: TASK,
  queue: 'q',
  overlap: 'allow',
  missed: 'last',
  jitter_ms: 0,
}

/** Schedules on a database of their own with a queue `q`. */
export async function schedulesUnderTest(engine: Engine): Promise<SchedulesUnderTest> {
  const test = await testDatabase(engine)
  const { pool, db } = test.database
  const policy = { type: 'quorum', retry: DEFAULT_RETRY_POLICY, retention: DEFAULT_RETENTION } as const
  await putQueue(db, 'q', policy)
  const woken: string[] = []
  const logged: Logged[] = []
  const tell = (fields: Logged) => void logged.push(fields)
  const log = { fatal: tell, error: tell, warn: tell, info: tell, debug: tell, trace: tell }
  const node = uuidv7()
  const deps: FireDeps = { node: () => node, read: storedTaskReader(checked), addressing: addressingFor('in-process') }
  const onFired = (queues: Map<string, number>) => woken.push(...queues.keys())
  const opened: Database[] = []
  const started: Scheduler[] = []
  const schedules = createSchedules({ ...deps, pool, log, onFired, onChanged() {} })

  function scheduler({ clock = realClock } = {}) {
    const database = openDatabase({ connection: test.connection, poolSize: 5, log, applicationName: 'scheduler' })
    opened.push(database)
    const made = createScheduler({ ...deps, pool: database.pool, clock, log, onFired })
    started.push(made)
    return { scheduler: made, database }
  }

  return {
    pool,
    schedules,
    woken,
    logged,
    scheduler,
    async put(name, wanted = {}) {
      await schedules.put(name, { ...WANTED, ...wanted })
    },
    async unseenFor(name, interval) {
      await pool.query(
        `update schedules set cursor = date_trunc('second', now()) - $2::interval, wake_at = now() - $2::interval
         where name = $1`,
        [name, interval],
      )
    },
    async fireAll() {
      const { scheduler: one, database } = scheduler()
      await one.start()
      const [periodic] = one.periodic
      await until(() => (periodic?.state().runs ?? 0) > 0, { what: 'the first look' })
      await one.stop()
      await database.close()
    },
    async fires(name) {
      const { rows } = await pool.query(
        `select fire_at, outcome, task_id, detail from fires where schedule = $1 order by fire_at, id`,
        [name],
      )
      return rows
    },
    async tasks() {
      const { rows } = await pool.query(
        `select id, queue, payload, status, origin, extract(epoch from due_at - created_at)::float8 as due_in
         from tasks order by id`,
      )
      return rows
    },
    async finish(id) {
      await pool.query(`update tasks set status = 'succeeded', finished_at = now() where id = $1`, [id])
    },
    async close() {
      for (const one of started) await one.stop()
      for (const database of opened) await database.close()
      await test.drop()
    },
  }
}
