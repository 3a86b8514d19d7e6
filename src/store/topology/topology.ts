import type { Pool } from 'pg'
import type { Topology } from '../../task/topology/topology.ts'
import { EXCHANGE_VERSION } from '../tasks/insert/exchange-rows.ts'

/** Everything that queues, exchanges, bindings and consumers should be, in one snapshot. */
export async function readTopology(pool: Pool): Promise<Topology> {
  const { rows } = await pool.query<Topology>(
    `select
       (select coalesce(jsonb_agg(jsonb_build_object('name', name, 'type', type, 'maxPriority', max_priority, 'retry', retry,
         'window', window_size, 'settlement', settlement, 'retention', retention, 'deadLetter', dead_letter,
         'order', dispatch_order, 'reportWithinMs', report_within_ms, 'paused', paused, 'conflict', conflict)), '[]')
        from queues) as queues,
       (select coalesce(jsonb_agg(jsonb_build_object('name', name, 'type', type, 'conflict', conflict,
          'version', ${EXCHANGE_VERSION})), '[]')
        from exchanges x) as exchanges,
       (select coalesce(jsonb_agg(jsonb_build_object('exchange', exchange, 'queue', queue, 'routingKey', routing_key)), '[]')
        from bindings) as bindings,
       (select coalesce(jsonb_agg(jsonb_build_object('id', id, 'queue', queue, 'target', target, 'concurrency', concurrency,
         'timeoutMs', timeout_ms, 'paused', paused, 'rateLimit', rate_limit)), '[]') from consumers) as consumers`,
  )
  return rows[0] ?? { queues: [], exchanges: [], bindings: [], consumers: [] }
}
