import type { Origin, Status } from '../../../task/status.ts'

/** Which tasks are meant; a missing field means any. */
export interface TaskFilter {
  status?: Status[] | undefined
  queue?: string | undefined
  type?: string | undefined
  parentId?: string | undefined
  origin?: Origin | undefined
  /** RFC 3339: created then or later. */
  createdAfter?: string | undefined
  /** JSON text that the payload contains (jsonb's @>). */
  payload?: string | undefined
}

/** A task's place in the order of lists, newest first. */
export interface Place {
  /** RFC 3339 with microseconds: what Postgres stores, so that none is passed over. */
  createdAt: string
  id: string
}

/** `created_at` of the table `t` as a Place holds it. */
export const PLACE_COLUMN = `to_char(t.created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as place`

/** Newest first. */
export const NEWEST_FIRST = 't.created_at desc, t.id desc'

/** The filter (but for its payload) and the place to read on from, as SQL on the table `t`; its values are pushed to `values`. */
export function conditions(filter: TaskFilter, after: Place | undefined, values: unknown[]): string {
  const value = (given: unknown) => `$${values.push(given)}`
  const found: string[] = []
  if (filter.status) {
    // One status by equality: only then the index gives the order, too.
    const one = filter.status.length === 1
    found.push(
      one
        ? `t.status = ${value(filter.status[0])}::task_status`
        : `t.status = any(${value(filter.status)}::task_status[])`,
    )
  }
  if (filter.queue !== undefined) found.push(`t.queue = ${value(filter.queue)}`)
  if (filter.type !== undefined) found.push(`t.type = ${value(filter.type)}`)
  if (filter.parentId !== undefined) found.push(`t.parent_id = ${value(filter.parentId)}::uuid`)
  if (filter.origin !== undefined) found.push(`t.origin = ${value(filter.origin)}`)
  if (filter.createdAfter !== undefined) found.push(`t.created_at >= ${value(filter.createdAfter)}::timestamptz`)
  if (after) found.push(`(t.created_at, t.id) < (${value(after.createdAt)}::timestamptz, ${value(after.id)}::uuid)`)
  return found.length === 0 ? 'true' : found.join(' and ')
}
