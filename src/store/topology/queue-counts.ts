import { type Kysely, sql } from 'kysely'
import type { Tables } from '../database/tables.ts'

/** A queue in numbers, as of now. */
export interface QueueCounts {
  name: string
  /** Tasks that wait here, due or not: pending, retrying. */
  waiting: number
  /** Tasks that wait in the broker. */
  queued: number
  running: number
  consumers: number
}

/** Every queue by name, or the one that is asked for, counted in one snapshot. */
export async function queueCounts(db: Kysely<Tables>, name?: string): Promise<QueueCounts[]> {
  const only = name === undefined ? sql`` : sql`where q.name = ${name}`
  const { rows } = await sql<QueueCounts>`
    select q.name,
      (select count(*) from tasks t where t.queue = q.name and t.status in ('pending', 'retrying')) as waiting,
      (select count(*) from tasks t where t.queue = q.name and t.status = 'queued') as queued,
      (select count(*) from tasks t where t.queue = q.name and t.status = 'running') as running,
      (select count(*) from consumers c where c.queue = q.name) as consumers
    from queues q ${only}
    order by q.name collate "C"`.execute(db)
  return rows
}
