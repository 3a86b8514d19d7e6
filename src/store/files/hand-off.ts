import type { Pool, PoolClient } from 'pg'
import type { NewTask } from '../../task/task.ts'
import { inTransaction, prepared } from '../database/statement.ts'
import { insertEach } from '../tasks/insert/insert.ts'
import { type Addressing, queuesOf } from '../tasks/insert/insert-addressed.ts'

/** A file that lies in the spool, whole. */
export interface FetchedFile {
  id: string
  source: string
  sha256: string
  /** In bytes. */
  size: number
  spool: string
  /** The time to the second, where the listing does not tell it. */
  exact: string | null
  /** Whether the listing tells times less exactly, so that a change might not show in it for a while. */
  unsure: boolean
}

/**
 * `lost`: another node has the source by now, or the file is not being fetched any more: nothing was written.
 * `duplicate`: its content was there before, and the source wants none twice.
 */
export type HandedOff =
  | { kind: 'importing'; duplicateOf: string | null; queues: string[] }
  | { kind: 'duplicate'; duplicateOf: string }
  | { kind: 'lost' }

export interface HandOff {
  /** The node that holds the source under this name. */
  node: string
  lock: string
  file: FetchedFile
  /** The import, and how the exchange is routed that it is addressed to. */
  task: NewTask
  addressing: Addressing
  duplicates: 'flag' | 'skip'
  /** Whether something is to be done with the remote file of a duplicate that is skipped. */
  after: boolean
}

/** How long a change may hide behind the minute that a listing tells, in seconds. */
const UNSURE = "interval '150 s'"

/**
 * Commits that a file was fetched, together with the task that imports it: from here on the file is in the ledger's hands, and
 * until here nothing of the fetch counts. Rejects when the task cannot be stored (its queue is gone).
 */
export async function handOff(pool: Pool, hand: HandOff): Promise<HandedOff> {
  return inTransaction(pool, async (tx) => {
    if (!(await isHeld(tx, hand))) return { kind: 'lost' }
    const { file, duplicates } = hand
    const before = await earlierFile(tx, file)
    if (before !== null && duplicates === 'skip') {
      return (await skipDuplicate(tx, hand, before)) ? { kind: 'duplicate', duplicateOf: before } : { kind: 'lost' }
    }
    if (!(await beginImport(tx, hand, before))) return { kind: 'lost' }
    return { kind: 'importing', duplicateOf: before, queues: await insertImport(tx, hand) }
  })
}

/** The source's row is locked, so that two files of the same content do not pass each other. */
async function isHeld(tx: PoolClient, { node, lock, file }: HandOff): Promise<boolean> {
  const rows = await prepared(
    tx,
    'source-held',
    `select from locks where name = $1 and node = $2
       and exists (select from nodes n where n.id = $2 and n.dead_at is null and n.left_at is null) for share`,
    [lock, node],
  )
  if (rows.length === 0) return false
  return (await prepared(tx, 'lock-source', 'select from sources where id = $1 for update', [file.source])).length === 1
}

async function earlierFile(tx: PoolClient, { id, source, sha256 }: FetchedFile): Promise<string | null> {
  const rows = await prepared<{ id: string }>(
    tx,
    'earlier-file',
    `select id from files where source = $1 and sha256 = $2 and id <> $3 and status in ('importing', 'done')
     order by seen_at, id limit 1`,
    [source, sha256, id],
  )
  return rows[0]?.id ?? null
}

const FETCHED = `sha256 = $2, size = coalesce(size, $3), bytes_read = 0, exact = $4,
  unsure_until = case when $5 then now() + ${UNSURE} end, duplicate_of = $6, fetched_at = now(), error = null, retry_at = null`

function fetchedValues({ id, sha256, size, exact, unsure }: FetchedFile, before: string | null): unknown[] {
  return [id, sha256, size, exact, unsure, before]
}

async function skipDuplicate(tx: PoolClient, { file, after }: HandOff, before: string): Promise<boolean> {
  const rows = await prepared(
    tx,
    'skip-duplicate',
    `update files set status = 'skipped', ${FETCHED}, finished_at = now(),
       after = case when $7 then 'pending' end, after_at = case when $7 then now() end
     where id = $1 and status = 'fetching' returning id`,
    [...fetchedValues(file, before), after],
  )
  return rows.length === 1
}

async function beginImport(tx: PoolClient, { node, file, task }: HandOff, before: string | null): Promise<boolean> {
  const rows = await prepared(
    tx,
    'begin-import',
    `update files set status = 'importing', ${FETCHED}, spool = $7, task = $8, spool_node = $9
     where id = $1 and status = 'fetching' returning id`,
    [...fetchedValues(file, before), file.spool, task.id, node],
  )
  return rows.length === 1
}

/** Gives the queues that got it. */
async function insertImport(tx: PoolClient, { node, task, addressing }: HandOff): Promise<string[]> {
  const { answers } = await insertEach(tx, node, [task], addressing)
  const answer = answers.get(task.id)
  if (answer?.kind === 'created') return queuesOf(task, answer)
  throw new Error(answer?.kind === 'refused' ? answer.detail : `The import ${task.id} was not stored`)
}
