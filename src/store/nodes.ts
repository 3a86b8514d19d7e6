import type { Pool } from 'pg'
import { Problem } from '../runtime/errors.ts'
import type { Attempt, Beat, BeatAnswer, NodeState } from '../task/ledger.ts'
import { attemptOf } from '../task/task.ts'
import { inTransaction } from './database/statement.ts'
import { ATTEMPT_COLUMNS, type AttemptRow } from './tasks/claim/known-attempts.ts'

export interface NewNode {
  id: string
  name: string
  version: string
  roles: readonly string[]
  /** Kind and vhost: `in-process`, or `rabbitmq:/`. */
  broker: string
  state: NodeState
  /** The key that a worker without a database came with. */
  key?: string | undefined
}

/** Serialises joins: of two nodes that differ and start at once, one sees the other. */
const JOIN_LOCK = 7_431_012

/**
 * Enters a node into the ledger, alive from now. Its id was never used before (PROTOCOL 5). Rejects with the Problem
 * `conflict` while a living node uses another broker (PROTOCOL 12): what one hands out the other would never see.
 */
export async function joinNode(pool: Pool, node: NewNode): Promise<void> {
  await inTransaction(pool, async (tx) => {
    await tx.query('select pg_advisory_xact_lock($1)', [JOIN_LOCK])
    const { rows } = await tx.query<{ id: string; name: string; broker: string }>(
      `select id, name, broker from nodes n where id <> $1 and broker <> $2 and ${IS_ALIVE} order by id limit 1`,
      [node.id, node.broker],
    )
    const [other] = rows
    if (other) {
      throw new Problem(
        'conflict',
        `The node "${other.name}" (${other.id}) uses the broker ${other.broker}, and this one ${node.broker}: all nodes need the same AMQP_URL. Stop that node first; if it was killed, try again in 15 s.`,
      )
    }
    await tx.query(
      `insert into nodes (id, name, version, roles, broker, state, key_id) values ($1, $2, $3, $4, $5, $6::text::jsonb, $7)
       on conflict (id) do nothing`,
      [node.id, node.name, node.version, node.roles, node.broker, JSON.stringify(node.state), node.key ?? null],
    )
  })
}

/** The key that a worker without a database came with; null for a node, undefined for an id that never joined. */
export async function keyOfNode(pool: Pool, node: string): Promise<string | null | undefined> {
  const { rows } = await pool.query<{ key: string | null }>('select key_id as key from nodes where id = $1', [node])
  return rows[0]?.key
}

/** Notes that a node ended in order; it holds nothing any more, and every publish up to `confirmed` is confirmed. */
export async function leaveNode(pool: Pool, node: string, confirmed = 0): Promise<void> {
  await pool.query(
    'update nodes set left_at = now(), started_tasks = default, confirmed = greatest(confirmed, $2) where id = $1',
    [node, confirmed],
  )
}

/** Without a beat for so long a node counts as dead (PROTOCOL 5); for what is told, not for what is decided. */
export const SILENT_AFTER = "interval '15 s'"

/** Of a row `n` of nodes: it lives, as far as its beats tell. */
export const IS_ALIVE = `n.dead_at is null and n.left_at is null and n.beat_at > now() - ${SILENT_AFTER}`

/** A beat that comes later than this after the one before it begins a new steady time. */
const GAP = "interval '10 s'"

/** Keeps a node alive and reconciles what it holds with what the ledger says (PROTOCOL 3). */
export async function beatNode(pool: Pool, { node, held, started, state, confirmed = 0 }: Beat): Promise<BeatAnswer> {
  const { rowCount } = await pool.query(
    `update nodes set beat_at = now(), started_tasks = $2::uuid[], state = $3::text::jsonb,
       confirmed = greatest(confirmed, $4),
       steady_since = case when beat_at < now() - ${GAP} then now() else steady_since end
     where id = $1 and dead_at is null`,
    [node, started, JSON.stringify(state), confirmed],
  )
  if (rowCount === 0) return { alive: false, cancel: [], unnamed: [], others: 0 }
  const { rows } = await pool.query<AttemptRow & { held: boolean }>(
    `select ${ATTEMPT_COLUMNS}, t.id = any($2::uuid[]) as held from tasks t
     where t.status = 'running' and t.node = $1 and (t.cancel_requested or not t.id = any($2::uuid[]))`,
    [node, held],
  )
  const { rows: others } = await pool.query<{ count: number }>(
    'select count(*)::int as count from nodes where id <> $1 and dead_at is null and left_at is null',
    [node],
  )
  return {
    alive: true,
    cancel: rows.filter((row) => row.held).map((row) => row.id),
    unnamed: rows.filter((row) => !row.held).map(attemptOf),
    others: others[0]?.count ?? 0,
  }
}

/**
 * Marks nodes dead, for good, whose last beat is older than `silentMs` by Postgres's clock; gives their ids. `rescuer` must
 * have beaten for as long itself, without a gap until now: judged in the same statement, because one that a frozen
 * Postgres has held back would find everybody silent.
 */
export async function markSilentNodes(pool: Pool, rescuer: string, silentMs: number): Promise<string[]> {
  const { rows } = await pool.query<{ id: string }>(
    `update nodes set dead_at = now()
     where dead_at is null and left_at is null and beat_at < now() - $2 * interval '1 ms'
       and exists (select from nodes me where me.id = $1 and me.dead_at is null
         and me.beat_at > now() - ${GAP} and me.steady_since <= now() - $2 * interval '1 ms')
     returning id`,
    [rescuer, silentMs],
  )
  return rows.map((row) => row.id)
}

/** A running task whose owner is gone; `started` as its node told last. */
export type Orphan = Attempt & { node: string; started: boolean }

/** Up to `limit` tasks that run on nodes that are dead or left. */
export async function orphanedTasks(pool: Pool, limit: number): Promise<Orphan[]> {
  const { rows } = await pool.query<AttemptRow & { node: string; started: boolean }>(
    `select ${ATTEMPT_COLUMNS}, t.node, t.id = any(n.started_tasks) as started
     from tasks t join nodes n on n.id = t.node
     where t.status = 'running' and (n.dead_at is not null or n.left_at is not null)
     limit $1`,
    [limit],
  )
  return rows.map((row) => ({ ...attemptOf(row), node: row.node, started: row.started }))
}

/** The owner of counters whose nodes are gone, and of what no node has accepted. */
export const GONE = '00000000-0000-0000-0000-000000000000'

/** Folds the counters of nodes that ended over an hour ago into one row a queue and origin, and forgets those nodes after a week. */
export async function foldEndedNodes(pool: Pool): Promise<void> {
  await inTransaction(pool, async (tx) => {
    await tx.query(
      `with folded as (
         delete from counters c using nodes n
         where n.id = c.node and coalesce(n.dead_at, n.left_at) < now() - interval '1 hour'
         returning c.queue, c.origin, c.accepted, c.pruned
       )
       insert into counters (node, queue, origin, accepted, pruned)
       select $1, queue, origin, sum(accepted), sum(pruned) from folded group by queue, origin order by queue, origin
       on conflict (node, queue, origin) do update
       set accepted = counters.accepted + excluded.accepted, pruned = counters.pruned + excluded.pruned`,
      [GONE],
    )
    await tx.query(
      `delete from nodes n where coalesce(n.dead_at, n.left_at) < now() - interval '7 days'
       and not exists (select from tasks t where t.status = 'running' and t.node = n.id)
       and not exists (select from counters c where c.node = n.id)`,
    )
  })
}
