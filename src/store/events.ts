import type { Pool } from 'pg'
import type { Origin, Status } from '../task/status.ts'
import { inTransaction, prepared } from './database/statement.ts'

/** A task as an event tells it: what it was when the event was written. */
export interface TaskChange {
  id: string
  queue: string
  type: string | null
  status: Status
  attempt: number
  parentId: string | null
  origin: Origin
}

/** What was written at once; ids rise in the order of commits, so that nothing comes in behind a reader. */
export interface EventBatch {
  id: number
  /** Null: what happened before this may not have been written. */
  changes: TaskChange[] | null
}

/** How much is kept for clients that come back. */
export const EVENTS_KEPT = { tasks: 50_000, minutes: 10 }

/** Writers go one after another, from the look at the tasks to the commit: a later event is never older news. */
const WRITERS_LOCK = 7_431_002
const LEASE = 'events'

/** Asks all nodes to write events for `forMs` from now on. */
export async function wantEvents(pool: Pool, forMs: number): Promise<void> {
  await pool.query(
    `insert into settings (name, value)
     values ($1, jsonb_build_object('until', extract(epoch from now()) + $2::float8 / 1000))
     on conflict (name) do update set value = excluded.value`,
    [LEASE, forMs],
  )
}

/** For how many milliseconds more events are wanted; 0 when nobody listens. */
export async function eventsWantedMs(pool: Pool): Promise<number> {
  const { rows } = await pool.query<{ ms: number }>(
    `select greatest(0, ((value ->> 'until')::float8 - extract(epoch from now())) * 1000)::float8 as ms
     from settings where name = $1`,
    [LEASE],
  )
  return rows[0]?.ms ?? 0
}

/**
 * Writes one event batch with these tasks as they are now, and their parents (what is gone is left out), after a gap
 * when `gap`. Of several changes between two batches the last one is told.
 */
export async function appendEvents(pool: Pool, ids: string[], gap: boolean): Promise<void> {
  await inTransaction(pool, async (tx) => {
    await tx.query('select pg_advisory_xact_lock($1)', [WRITERS_LOCK])
    if (gap) await tx.query('insert into events (tasks) values (0)')
    // A statement of its own: its snapshot is younger than the lock.
    if (ids.length > 0) await prepared(tx, 'append-events', APPEND, [ids])
  })
}

const APPEND = `
  with recursive touched as (
    select t.id, t.queue, t.type, t.status, t.attempt, t.parent_id as "parentId", t.origin
    from tasks t where t.id = any($1::uuid[])
    union
    select p.id, p.queue, p.type, p.status, p.attempt, p.parent_id, p.origin
    from touched c join tasks p on p.id = c."parentId"
  )
  insert into events (tasks, changes)
  select count(*), json_agg(touched order by id) from touched having count(*) > 0`

/** Event batches after `id`, the oldest first. */
export function readEvents(pool: Pool, id: number, limit: number): Promise<EventBatch[]> {
  return prepared<{ id: number; changes: string | null }>(
    pool,
    'read-events',
    'select id, changes from events where id > $1 order by id limit $2',
    [id, limit],
  ).then((rows) =>
    rows.map((row) => ({
      id: row.id,
      changes: row.changes === null ? null : (JSON.parse(row.changes) as TaskChange[]),
    })),
  )
}

/** The id of the last event batch; 0 when there is none. */
export async function lastEvent(pool: Pool): Promise<number> {
  const { rows } = await pool.query<{ id: number }>('select coalesce(max(id), 0)::bigint as id from events')
  return rows[0]?.id ?? 0
}

/**
 * What a client that has seen `id` missed until now; undefined when that is not known (any more), or is more than
 * `maxTasks` changes.
 */
export async function missedEvents(pool: Pool, id: number, maxTasks: number): Promise<EventBatch[] | undefined> {
  const { rows } = await pool.query<{ known: boolean }>(
    `select exists (select from events where id = $1)
       and coalesce(bool_and(changes is not null), true) and coalesce(sum(tasks), 0) <= $2 as known
     from events where id > $1`,
    [id, maxTasks],
  )
  if (!rows[0]?.known) return undefined
  const missed = await readEvents(pool, id, maxTasks)
  // Both may have come between the two statements.
  return missed.some((batch) => batch.changes === null) ? undefined : missed
}

/** Forgets what is older or more than is kept. */
export async function pruneEvents(pool: Pool, kept: typeof EVENTS_KEPT = EVENTS_KEPT): Promise<void> {
  await pool.query(
    `delete from events
     where at < now() - $2 * interval '1 minute' or id <= (
       select max(id) from (select id, sum(tasks) over (order by id desc) as upto from events) e where upto > $1
     )`,
    [kept.tasks, kept.minutes],
  )
}
