import type { Pool } from 'pg'
import { conditions, NEWEST_FIRST, PLACE_COLUMN, type Place, type TaskFilter } from './filter.ts'
import { LISTED_COLUMNS, type TaskRow } from './read.ts'

/** A task as lists show it. */
export type ListedRow = Omit<TaskRow, 'logs' | 'attempts'>

export interface TaskPage {
  rows: ListedRow[]
  /** Where to read on; undefined at the end. */
  next: Place | undefined
  /** Only of a search in payloads: how many tasks were looked at, and whether that was all that the filter names. */
  search?: { scanned: number; complete: boolean }
}

/** A page ends before it holds more than this of payloads, results and messages, but holds one task at least. */
const PAGE_BYTES = 8 * 1024 * 1024

/** The newest tasks that the filter (but for its payload) names, from `after` on. */
export function listTasks(pool: Pool, filter: TaskFilter, limit: number, after?: Place): Promise<TaskPage> {
  const values: unknown[] = []
  const where = conditions(filter, after, values)
  return readPage(pool, where, limit, values)
}

/** The tasks with these ids, newest first. */
export function listTasksById(pool: Pool, ids: string[]): Promise<TaskPage> {
  return readPage(pool, 't.id = any($1::uuid[])', ids.length, [ids])
}

/** The statement of a page: one row more than `limit` is looked at, to tell whether there is a next page. */
export function pageStatement(where: string, limit: number): string {
  return `
    select * from (
      select page.*, count(*) over () as of,
        sum(octet_length(payload::text) + coalesce(octet_length(result::text), 0)
          + coalesce(octet_length(message::text), 0)) over (order by nth) as bytes
      from (
        select ${LISTED_COLUMNS}, ${PLACE_COLUMN}, row_number() over (order by ${NEWEST_FIRST}) as nth
        from tasks t where ${where} order by ${NEWEST_FIRST} limit ${limit + 1}
      ) page
    ) cut
    where nth <= ${limit} and (nth = 1 or bytes <= ${PAGE_BYTES})
    order by nth`
}

async function readPage(pool: Pool, where: string, limit: number, values: unknown[]): Promise<TaskPage> {
  const { rows } = await pool.query<ListedRow & { place: string; of: number }>(pageStatement(where, limit), values)
  const last = rows.at(-1)
  const more = last !== undefined && last.of > rows.length
  return { rows, next: more ? { createdAt: last.place, id: last.id } : undefined }
}
