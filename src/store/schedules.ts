import type { Selectable } from 'kysely'
import type { Pool } from 'pg'
import type { FireOutcome } from '../task/schedule.ts'
import { prepared, type Transaction } from './database/statement.ts'
import type { SchedulesTable } from './database/tables.ts'

/** A schedule with the last thing that became of it. Times are RFC 3339, UTC, milliseconds. */
export interface Schedule {
  name: string
  cron: string
  timezone: string
  /** The submission as it was received: show its target with `withoutSecret` only. */
  task: string
  queue: string
  overlap: SchedulesTable['overlap']
  missed: SchedulesTable['missed']
  jitterMs: number
  paused: boolean
  /** Every fire up to this time is judged. */
  cursor: string
  /** Why it cannot be judged; null when it can. */
  error: string | null
  createdAt: string
  updatedAt: string
}

/** What became of one fire. */
export interface Fire {
  id: number
  /** The time that the cron expression names; of a manual one, when it was asked for. */
  fireAt: string
  /** When it was judged. */
  firedAt: string
  outcome: FireOutcome
  manual: boolean
  taskId: string | null
  detail: string | null
}

/** A fire to be recorded. */
export type NewFire = Omit<Fire, 'id' | 'firedAt'>

/** What a client sets. */
export type ScheduleRule = Pick<
  Selectable<SchedulesTable>,
  'name' | 'cron' | 'timezone' | 'task' | 'queue' | 'overlap' | 'missed' | 'jitter_ms' | 'paused'
>

const COLUMNS = `s.name, s.cron, s.timezone, s.task, s.queue, s.overlap, s.missed, s.jitter_ms as "jitterMs", s.paused,
  s.cursor, s.error, s.created_at as "createdAt", s.updated_at as "updatedAt"`
const FIRE_COLUMNS = `f.id, f.fire_at as "fireAt", f.fired_at as "firedAt", f.outcome, f.manual, f.task_id as "taskId", f.detail`

const LIVE = `('pending', 'queued', 'running', 'retrying')`

/** How many fires of a schedule are remembered. */
const FIRES_KEPT = 200

/** A page's tasks weigh at most this many bytes together; the first schedule always comes. */
const PAGE_BYTES = 8 * 1024 * 1024

/** Schedules by name, those after `after`; `more` when others come after them. */
export async function listSchedules(
  pool: Pool,
  limit: number,
  after?: string,
): Promise<{ schedules: Schedule[]; more: boolean }> {
  const { rows } = await pool.query<Schedule & { found: number }>(
    `with page as (
       select *, sum(octet_length(task::text)) over (order by name collate "C") as bytes, count(*) over () as found
       from (
         select * from schedules where $1::text is null or name collate "C" > $1 order by name collate "C" limit $2 + 1
       ) s
     )
     select ${COLUMNS}, found from page s
     where bytes <= ${PAGE_BYTES} or bytes = octet_length(task::text)
     order by name collate "C"`,
    [after ?? null, limit],
  )
  const schedules = rows.slice(0, limit).map(({ found: _, ...schedule }) => schedule)
  return { schedules, more: schedules.length < (rows[0]?.found ?? 0) }
}

export async function scheduleByName(pool: Pool, name: string): Promise<Schedule | undefined> {
  const { rows } = await pool.query<Schedule>(`select ${COLUMNS} from schedules s where name = $1`, [name])
  return rows[0]
}

/** The last fire of each of these schedules that has one. */
export async function lastFires(pool: Pool, names: string[]): Promise<Map<string, Fire>> {
  const { rows } = await pool.query<Fire & { name: string }>(
    `select n.name, ${FIRE_COLUMNS} from unnest($1::text[]) as n(name)
       cross join lateral (select * from fires f where f.schedule = n.name order by f.id desc limit 1) f`,
    [names],
  )
  return new Map(rows.map(({ name, ...fire }) => [name, fire]))
}

/** Fires of a schedule, the latest first, those older than the one with the id `before`. */
export async function listFires(pool: Pool, name: string, limit: number, before?: number): Promise<Fire[]> {
  const { rows } = await pool.query<Fire>(
    `select ${FIRE_COLUMNS} from fires f where f.schedule = $1 and ($2::bigint is null or f.id < $2)
     order by f.id desc limit $3`,
    [name, before ?? null, limit],
  )
  return rows
}

/** False when there is none of this name. Its tasks stay; the memory of its fires goes. */
export async function deleteSchedule(pool: Pool, name: string): Promise<boolean> {
  const { rowCount } = await pool.query('delete from schedules where name = $1', [name])
  return rowCount === 1
}

/** Locks a schedule that a scheduler must look at now, one that nobody else has locked; undefined when there is none. */
export async function lockDueSchedule(tx: Transaction): Promise<Schedule | undefined> {
  const rows = await prepared<Schedule>(
    tx,
    'lock-due-schedule',
    `select ${COLUMNS} from schedules s where not paused and wake_at <= now()
     order by wake_at limit 1 for update skip locked`,
    [],
  )
  return rows[0]
}

