import type { Pool } from 'pg'
import type { FileStatus } from '../../task/source/source.ts'
import type { Reject, SourceFile } from '../../task/source/state.ts'

const COLUMNS = `f.id, f.source as "sourceId", s.name as source, f.path, f.generation, f.status, f.size, f.modified, f.sha256,
  f.paused, f.task as "taskId", f.bytes_read as "bytesRead", f.records_read as "recordsRead",
  f.records_rejected as "recordsRejected",
  case when t.id is null then coalesce(f.tasks, '{"total": 0, "succeeded": 0, "dead": 0}')
    else jsonb_build_object('total', t.children_total, 'succeeded', t.children_succeeded, 'dead', t.children_dead)
  end as tasks,
  f.after, f.after_error as "afterError", f.location, f.duplicate_of as "duplicateOf", f.failures, f.error,
  f.seen_at as "seenAt", f.fetched_at as "fetchedAt", f.imported_at as "importedAt", f.finished_at as "finishedAt",
  (extract(epoch from coalesce(f.imported_at, f.finished_at, now()) - f.attempt_at) * 1000)::float8 as "attemptMs",
  f.bytes_read - f.attempt_bytes as "attemptBytes", f.records_read - f.attempt_records as "attemptRecords"`
const FROM = 'files f join sources s on s.id = f.source left join tasks t on t.id = f.task'

/** The place after a file in a list, the newest first; its time with microseconds. */
export interface FilePlace {
  seenAt: string
  id: string
}

export interface FileFilter {
  source?: string | undefined
  status?: FileStatus | undefined
  /** Of an import. */
  task?: string | undefined
  path?: string | undefined
  after?: FilePlace | undefined
  limit: number
}

/** A file, and how far the last attempt at it has come: in how many milliseconds; null before there was one. */
export interface ReadFile extends SourceFile {
  attemptMs: number | null
  attemptBytes: number | null
  attemptRecords: number | null
}

export type ListedSourceFile = ReadFile & { place: FilePlace }

/** Files, those seen last first. */
export async function listFiles(pool: Pool, filter: FileFilter): Promise<ListedSourceFile[]> {
  const { source, status, task, path, after, limit } = filter
  const { rows } = await pool.query<ReadFile & { seenKey: string }>(
    `select ${COLUMNS}, f.seen_at::text as "seenKey" from ${FROM}
     where ($1::uuid is null or f.source = $1) and ($2::text is null or f.status = $2)
       and ($3::uuid is null or f.task = $3) and ($4::text is null or f.path = $4)
       and ($5::timestamptz is null or (f.seen_at, f.id) < ($5::timestamptz, $6::uuid))
     order by f.seen_at desc, f.id desc limit $7`,
    [source ?? null, status ?? null, task ?? null, path ?? null, after?.seenAt ?? null, after?.id ?? null, limit],
  )
  return rows.map(({ seenKey, ...file }) => ({ ...file, place: { seenAt: seenKey, id: file.id } }))
}

/** Undefined when there is none with this id. */
export async function fileById(pool: Pool, id: string): Promise<ReadFile | undefined> {
  const { rows } = await pool.query<ReadFile>(`select ${COLUMNS} from ${FROM} where f.id = $1`, [id])
  return rows[0]
}

/**
 * Files that are not finished: those that are being fetched or imported or have tasks that are not final, and of each source the
 * newest hundred, these also for a moment after their end. And those with `ids`, which come first.
 */
export async function movingFiles(pool: Pool, ids: string[], limit: number): Promise<ReadFile[]> {
  const { rows } = await pool.query<ReadFile>(MOVING, [ids, limit])
  return rows
}

export const MOVING = `
  select ${COLUMNS} from ${FROM}
  where f.id in (
    select id from files where status = 'fetching'
    union all select id from files where finished_at is null and task is not null
    union all select r.id from sources, lateral (
      select id, finished_at from files where source = sources.id order by seen_at desc, id desc limit 100) r
      where r.finished_at is null or r.finished_at > now() - interval '10 s'
    union all select unnest($1::uuid[]))
  order by f.id = any($1::uuid[]) desc, f.seen_at desc, f.id limit $2`

/** Rejected records of a file by their number, those after `after`. */
export async function listRejects(pool: Pool, file: string, limit: number, after = 0): Promise<Reject[]> {
  const { rows } = await pool.query<Reject>(
    'select number, line, reason, raw from rejects where file = $1 and number > $2 order by number limit $3',
    [file, after, limit],
  )
  return rows
}

export interface SourceFigures {
  sources: { total: number; paused: number; alerts: number; failing: number }
  files: Partial<Record<FileStatus, number>>
}

/** For metrics and the dashboard; files that are done are not counted. */
export async function sourceFigures(pool: Pool): Promise<SourceFigures> {
  const { rows } = await pool.query<SourceFigures['sources']>(
    `select count(*)::int as total, count(*) filter (where paused or gone_at is not null)::int as paused,
       count(*) filter (where alert is not null)::int as alerts,
       count(*) filter (where poll #>> '{error,message}' is not null)::int as failing
     from sources`,
  )
  const { rows: files } = await pool.query<{ status: FileStatus; count: number }>(
    `select status, count(*)::int as count from files
     where status in ('seen', 'ready', 'fetching') or (finished_at is null and task is not null) group by status`,
  )
  return {
    sources: rows[0] ?? { total: 0, paused: 0, alerts: 0, failing: 0 },
    files: Object.fromEntries(files.map(({ status, count }) => [status, count])),
  }
}
