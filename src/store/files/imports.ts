import type { Pool, PoolClient } from 'pg'
import { v7 as uuidv7 } from 'uuid'
import { Problem } from '../../runtime/errors.ts'
import { LIMITS, legible } from '../../task/limits.ts'
import type { ImportBatch, ImportDelivery, ImportReject } from '../../task/source/import.ts'
import type { FileStatus, SourceSettings } from '../../task/source/source.ts'
import { inTransaction, prepared } from '../database/statement.ts'

/** An attempt of an import's task: what it writes counts only while it is the task's present one (PROTOCOL 4). */
export interface ImportAttempt {
  task: string
  attempt: number
  node: string
}

/** A file as its import finds it. */
export interface ImportedFile {
  id: string
  status: FileStatus
  path: string
  location: string | null
  size: number | null
  sha256: string
  spool: string
  paused: boolean
  bytesRead: number
  recordsRead: number
  recordsRejected: number
  /** JSON text. */
  checkpoint: string | null
  sourceId: string
  settings: SourceSettings
  /** It lies in the spool of another node, which lives. */
  isElsewhere: boolean
}

const IS_CURRENT = `t.id = $1 and t.attempt = $2 and t.node = $3 and t.status = 'running' and not t.cancel_requested`

/**
 * The file that the attempt is to import. One that had failed is being imported again: somebody has replayed its task.
 * Where the exchange leads to several queues, it is the copy of one of them that imports. `late`: the attempt is over for the
 * ledger. `gone`: there is no such file any more, or another task imports it.
 */
export async function openImport(
  pool: Pool,
  attempt: ImportAttempt,
  file: string,
): Promise<ImportedFile | 'late' | 'gone'> {
  return inTransaction(pool, async (tx) => {
    const rows = await prepared<ImportedFile>(tx, 'open-import', OPEN, [...fence(attempt), file])
    const [opened] = rows
    if (opened) return opened
    return (await isCurrent(tx, attempt)) ? 'gone' : 'late'
  })
}

const OPEN = `
  update files f
  set task = t.id, attempt_at = now(), attempt_bytes = f.bytes_read, attempt_records = f.records_read,
    status = case when f.status = 'failed' then 'importing' else f.status end,
    error = case when f.status = 'failed' then null else f.error end,
    after = case when f.status = 'failed' then null else f.after end,
    finished_at = case when f.status = 'failed' then null else f.finished_at end
  from sources s, tasks t
  where ${IS_CURRENT} and f.id = $4 and f.task in (t.id, t.parent_id) and s.id = f.source
    and f.status in ('importing', 'failed', 'done')
  returning f.id, f.status, f.path, f.location, f.size, f.sha256, f.spool, f.paused, f.bytes_read as "bytesRead",
    f.records_read as "recordsRead", f.records_rejected as "recordsRejected", f.checkpoint, f.source as "sourceId", s.settings,
    exists (
      select from nodes n where n.id = f.spool_node and n.id <> $3 and n.dead_at is null and n.left_at is null
    ) as "isElsewhere"`

function fence({ task, attempt, node }: ImportAttempt): unknown[] {
  return [task, attempt, node]
}

async function isCurrent(tx: PoolClient, attempt: ImportAttempt): Promise<boolean> {
  const rows = await prepared(tx, 'is-current-import', `select from tasks t where ${IS_CURRENT}`, fence(attempt))
  return rows.length === 1
}

/** Which file an import is about, for what comes after its end. */
export interface ImportPlace {
  sourceId: string
  spool: string
}

/** What became of a batch. `repeated`: it was committed before. */
export type Committed =
  | ({ kind: 'committed' | 'repeated'; paused: boolean; tasks: string[] } & ImportPlace)
  | { kind: 'late' }

/** Takes the transaction back. */
class Late extends Error {}

/**
 * Commits a batch: its tasks, its rejects, and that reading goes on behind it, all or nothing, and once however often it is
 * asked for. The import's task, which the ends of its children need as well, is locked last and just for the commit.
 * Rejects with `unknown-queue` when there is none to put the tasks into.
 */
export async function commitBatch(
  pool: Pool,
  attempt: ImportAttempt,
  file: string,
  batch: ImportBatch,
  deliver: Omit<ImportDelivery, 'recordsPerTask'>,
): Promise<Committed> {
  const tasks = Array.from({ length: batch.tasks }, () => uuidv7())
  try {
    return await inTransaction(pool, async (tx): Promise<Committed> => {
      const advanced = await advance(tx, attempt, file, batch)
      if (advanced === undefined) return repeated(tx, attempt, file, batch)
      if (tasks.length > 0) await insertRecords(tx, attempt, batch, tasks, deliver)
      if (batch.rejects.length > 0) await insertRejects(tx, file, batch.rejects)
      await countRecords(tx, attempt, tasks.length)
      return { kind: 'committed', ...advanced, paused: advanced.paused && !batch.end, tasks }
    })
  } catch (error) {
    if (error instanceof Late) return { kind: 'late' }
    throw error
  }
}

/** Only from where the batch begins: so none is left out, and none comes twice. */
async function advance(tx: PoolClient, { task }: ImportAttempt, file: string, batch: ImportBatch) {
  const rows = await prepared<{ paused: boolean } & ImportPlace>(tx, 'advance-import', ADVANCE, [
    ...[file, task, batch.from, batch.to, batch.rejects.length, batch.bytesRead, batch.checkpoint, batch.end],
  ])
  return rows[0]
}

