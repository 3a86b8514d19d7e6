import type { Pool } from 'pg'
import { type Clock, realClock } from '../../../runtime/clock.ts'
import { inTransaction } from '../../database/statement.ts'
import { conditions, NEWEST_FIRST, PLACE_COLUMN, type Place, type TaskFilter } from './filter.ts'
import { listTasksById, type TaskPage } from './list.ts'

/** How far one search goes. */
export interface SearchBounds {
  rows: number
  ms: number
  clock?: Clock
}

export const SEARCH_BOUNDS: SearchBounds = { rows: 50_000, ms: 2_000 }

const FIRST_CHUNK = 100
const MAX_CHUNK = 10_000
/** A chunk that took less is followed by one twice as large. */
const QUICK_MS = 200

export interface Found {
  hits: Place[]
  scanned: number
  /** All that the filter names was looked at. */
  complete: boolean
  /** The last task that was looked at. */
  reached: Place | undefined
}

/**
 * The newest tasks of the filter whose payload contains `filter.payload`. No index helps here, so the search is bounded in
 * rows and time: `search` says how far it went, and `next` goes on from there.
 */
export async function searchTasks(
  pool: Pool,
  filter: TaskFilter,
  limit: number,
  after?: Place,
  bounds: SearchBounds = SEARCH_BOUNDS,
): Promise<TaskPage> {
  const { hits, scanned, complete, reached } = await findByPayload(pool, filter, limit + 1, after, bounds)
  const shown = hits.slice(0, limit)
  const page =
    shown.length > 0
      ? await listTasksById(
          pool,
          shown.map(({ id }) => id),
        )
      : { rows: [], next: undefined }
  const rest = hits.length > limit ? shown.at(-1) : complete ? undefined : (reached ?? after)
  return { rows: page.rows, next: page.next ?? rest, search: { scanned, complete: complete && hits.length <= limit } }
}

/** Looks through payloads, newest first, until `limit` are found or a bound is reached. */
export async function findByPayload(
  pool: Pool,
  filter: TaskFilter,
  limit: number,
  after: Place | undefined,
  { rows: maxRows, ms, clock = realClock }: SearchBounds,
): Promise<Found> {
  const deadline = clock.now() + ms
  const found: Found = { hits: [], scanned: 0, complete: false, reached: after }
  let size = FIRST_CHUNK
  while (found.scanned < maxRows && found.hits.length < limit) {
    const startedAt = clock.now()
    const left = Math.floor(deadline - startedAt)
    if (left <= 0) return found
    const wanted = Math.min(size, maxRows - found.scanned)
    const chunk = await readChunk(pool, filter, found.reached, wanted, left)
    if (chunk === 'too-slow') return found
    for (const { id, place, hit } of chunk) {
      found.scanned += 1
      found.reached = { createdAt: place, id }
      if (hit) found.hits.push(found.reached)
      if (found.hits.length === limit) return found
    }
    if (chunk.length < wanted) return { ...found, complete: true }
    if (clock.now() - startedAt < QUICK_MS) size = Math.min(size * 2, MAX_CHUNK)
  }
  return found
}

async function readChunk(pool: Pool, filter: TaskFilter, after: Place | undefined, rows: number, withinMs: number) {
  const values: unknown[] = [filter.payload]
  const where = conditions(filter, after, values)
  try {
    return await inTransaction(pool, async (tx) => {
      await tx.query(`set local statement_timeout to ${withinMs}`)
      const read = await tx.query<{ id: string; place: string; hit: boolean }>(
        `select t.id, ${PLACE_COLUMN}, t.payload::jsonb @> $1::jsonb as hit
         from tasks t where ${where} order by ${NEWEST_FIRST} limit ${rows}`,
        values,
      )
      return read.rows
    })
  } catch (error) {
    // The statement timeout is this search's own bound.
    if ((error as { code?: string }).code === '57014') return 'too-slow'
    throw error
  }
}

/** The places of the newest tasks that the whole filter names: exact without a payload in it, else as `findByPayload`. */
export async function findTasks(
  pool: Pool,
  filter: TaskFilter,
  limit: number,
  after?: Place,
  bounds: SearchBounds = SEARCH_BOUNDS,
): Promise<Found> {
  if (filter.payload !== undefined) return findByPayload(pool, filter, limit, after, bounds)
  const values: unknown[] = []
  const where = conditions(filter, after, values)
  const { rows } = await pool.query<{ id: string; place: string }>(
    `select t.id, ${PLACE_COLUMN} from tasks t where ${where} order by ${NEWEST_FIRST} limit ${limit}`,
    values,
  )
  const hits = rows.map(({ id, place }) => ({ createdAt: place, id }))
  return { hits, scanned: hits.length, complete: hits.length < limit, reached: hits.at(-1) ?? after }
}
