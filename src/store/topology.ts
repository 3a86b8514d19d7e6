import type { Pool } from 'pg'
import type { Topology } from '../task/topology.ts'

/** Everything that queues and consumers should be, in one snapshot. */
export async function readTopology(pool: Pool): Promise<Topology> {
  const { rows } = await pool.query<Topology>(
    `select
       (select coalesce(jsonb_agg(jsonb_build_object('name', name, 'type', type, 'retry', retry, 'retention', retention,
         'paused', paused)), '[]') from queues) as queues,
       (select coalesce(jsonb_agg(jsonb_build_object('id', id, 'queue', queue, 'target', target, 'concurrency', concurrency,
         'timeoutMs', timeout_ms, 'paused', paused)), '[]') from consumers) as consumers`,
  )
  return rows[0] ?? { queues: [], consumers: [] }
}
