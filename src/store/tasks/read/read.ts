import type { Selectable } from 'kysely'
import type { Pool } from 'pg'
import type { NodeState } from '../../../task/ledger.ts'
import type { NewTask } from '../../../task/task.ts'
import { lineOf } from '../../../task/topology/exchange.ts'
import type { Situation, WaitingQueue } from '../../../task/waiting-for.ts'
import { prepared } from '../../database/statement.ts'
import type { TasksTable } from '../../database/tables.ts'
import { IS_ALIVE } from '../../nodes.ts'
import type { Created } from '../insert/insert-rows.ts'

/** A task as a reader sees it. */
export type TaskRow = Omit<
  Selectable<TasksTable>,
  'claim_id' | 'fingerprint' | 'attempts' | 'report_by' | 'traceparent' | 'publisher' | 'publish_no'
> & {
  attempts: AttemptRecord[]
}

/** One ended attempt as it stands in its task's row. */
export interface AttemptRecord {
  number: number
  node: string | null
  startedAt: string | null
  finishedAt: string | null
  outcome: string
  error: string | null
  response: { status: number; body: string } | null
}

/** All columns of a TaskRow but `logs` and `attempts`, which lists leave out. */
export const LISTED_COLUMNS = `t.id, t.queue, t.type, t.payload, t.target, t.status, t.priority, t.due_at, t.attempt, t.failures,
  t.max_attempts, t.lost_starts, t.timeout_ms, t.idempotency_key, t.parent_id, t.origin, t.node, t.cancel_requested,
  t.foreign_owner, t.sealed, t.children_total, t.children_succeeded, t.children_dead, t.result, t.error, t.progress,
  t.exchange, t.routing_key, t.message, t.created_at, t.started_at, t.finished_at`

/** The task, or undefined when there is none (any more). */
export async function readTask(pool: Pool, id: string): Promise<TaskRow | undefined> {
  const rows = await prepared<TaskRow>(
    pool,
    'read-task',
    `select ${LISTED_COLUMNS}, t.logs, t.attempts from tasks t where t.id = $1`,
    [id],
  )
  return rows[0]
}

/** The row of a task that was created just now, without reading it back. */
export function createdRow(task: NewTask, created: Created): TaskRow {
  const { placed } = created
  return {
    id: task.id,
    queue: placed?.queue ?? task.queue,
    type: task.type,
    payload: task.payload,
    target: task.target,
    status: placed?.status ?? 'pending',
    priority: task.priority,
    due_at: created.dueAt,
    attempt: 0,
    failures: 0,
    max_attempts: created.maxAttempts,
    lost_starts: 0,
    timeout_ms: task.timeoutMs,
    idempotency_key: task.idempotencyKey,
    parent_id: task.parentId,
    origin: task.origin,
    node: null,
    cancel_requested: false,
    foreign_owner: null,
    sealed: placed?.sealed ?? false,
    children_total: placed?.children.length ?? 0,
    children_succeeded: 0,
    children_dead: 0,
    result: null,
    error: null,
    progress: null,
    exchange: task.exchange ?? null,
    routing_key: task.routingKey ?? null,
    message: task.message ?? null,
    logs: null,
    attempts: [],
    created_at: created.createdAt,
    started_at: placed?.startedAt ?? null,
    finished_at: null,
  }
}

/** The queues of these tasks, and the lines of the exchanges that they were addressed to. */
export function placesOf(tasks: Pick<TaskRow, 'queue' | 'exchange'>[]): string[] {
  return [...new Set(tasks.flatMap(({ queue, exchange }) => (exchange === null ? queue : [queue, lineOf(exchange)])))]
}

/** What stands around the tasks of `queues` and exchanges' lines (all of them without): these, their consumers, the living nodes, and Postgres's time. */
export async function readSituation(pool: Pool, queues?: string[]): Promise<Situation> {
  const [about, nodes] = await Promise.all([
    prepared<WaitingQueue & { name: string }>(
      pool,
      'read-situation',
      `select q.name, q.paused, q.conflict, q.settlement, coalesce(c.consumers, '[]') as consumers
       from queues q left join lateral (
         select jsonb_agg(jsonb_build_object('paused', c.paused, 'concurrency', c.concurrency)) as consumers
         from consumers c where c.queue = q.name
       ) c on true
       where $1::text[] is null or q.name = any($1)
       union all
       select $2 || x.name, false, x.conflict, 'outcome', '[]'
       from exchanges x where $1::text[] is null or $2 || x.name = any($1)`,
      [queues ?? null, lineOf('')],
    ),
    prepared<{ id: string | null; state: NodeState | null; now: string }>(
      pool,
      'read-living-nodes',
      // The outer join answers with the time even when no node lives.
      `select now() as now, n.id, n.state from (values (1)) as one(row)
         left join nodes n on ${IS_ALIVE}`,
      [],
    ),
  ])
  return {
    now: nodes[0]?.now ?? '',
    queues: new Map(about.map(({ name, ...queue }) => [name, queue])),
    nodes: new Map(nodes.flatMap(({ id, state }) => (id && state ? [[id, state] as const] : []))),
  }
}
