import type { Pool } from 'pg'
import { LIMITS, legible } from '../../task/limits.ts'
import type { FileStatus } from '../../task/source/source.ts'
import { prepared } from '../database/statement.ts'
import { TAKEN_MS } from '../sources/due.ts'

/** A file that is imported, or cannot be, and whose remote file is to be moved or deleted. */
export interface FinishedFile {
  id: string
  path: string
  status: FileStatus
  size: number | null
  modified: string | null
  exact: string | null
  location: string | null
}

/** Those are looked for, too, that have been put off by taking their source. */
const TAKEN = `interval '${TAKEN_MS + 1_000} ms'`

/** Of one source, which the caller holds. */
export function pendingAfter(pool: Pool, source: string, limit: number): Promise<FinishedFile[]> {
  return prepared<FinishedFile>(
    pool,
    'pending-after',
    `select id, path, status, size, modified, exact, location from files
     where source = $1 and after = 'pending' and after_at <= now() + ${TAKEN} order by after_at, id limit $2`,
    [source, limit],
  )
}

/** Notes that it is done, and where the file is now; `moot`: there is nothing to do it with, and why. */
export async function saveAfter(
  pool: Pool,
  id: string,
  end: { kind: 'done'; location: string | null } | { kind: 'moot'; why: string },
): Promise<void> {
  await prepared(
    pool,
    'save-after',
    `update files set after = $2, location = coalesce($3, location), after_error = $4 where id = $1 and after = 'pending'`,
    end.kind === 'done' ? [id, 'done', end.location, null] : [id, 'moot', null, end.why],
  )
}

/** Waits between tries, in milliseconds: the first, and the longest. */
const AGAIN_MS = { first: 60_000, longest: 3_600_000 }

/** Notes why it could not be done; it is tried again, later each time. */
export async function postponeAfter(pool: Pool, ids: string[], error: string): Promise<void> {
  await prepared(
    pool,
    'postpone-after',
    `update files set after_error = $2, after_failures = after_failures + 1,
       after_at = now() + least(${AGAIN_MS.longest}, ${AGAIN_MS.first} * 2 ^ least(after_failures, 20)) * interval '1 ms'
     where id = any($1::uuid[]) and after = 'pending'`,
    [ids, legible(error, LIMITS.errorBytes)],
  )
}

/**
 * Draws the line under files whose import's task is final: one that had not imported all has failed, and what became of its
 * records is kept beyond the tasks. Gives the sources whose remote files are to be moved now.
 */
export async function concludeFiles(pool: Pool, limit: number): Promise<{ concluded: number; sources: string[] }> {
  const rows = await prepared<{ source: string; after: boolean }>(pool, 'conclude-files', CONCLUDE, [limit])
  const due = rows.filter(({ after }) => after).map(({ source }) => source)
  return { concluded: rows.length, sources: [...new Set(due)] }
}

const CONCLUDE = `
  with ended as (
    select f.id, t.status, t.error, coalesce(t.finished_at, now()) as at,
      f.status <> 'done' and t.status = 'dead' and coalesce(s.settings #>> '{failed,kind}', 'none') = 'move' as after,
      jsonb_build_object('total', t.children_total, 'succeeded', t.children_succeeded, 'dead', t.children_dead) as tasks
    from files f join sources s on s.id = f.source left join tasks t on t.id = f.task
    where f.finished_at is null and f.task is not null
      and (t.id is null or t.status in ('succeeded', 'dead', 'cancelled'))
    order by f.id limit $1 for update of f skip locked
  )
  update files f
  set finished_at = e.at, tasks = case when e.status is not null then e.tasks end,
    status = case when f.status = 'done' then f.status else 'failed' end,
    error = case
      when f.status in ('done', 'failed') then f.error
      when e.status = 'cancelled' then 'It was cancelled'
      else coalesce(e.error, 'The task of its import is gone') end,
    after = case when e.after then 'pending' else f.after end,
    after_at = case when e.after then now() else f.after_at end
  from ended e where f.id = e.id
  returning f.source, e.after`

/**
 * Those of the names in its spool that `node` has to keep. The ledger learns that they lie there: a node that has started
 * again is another one.
 */
export async function neededSpools(pool: Pool, node: string, names: string[]): Promise<Set<string>> {
  const rows = await prepared<{ spool: string }>(pool, 'needed-spools', NEEDED, [names, node])
  return new Set(rows.map(({ spool }) => spool))
}

const NEEDED = `
  with needed as (
    select id, spool, spool_node from files where spool = any($1) and status = 'importing'
  ), told as (
    update files f set spool_node = $2 from needed n where f.id = n.id and n.spool_node is distinct from $2
  )
  select spool from needed`
