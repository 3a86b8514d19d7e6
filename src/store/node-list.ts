import { type Kysely, sql } from 'kysely'
import type { NodeState } from '../task/ledger.ts'
import type { Tables } from './database/tables.ts'
import { IS_ALIVE, SILENT_AFTER } from './nodes.ts'

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
  /** Kind and vhost; the same on all nodes that live. */
  broker: string
  state: NodeState
}

const COLUMNS = [
  'id',
  'name',
  'version',
  'roles',
  'started_at as startedAt',
  'beat_at as beatAt',
  'broker',
  'state',
] as const
const STATUS = sql<NodeView['status']>`case when dead_at is not null then 'dead' when left_at is not null then 'left'
  when beat_at < now() - ${sql.raw(SILENT_AFTER)} then 'dead' else 'alive' end`

/** Nodes, the newest first; those after the id `after`. */
export async function listNodes(db: Kysely<Tables>, limit: number, after?: string): Promise<NodeView[]> {
  let query = db.selectFrom('nodes').select(COLUMNS).select(STATUS.as('status')).orderBy('id', 'desc').limit(limit)
  if (after !== undefined) query = query.where('id', '<', after)
  return (await query.execute()) as unknown as NodeView[]
}

/** The nodes that live. */
export async function livingNodes(db: Kysely<Tables>): Promise<NodeView[]> {
  const query = db.selectFrom('nodes').select(COLUMNS).select(STATUS.as('status')).where(STATUS, '=', 'alive')
  return (await query.orderBy('id').execute()) as unknown as NodeView[]
}

/** Slots and outcomes per second of each queue, summed over the nodes that live, but `except`. */
export async function workOfQueues(
  db: Kysely<Tables>,
  except: string | null = null,
): Promise<Map<string, { slots: number; rate: number }>> {
  const { rows } = await sql<{ queue: string; slots: number; rate: number }>`
    select c ->> 'queue' as queue, sum((c ->> 'concurrency')::int)::int as slots, sum((c ->> 'rate')::float8) as rate
    from nodes n cross join jsonb_array_elements(coalesce(n.state -> 'consumers', '[]')) as c
    where n.id is distinct from ${except}::uuid and ${sql.raw(IS_ALIVE)}
    group by 1`.execute(db)
  return new Map(rows.map(({ queue, ...work }) => [queue, work]))
}
