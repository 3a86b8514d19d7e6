import type { Pool } from 'pg'
import type { Sealed } from '../../runtime/secret-box.ts'
import type { ShownAuth, SourceSettings } from '../../task/source/source.ts'
import type { PollReport, ServerIdentity, SourceAlert } from '../../task/source/state.ts'
import { type Queryable, repeated } from '../database/statement.ts'
import { SOURCE_COLUMNS, type SourceRow, type StoredSource, storedSource } from './read.ts'

/** A source as it is to be stored. */
export interface NewSource {
  id: string
  name: string
  settings: SourceSettings
  auth: ShownAuth | null
  sealed: Sealed | null
  paused: boolean
  managedBy?: string | undefined
  externalId?: string | undefined
}

/** When a source is looked at next: at a time (milliseconds since 1970), at once, or never by itself. */
export type NextPoll = number | 'now' | 'never'

/** As text that Postgres reads; `now` is its own. */
export function timeOf(next: NextPoll): string {
  return next === 'never' ? 'infinity' : next === 'now' ? 'now' : new Date(next).toISOString()
}

const UNIQUE_VIOLATION = '23505'
const isTaken = (error: unknown) => (error as { code?: string }).code === UNIQUE_VIOLATION

/** Undefined when another source has the name. */
export async function insertSource(
  tx: Queryable,
  source: NewSource,
  nextPoll: NextPoll,
): Promise<StoredSource | undefined> {
  const { id, name, settings, auth, sealed, paused, managedBy, externalId } = source
  // A conflict as an error would end the caller's transaction.
  const { rows } = await tx.query<SourceRow>(
    `insert into sources as s (id, name, settings, auth, secret, secret_key, paused, managed_by, external_id, next_poll_at)
     values ($1, $2, $3::text::jsonb, $4::text::jsonb, $5, $6, $7, $8, $9, $10)
     on conflict (name) do nothing returning ${SOURCE_COLUMNS}`,
    [
      ...[id, name, JSON.stringify(settings), auth && JSON.stringify(auth), sealed?.bytes, sealed?.keyId],
      ...[paused, managedBy ?? null, externalId ?? null, timeOf(nextPoll)],
    ],
  )
  return rows.map(storedSource)[0]
}

/** What of a source is replaced; what is left out stays. */
export interface SourceChange {
  name?: string | undefined
  settings?: SourceSettings | undefined
  auth?: ShownAuth | null | undefined
  sealed?: Sealed | null | undefined
  paused?: boolean | undefined
  nextPoll?: NextPoll | undefined
  /** Null: it is named again. `now`: it is not any more. */
  gone?: 'now' | null | undefined
  /** It may be another server now: who answered before does not count, nor does an alert. */
  forgetIdentity?: boolean | undefined
}

/** Changes a source; `name-taken` when another one has the name, undefined when there is no such source. */
export async function updateSource(
  tx: Queryable,
  id: string,
  change: SourceChange,
): Promise<StoredSource | 'name-taken' | undefined> {
  const { name, settings, auth, sealed, paused, nextPoll, gone, forgetIdentity = false } = change
  try {
    const { rows } = await tx.query<SourceRow>(
      `update sources s set
         name = coalesce($2, s.name),
         settings = coalesce($3::text::jsonb, s.settings),
         auth = case when $4 then $5::text::jsonb else s.auth end,
         secret = case when $6 then $7 else s.secret end,
         secret_key = case when $6 then $8 else s.secret_key end,
         paused = coalesce($9, s.paused),
         next_poll_at = coalesce($10, s.next_poll_at),
         gone_at = case when not $11 then s.gone_at when $12 then coalesce(s.gone_at, now()) end,
         pinned = case when $13 then null else s.pinned end,
         alert = case when $13 then null else s.alert end,
         updated_at = now()
       where s.id = $1 returning ${SOURCE_COLUMNS}`,
      [
        ...[id, name ?? null, settings ? JSON.stringify(settings) : null],
        ...[auth !== undefined, auth ? JSON.stringify(auth) : null],
        ...[sealed !== undefined, sealed?.bytes ?? null, sealed?.keyId ?? null],
        ...[paused ?? null, nextPoll === undefined ? null : timeOf(nextPoll)],
        ...[gone !== undefined, gone === 'now', forgetIdentity],
      ],
    )
    return rows.map(storedSource)[0]
  } catch (error) {
    if (isTaken(error)) return 'name-taken'
    throw error
  }
}

/** False when there is no such source. Its files' rows go with it; their tasks stay. */
export async function deleteSource(pool: Pool, id: string): Promise<boolean> {
  const { rowCount } = await pool.query('delete from sources where id = $1', [id])
  return rowCount === 1
}

/** Keeps who answered first, if nobody is kept; gives who is kept then. */
export async function pinIdentity(pool: Pool, id: string, found: ServerIdentity): Promise<ServerIdentity | undefined> {
  const { rows } = await pool.query<{ pinned: ServerIdentity }>(
    `update sources set pinned = coalesce(pinned, $2::text::jsonb) where id = $1 returning pinned`,
    [id, JSON.stringify(found)],
  )
  return rows[0]?.pinned
}

/** Stops the polling of a source until somebody confirms or changes it. */
export async function raiseAlert(pool: Pool, id: string, alert: SourceAlert): Promise<void> {
  await pool.query('update sources set alert = $2::text::jsonb where id = $1 and alert is null', [
    id,
    JSON.stringify(alert),
  ])
}

/**
 * Takes who answered at the alert for the one who is expected from now on, and polls again. `fingerprint` is what the person
 * has seen: false when the alert is about another one, or there is none.
 */
export async function confirmIdentity(pool: Pool, id: string, fingerprint: string): Promise<boolean> {
  const { rowCount } = await pool.query(
    `update sources set pinned = alert -> 'found', alert = null, next_poll_at = now(), updated_at = now()
     where id = $1 and $2 in (alert #>> '{found,hostKey,fingerprint}', alert #>> '{found,certificate,fingerprint}')`,
    [id, fingerprint],
  )
  return rowCount === 1
}

/** When a source is polled before its time: in so many milliseconds, or soon, and later with every failure in a row. */
export type PollAgain = { inMs: number | null } | { backoff: true }

/** Between polls that fail, in milliseconds: the first wait, and the longest. */
const BACKOFF_MS = { first: 60_000, longest: 3_600_000 }

/** Keeps what a poll came to. */
export function savePoll(pool: Pool, id: string, report: PollReport, again: PollAgain): Promise<unknown> {
  return repeated(() =>
    pool.query(SAVE_POLL, [
      ...[id, JSON.stringify(report), report.error !== null],
      ...['backoff' in again, 'inMs' in again ? again.inMs : null],
    ]),
  )
}

/** A wait that is null leaves the time as it is. */
const SAVE_POLL = `
  update sources set poll = $2::text::jsonb, polled_at = now(), poll_failures = case when $3 then poll_failures + 1 else 0 end,
    next_poll_at = least(next_poll_at, now() + interval '1 ms' * case
      when $4 then least(${BACKOFF_MS.longest}, ${BACKOFF_MS.first} * 2 ^ least(poll_failures, 20)) else $5::float8 end)
  where id = $1`
