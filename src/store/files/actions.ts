import type { Pool } from 'pg'
import { v7 as uuidv7 } from 'uuid'
import type { FileStatus } from '../../task/source/source.ts'

export interface TouchedFile {
  status: FileStatus
  /** Its import. */
  task: string | null
  source: string
}

/**
 * A paused file is not fetched, and its import stops behind the batch in hand. Undefined when there is no such file; one that
 * is imported, or will not be, stays as it is.
 */
export async function setFilePaused(pool: Pool, id: string, paused: boolean): Promise<TouchedFile | undefined> {
  const { rows } = await pool.query<TouchedFile>(
    `update files set paused = case when status in ('seen', 'ready', 'fetching', 'importing') then $2 else false end
     where id = $1 returning status, task, source`,
    [id, paused],
  )
  return rows[0]
}

/** Sees to it that a file is not fetched; what is being imported is cancelled by its task. */
export async function skipFile(pool: Pool, id: string): Promise<TouchedFile | undefined> {
  const { rows } = await pool.query<TouchedFile>(
    `update files set
       status = case when status in ('seen', 'ready', 'fetching') then 'skipped' else status end,
       error = case when status in ('seen', 'ready', 'fetching') then 'It was cancelled' else error end,
       finished_at = case when status in ('seen', 'ready', 'fetching') then now() else finished_at end
     where id = $1 returning status, task, source`,
    [id],
  )
  return rows[0]
}

/** `unfinished`: it, or a newer version of it, is not done. `superseded`: there is a newer version. */
export type Rerun = { kind: 'again'; id: string; source: string } | { kind: 'unknown' | 'unfinished' | 'superseded' }

/** Has the last version of a file fetched and imported once more, from the beginning, as a generation of its own. */
export async function rerunFile(pool: Pool, id: string): Promise<Rerun> {
  const { rows } = await pool.query<{ id: string | null; source: string; newest: boolean }>(
    `with asked as (
       select f.*, not exists (
         select from files n where n.source = f.source and n.path = f.path and n.generation > f.generation) as newest
       from files f where f.id = $1 for update of f
     ), made as (
       insert into files (id, source, path, generation, size, modified, exact, status, asked, location)
       select $2, a.source, a.path, a.generation + 1, a.size, a.modified, a.exact, 'ready', true, a.location
       from asked a where a.newest and a.status in ('done', 'failed', 'skipped')
         and (a.task is null or a.finished_at is not null)
       on conflict do nothing returning id
     ), polled as (
       update sources s set next_poll_at = least(s.next_poll_at, now()) from asked a
       where s.id = a.source and exists (select from made)
     )
     select m.id, a.source, a.newest from asked a left join made m on true`,
    [id, uuidv7()],
  )
  const [row] = rows
  if (!row) return { kind: 'unknown' }
  if (row.id !== null) return { kind: 'again', id: row.id, source: row.source }
  return { kind: row.newest ? 'unfinished' : 'superseded' }
}

/** Tasks of a file run again: the line under it is drawn once more when they have ended. */
export async function reopenFile(pool: Pool, id: string): Promise<void> {
  await pool.query('update files set finished_at = null, tasks = null where id = $1 and task is not null', [id])
}
