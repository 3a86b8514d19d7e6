import type { Pool } from 'pg'

/** Refused records are kept so long behind the end of their file, and what is known of files that are not listed any more. */
const REJECTS_KEPT = "interval '90 days'"
const FILES_KEPT = "interval '365 days'"

/** Deletes up to `limit` rejects of files that ended long ago; gives their number. */
export async function pruneRejects(pool: Pool, limit: number): Promise<number> {
  const { rowCount } = await pool.query(PRUNE_REJECTS, [limit])
  return rowCount ?? 0
}

const PRUNE_REJECTS = `
  with old as (
    select r.file, r.number from files f join rejects r on r.file = f.id
    where f.records_rejected > 0 and f.finished_at < now() - ${REJECTS_KEPT} limit $1
  )
  delete from rejects r using old where r.file = old.file and r.number = old.number`

/**
 * Deletes up to `limit` files that ended long ago and that a whole listing has not told of for as long; gives their number. One
 * that comes back after that is new. What is listed still is kept: that it was imported must not be forgotten.
 */
export async function pruneFiles(pool: Pool, limit: number): Promise<number> {
  const { rowCount } = await pool.query(PRUNE_FILES, [limit])
  return rowCount ?? 0
}

const PRUNE_FILES = `
  delete from files where id in (
    select f.id from files f join sources s on s.id = f.source
    where f.finished_at < now() - ${FILES_KEPT} and f.after is distinct from 'pending'
      and f.listed_at < s.listed_at - ${FILES_KEPT} limit $1)`
