import { type Kysely, sql } from 'kysely'
import type { NodeState } from '../task/ledger.ts'
import { SILENT_AFTER } from './nodes.ts'
import type { Tables } from './tables.ts'

/** A node as it is shown. */
export interface NodeView {
  id: string
  name: string
  version: string
  roles: string[]
  startedAt: string
  beatAt: string
  /** `dead`: declared so, or its last beat is 15 s old. */
  status: 'alive' | 'dead' | 'left'
  state: NodeState
}

/** Nodes, the newest first; those after the id `after`. */
export async function listNodes(db: Kysely<Tables>, limit: number, after?: string): Promise<NodeView[]> {
  let query = db
    .selectFrom('nodes')
    .select(['id', 'name', 'version', 'roles', 'started_at as startedAt', 'beat_at as beatAt', 'state'])
    .select(
      sql<NodeView['status']>`case when dead_at is not null then 'dead' when left_at is not null then 'left'
        when beat_at < now() - ${sql.raw(SILENT_AFTER)} then 'dead' else 'alive' end`.as('status'),
    )
    .orderBy('id', 'desc')
    .limit(limit)
  if (after !== undefined) query = query.where('id', '<', after)
  return (await query.execute()) as unknown as NodeView[]
}

/** Outcomes per second of each queue, summed over the nodes that live. */
export async function queueRates(db: Kysely<Tables>): Promise<Map<string, number>> {
  const { rows } = await sql<{ queue: string; rate: number }>`
    select c ->> 'queue' as queue, sum((c ->> 'rate')::float8) as rate
    from nodes n cross join jsonb_array_elements(coalesce(n.state -> 'consumers', '[]')) as c
    where n.dead_at is null and n.left_at is null and n.beat_at > now() - ${sql.raw(SILENT_AFTER)}
    group by 1`.execute(db)
  return new Map(rows.map(({ queue, rate }) => [queue, rate]))
}
