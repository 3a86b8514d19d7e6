import { type Kysely, sql } from 'kysely'
import { OVERDUE, type OverdueReason } from './accounting.ts'
import type { Tables } from './database/tables.ts'
import { SILENT_AFTER } from './nodes.ts'

/*
 * What `longshore doctor` asks: each answer is small, however large the ledger is, and changes nothing.
 */

type Db = Kysely<Tables>

/** How far the server's clock is before ours, and how well that is known. Milliseconds. */
export async function clockSkew(db: Db): Promise<{ skewMs: number; uncertainMs: number }> {
  const asked = Date.now()
  const { rows } = await sql<{ now: number }>`
    select (extract(epoch from clock_timestamp()) * 1000)::float8 as now`.execute(db)
  const answered = Date.now()
  return { skewMs: (rows[0]?.now ?? Number.NaN) - (asked + answered) / 2, uncertainMs: (answered - asked) / 2 }
}

const LEDGER_TABLES = Object.keys({
  ...{ tasks: true, queues: true, exchanges: true, bindings: true, consumers: true, tokens: true, locks: true },
  ...{ nodes: true, counters: true, keys: true, settings: true, schedules: true, fires: true, events: true },
  ...{ sources: true, files: true, rejects: true },
} satisfies Record<keyof Tables, true>)

/** What this user may not do: `create` in the schema, or `select`, `insert`, `update`, `delete` on a table. */
export async function missingRights(db: Db): Promise<{ user: string; missing: { right: string; on: string }[] }> {
  const { rows } = await sql<{ user: string; right: string | null; on: string }>`
    select current_user as user, right_name as right, on_what as "on" from (
      select 'create' as right_name, coalesce(current_schema(), 'public') as on_what
      where not coalesce(has_schema_privilege(current_schema(), 'create'), false)
      union all
      select lower(p), t from unnest(${LEDGER_TABLES}::text[]) as t, unnest(array['SELECT','INSERT','UPDATE','DELETE']) as p
      where to_regclass(t) is not null and not has_table_privilege(to_regclass(t), p)
    ) as missing right join (select 1) as one on true`.execute(db)
  return {
    user: rows[0]?.user ?? '',
    missing: rows.flatMap(({ right, on }) => (right === null ? [] : [{ right, on }])),
  }
}

/** Tasks of a queue that wait although they were due a minute ago, and for how long the oldest does. */
export interface Overdue {
  queue: string
  reason: OverdueReason
  tasks: number
  oldestMs: number
}

export async function overdueTasks(db: Db): Promise<Overdue[]> {
  const { rows } = await sql<Overdue>`
    select queue, reason, tasks, (extract(epoch from now() - oldest) * 1000)::float8 as "oldestMs"
    from (${OVERDUE}) overdue order by tasks desc limit 100`.execute(db)
  return rows
}

/** Nodes that are gone while the ledger still shows tasks in their hands. */
export async function goneNodesWithWork(db: Db): Promise<{ name: string; tasks: number }[]> {
  const { rows } = await sql<{ name: string; tasks: number }>`
    select coalesce(n.name, t.node::text) as name, count(*) as tasks
    from tasks t left join nodes n on n.id = t.node
    where t.status = 'running' and t.node is not null and not t.sealed
      and (n.id is null or n.dead_at is not null or n.left_at is not null or n.beat_at < now() - ${sql.raw(SILENT_AFTER)})
    group by 1 order by 2 desc limit 100`.execute(db)
  return rows
}

/** Queues that nothing consumes, with the live tasks in them. */
export async function unconsumedQueues(db: Db): Promise<{ queue: string; tasks: number }[]> {
  const { rows } = await sql<{ queue: string; tasks: number }>`
    select q.name as queue,
      (select count(*) from tasks t where t.queue = q.name and t.status in ('pending', 'retrying')) as tasks
    from queues q where not exists (select from consumers c where c.queue = q.name)
    order by 2 desc, 1 limit 100`.execute(db)
  return rows
}

/** How Postgres keeps a table clean. */
export interface TableCare {
  table: string
  /** Where autovacuum is switched off, if it is. */
  off: 'server' | 'table' | null
  live: number
  dead: number
}

export async function tableCare(db: Db): Promise<TableCare[]> {
  const { rows } = await sql<TableCare>`
    select c.relname as "table", s.n_live_tup as live, s.n_dead_tup as dead,
      case when not current_setting('autovacuum')::bool then 'server'
        when c.reloptions && array['autovacuum_enabled=false', 'autovacuum_enabled=off'] then 'table' end as off
    from pg_class c join pg_stat_user_tables s on s.relid = c.oid
    where c.oid = any (select to_regclass(t) from unnest(${LEDGER_TABLES}::text[]) as t)
    order by s.n_dead_tup desc`.execute(db)
  return rows
}

/** Whether the ledger knows this key's id. */
export async function knowsKey(db: Db, id: string): Promise<boolean> {
  return (await db.selectFrom('keys').select('id').where('id', '=', id).executeTakeFirst()) !== undefined
}
