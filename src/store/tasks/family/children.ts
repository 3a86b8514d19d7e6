import type { Pool } from 'pg'
import type { Status } from '../../../task/status.ts'

/** What of a child tells how far it is. */
export interface ChildRow {
  parentId: string
  queue: string
  status: Status
  attempt: number
  failures: number
  createdAt: string
  startedAt: string | null
  finishedAt: string | null
}

/** The children of these parents, which should have few each: the copies of a fan-out, not the records of a file. */
export async function childrenOfParents(pool: Pool, parents: string[]): Promise<Map<string, ChildRow[]>> {
  if (parents.length === 0) return new Map()
  const { rows } = await pool.query<ChildRow>(
    `select t.parent_id as "parentId", t.queue, t.status, t.attempt, t.failures, t.created_at as "createdAt",
       t.started_at as "startedAt", t.finished_at as "finishedAt"
     from tasks t where t.parent_id = any($1::uuid[]) order by t.parent_id, t.created_at, t.id`,
    [parents],
  )
  return Map.groupBy(rows, ({ parentId }) => parentId)
}