export async function lockSchedule(tx: Transaction, name: string): Promise<Schedule | undefined> {
  const { rows } = await tx.query<Schedule>(`select ${COLUMNS} from schedules s where name = $1 for update`, [name])
  return rows[0]
}

/** True while a task of this schedule is not final. */
export async function hasLiveTask(tx: Transaction, name: string): Promise<boolean> {
  const rows = await prepared<{ live: boolean }>(
    tx,
    'schedule-has-live-task',
    `select exists (
       select from fires f join tasks t on t.id = f.task_id where f.schedule = $1 and t.status in ${LIVE}
     ) as live`,
    [name],
  )
  return rows[0]?.live ?? false
}

/** Where a schedule stands after it was judged; `wakeAt` undefined: never again. In milliseconds since 1970. */
export interface Standing {
  cursor: number
  wakeAt: number | undefined
}

/** Moves a locked schedule on and forgets its oldest fires, but those that `overlap: skip` still waits for. */
export async function advanceSchedule(tx: Transaction, name: string, standing: Standing): Promise<void> {
  await prepared(
    tx,
    'advance-schedule',
    `with forgotten as (
       delete from fires f using schedules s
       where s.name = $1 and f.schedule = $1
         and f.id < (select id from fires where schedule = $1 order by id desc offset ${FIRES_KEPT - 1} limit 1)
         and not (s.overlap = 'skip' and exists (select from tasks t where t.id = f.task_id and t.status in ${LIVE}))
     )
     update schedules set cursor = $2, wake_at = $3, error = null where name = $1`,
    [name, time(standing.cursor), time(standing.wakeAt)],
  )
}

/** Notes why a schedule cannot be judged, and looks at it again after `delayMs`. */
export async function postponeSchedule(pool: Pool, name: string, delayMs: number, error: string): Promise<void> {
  await pool.query(
    `update schedules set wake_at = now() + $2 * interval '1 ms', error = $3 where name = $1 and wake_at <= now()`,
    [name, delayMs, error],
  )
}

export async function recordFires(tx: Transaction, name: string, fires: NewFire[]): Promise<Fire[]> {
  return prepared<Fire>(
    tx,
    'record-fires',
    `insert into fires as f (schedule, fire_at, outcome, manual, task_id, detail)
     select $1, i.* from unnest($2::timestamptz[], $3::text[], $4::boolean[], $5::uuid[], $6::text[]) as i
     returning ${FIRE_COLUMNS}`,
    [
      name,
      fires.map((fire) => fire.fireAt),
      fires.map((fire) => fire.outcome),
      fires.map((fire) => fire.manual),
      fires.map((fire) => fire.taskId),
      fires.map((fire) => fire.detail),
    ],
  )
}

/** Makes the schedule or replaces it whole. */
export async function storeSchedule(
  tx: Transaction,
  rule: ScheduleRule,
  standing: Standing,
): Promise<{ schedule: Schedule; created: boolean }> {
  const { rows } = await tx.query<Schedule & { created: boolean }>(
    `insert into schedules as s (name, cron, timezone, task, queue, overlap, missed, jitter_ms, paused, cursor, wake_at)
     values ($1, $2, $3, $4::text::json, $5, $6, $7, $8, $9, $10, $11)
     on conflict (name) do update set cron = excluded.cron, timezone = excluded.timezone, task = excluded.task,
       queue = excluded.queue, overlap = excluded.overlap, missed = excluded.missed, jitter_ms = excluded.jitter_ms,
       paused = excluded.paused, cursor = excluded.cursor, wake_at = excluded.wake_at, error = null, updated_at = now()
     returning ${COLUMNS}, xmax = 0 as created`,
    [
      ...[rule.name, rule.cron, rule.timezone, rule.task, rule.queue, rule.overlap, rule.missed, rule.jitter_ms],
      ...[rule.paused, time(standing.cursor), time(standing.wakeAt)],
    ],
  )
  const { created, ...schedule } = rows[0] as Schedule & { created: boolean }
  return { schedule, created }
}

/** Pauses or resumes a locked schedule. */
export async function storePaused(tx: Transaction, name: string, paused: boolean, standing: Standing): Promise<void> {
  await tx.query(`update schedules set paused = $2, cursor = $3, wake_at = $4, updated_at = now() where name = $1`, [
    name,
    paused,
    time(standing.cursor),
    time(standing.wakeAt),
  ])
}

/** Milliseconds until the next schedule must be looked at, 0 when one is overdue; undefined when none fires. */
export async function nextWake(pool: Pool): Promise<number | undefined> {
  const rows = await prepared<{ delayMs: number | null }>(
    pool,
    'next-wake',
    `select (greatest(0, extract(epoch from wake_at - now())) * 1000)::float8 as "delayMs" from schedules
     where not paused and wake_at < 'infinity' order by wake_at limit 1`,
    [],
  )
  return rows[0]?.delayMs ?? undefined
}

function time(ms: number | undefined): string {
  return ms === undefined ? 'infinity' : new Date(ms).toISOString()
}
