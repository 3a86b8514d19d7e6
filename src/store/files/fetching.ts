import type { Pool } from 'pg'
import { prepared } from '../database/statement.ts'

/** A complete file that is to be fetched. */
export interface ReadyFile {
  id: string
  path: string
  size: number | null
  modified: string | null
  /** Where it is now, if it was moved. */
  location: string | null
  /** By somebody, whether it is listed or not. */
  asked: boolean
}

/** Of one source, which the caller holds: what was being fetched when its node ended is to be fetched again. */
export async function resetFetching(pool: Pool, source: string): Promise<void> {
  await prepared(
    pool,
    'reset-fetching',
    `update files set status = 'ready' where source = $1 and status = 'fetching'`,
    [source],
  )
}

/** Files to fetch now, those that failed less often first, then the oldest. */
export function readyFiles(pool: Pool, source: string, limit: number): Promise<ReadyFile[]> {
  return prepared<ReadyFile>(
    pool,
    'ready-files',
    `select id, path, size, modified, location, asked from files
     where source = $1 and status = 'ready' and not paused and (retry_at is null or retry_at <= now())
     order by failures, seen_at, id limit $2`,
    [source, limit],
  )
}

/** False when somebody else has it, or it is gone. */
export async function beginFetch(pool: Pool, id: string): Promise<boolean> {
  const rows = await prepared(
    pool,
    'begin-fetch',
    `update files set status = 'fetching' where id = $1 and status = 'ready' returning id`,
    [id],
  )
  return rows.length === 1
}

/** How a fetch ended that did not bring the file. */
export type FetchEnd =
  /** Tried again later, later each time. */
  | { kind: 'again'; error: string }
  /** It is another version now: it has to be seen as complete once more. */
  | { kind: 'changed'; error: string; size: number | null }
  /** It is not there any more. */
  | { kind: 'vanished' }
  /** It will not be imported. */
  | { kind: 'failed' | 'skipped'; error: string }

/** Waits between tries, in milliseconds: the first, and the longest. */
const AGAIN_MS = { first: 10_000, longest: 3_600_000 }

/** Ends a fetch under way; does nothing when it is not under way any more. */
export async function endFetch(pool: Pool, id: string, end: FetchEnd, failedAction: boolean): Promise<void> {
  switch (end.kind) {
    case 'again':
      await prepared(
        pool,
        'fetch-again',
        `update files set status = 'ready', failures = failures + 1, error = $2,
           retry_at = now() + least(${AGAIN_MS.longest}, ${AGAIN_MS.first} * 2 ^ least(failures, 20)) * interval '1 ms'
         where id = $1 and status = 'fetching'`,
        [id, end.error],
      )
      return
    case 'changed':
      await prepared(
        pool,
        'fetch-changed',
        `update files set status = 'seen', stable = 1, stable_at = now(), error = $2, size = $3
         where id = $1 and status = 'fetching'`,
        [id, end.error, end.size],
      )
      return
    case 'vanished':
      await prepared(pool, 'fetch-vanished', `delete from files where id = $1 and status = 'fetching'`, [id])
      return
    case 'failed':
    case 'skipped':
      await prepared(
        pool,
        'fetch-refused',
        `update files set status = $2, error = $3, finished_at = now(),
           after = case when $4 then 'pending' end, after_at = case when $4 then now() end
         where id = $1 and status = 'fetching'`,
        [id, end.kind, end.error, failedAction],
      )
      return
    default:
      end satisfies never
  }
}