const ADVANCE = `
  update files f
  set records_read = $4, records_rejected = f.records_rejected + $5, bytes_read = $6, checkpoint = $7::json,
    status = case when $8 then 'done' else f.status end,
    imported_at = case when $8 then now() end,
    after = case when $8 and a.asked then 'pending' end, after_at = case when $8 and a.asked then now() end
  from sources s cross join lateral (
    select coalesce(s.settings #>> '{after,kind}', 'none') <> 'none' as asked
  ) a
  where f.id = $1 and f.task = $2 and f.status = 'importing' and f.records_read = $3 and s.id = f.source
  returning f.paused, f.source as "sourceId", f.spool`

/** The same batch again, after its answer was lost. */
async function repeated(
  tx: PoolClient,
  attempt: ImportAttempt,
  file: string,
  { to, end }: ImportBatch,
): Promise<Committed> {
  const [row] = await prepared<{ paused: boolean } & ImportPlace>(
    tx,
    'repeated-import',
    `select paused, source as "sourceId", spool from files where id = $1 and task = $2 and records_read = $3 and status = $4`,
    [file, attempt.task, to, end ? 'done' : 'importing'],
  )
  if (!row || !(await isCurrent(tx, attempt))) return { kind: 'late' }
  return { kind: 'repeated', ...row, paused: row.paused && !end, tasks: [] }
}

async function insertRecords(
  tx: PoolClient,
  { task, node }: ImportAttempt,
  batch: ImportBatch,
  ids: string[],
  { queue, type, priority }: Omit<ImportDelivery, 'recordsPerTask'>,
): Promise<void> {
  const rows = await prepared<{ count: number }>(tx, 'insert-records', INSERT_RECORDS, [
    ...[ids, batch.payloads, queue, type, priority, task, node],
  ])
  if (rows[0]?.count === ids.length) return
  const detail = `There is no queue "${queue}" for the records: create it with PUT /api/v1/queues/${queue}`
  throw new Problem('unknown-queue', detail)
}

/**
 * As INSERT of tasks/insert-rows.ts, for many alike. Should the payloads be more than the ids, the surplus row has no id, and
 * the not-null constraint fails the batch; should they be fewer, a task has no payload.
 */
export const INSERT_RECORDS = `
  with inserted as (
    insert into tasks (id, queue, type, payload, priority, due_at, max_attempts, parent_id, origin)
    select i.id, q.name, $4, i.payload, $5, now(), (q.retry ->> 'maxAttempts')::int, $6, 'file'
    from queues q cross join rows from (unnest($1::uuid[]), json_array_elements($2::json)) as i(id, payload)
    where q.name = $3
    returning id
  ), counted as (
    insert into counters (node, queue, origin, accepted)
    select $7, $3, 'file', count(*) from inserted having count(*) > 0
    on conflict (node, queue, origin) do update set accepted = counters.accepted + excluded.accepted
  )
  select count(*)::int as count from inserted`

async function insertRejects(tx: PoolClient, file: string, rejects: ImportReject[]): Promise<void> {
  await prepared(
    tx,
    'insert-rejects',
    `insert into rejects (file, number, line, reason, raw)
     select $1, i.* from unnest($2::bigint[], $3::bigint[], $4::text[], $5::text[]) as i`,
    [
      file,
      rejects.map(({ number }) => number),
      rejects.map(({ line }) => line),
      rejects.map(({ reason }) => legible(reason, LIMITS.errorBytes)),
      rejects.map(({ raw }) => legible(raw, LIMITS.errorBytes)),
    ],
  )
}

/** An import that gets on is not what its node ended of: its lost starts are forgotten. */
async function countRecords(tx: PoolClient, attempt: ImportAttempt, count: number): Promise<void> {
  const rows = await prepared(
    tx,
    'count-records',
    `update tasks t set children_total = t.children_total + $4, lost_starts = 0 where ${IS_CURRENT} returning id`,
    [...fence(attempt), count],
  )
  if (rows.length === 0) throw new Late()
}

/** Notes that a file cannot be imported. Undefined when the attempt is over for the ledger. */
export async function failImport(
  pool: Pool,
  attempt: ImportAttempt,
  file: string,
  error: string,
): Promise<ImportPlace | undefined> {
  const rows = await prepared<ImportPlace>(
    pool,
    'fail-import',
    `update files f set status = 'failed', error = $5 from tasks t
     where ${IS_CURRENT} and f.id = $4 and f.task = t.id and f.status in ('importing', 'failed')
     returning f.source as "sourceId", f.spool`,
    [...fence(attempt), file, legible(error, LIMITS.errorBytes)],
  )
  return rows[0]
}

/** Notes that the file lies in the spool of the attempt's node now. False when the attempt is over for the ledger. */
export async function moveSpool(pool: Pool, attempt: ImportAttempt, file: string, spool: string): Promise<boolean> {
  const rows = await prepared(
    pool,
    'move-spool',
    `update files f set spool = $5, spool_node = t.node from tasks t where ${IS_CURRENT} and f.id = $4 and f.task = t.id returning f.id`,
    [...fence(attempt), file, spool],
  )
  return rows.length === 1
}
