import type { Pool, PoolClient } from 'pg'
import { v7 as uuidv7 } from 'uuid'
import type { BrokerKind } from '../../../task/ledger.ts'
import type { NewTask } from '../../../task/task.ts'
import { exchangeOfLine, lineOf } from '../../../task/topology/exchange.ts'
import type { BindingOrder, ExchangeOrder } from '../../../task/topology/topology.ts'
import { prepared } from '../../database/statement.ts'
import { type ExchangeRows, readExchanges } from './exchange-rows.ts'
import {
  type Answers,
  CREATED_COLUMNS,
  type Created,
  type CreatedRow,
  deletedMeanwhile,
  insertValues,
  mismatch,
  type Placed,
  type Refused,
} from './insert-rows.ts'

/** What storing a task needs that is addressed to an exchange. */
export interface Addressing {
  /** The queues that get a message with this routing key. */
  route(exchange: Pick<ExchangeOrder, 'name' | 'type'>, routingKey: string, bindings: readonly BindingOrder[]): string[]
  /**
   * `in-process`: a fan-out's children wait in their queues, and it waits for them. `rabbitmq`: it waits to be published to
   * its exchange, and its children are queued by that.
   */
  broker: BrokerKind
}

/** A task that names its exchange. */
type Addressed = NewTask & { exchange: string }

interface PlacedTask {
  task: Addressed
  /** The one bound queue, or the exchange's line. */
  queue: string
  children: Placed['children']
}

/** Splits off the tasks that are addressed to an exchange. */
export function byAddress(tasks: NewTask[]): { plain: NewTask[]; addressed: Addressed[] } {
  const isAddressed = (task: NewTask): task is Addressed => typeof task.exchange === 'string'
  return { plain: tasks.filter((task) => !isAddressed(task)), addressed: tasks.filter(isAddressed) }
}

/**
 * Inserts tasks that are addressed to exchanges, each for itself, where their bindings lead now: into the one queue that is
 * bound, or as a parent with a child for each of several, in one statement. `written` are those that this call inserted.
 */
export async function insertAddressed(
  tx: Pool | PoolClient,
  node: string,
  tasks: Addressed[],
  addressing: Addressing,
): Promise<{ answers: Answers; written: NewTask[] }> {
  const answers: Answers = new Map()
  const written: NewTask[] = []
  let left = tasks
  // A bound queue may be deleted before its task is stored, and a conflicting task before it is read: once more, then.
  while (left.length > 0) {
    const placed = await place(tx, left, addressing, answers)
    if (placed.length === 0) break
    const rows = await insertPlaced(tx, node, placed, addressing.broker)
    for (const { task, children } of placed) {
      const row = rows.get(task.id)
      if (!row) continue
      const { total, ...created } = row
      if (total === children.length) answers.set(task.id, createdAnswer({ ...created, children }))
      // One of the bound queues is gone since its binding was read.
      else for (const [id, answer] of await placedTasks(tx, [task])) answers.set(id, answer)
      written.push(task)
    }
    const missing = placed.filter(({ task }) => !rows.has(task.id))
    left = missing.length === 0 ? [] : await resolveMissing(tx, missing, answers)
  }
  return { answers, written }
}

/** Where the tasks go by the bindings of this moment; those that go nowhere are refused. */
async function place(
  tx: Pool | PoolClient,
  tasks: Addressed[],
  { route }: Addressing,
  answers: Answers,
): Promise<PlacedTask[]> {
  const exchanges = await readExchanges(
    tx,
    tasks.map(({ exchange }) => exchange),
    tasks.map(({ routingKey }) => routingKey ?? ''),
  )
  return tasks.flatMap((task): PlacedTask[] => {
    const exchange = exchanges.get(task.exchange)
    const queues = exchange ? route(exchange, task.routingKey ?? '', exchange.bindings) : []
    const [queue] = queues
    if (queue === undefined) {
      answers.set(task.id, unroutable(task, exchange))
      return []
    }
    if (queues.length === 1) return [{ task, queue, children: [] }]
    // Children are younger than their parent, by their ids, too: that is the order in which tasks are locked.
    const children = queues.map((name) => ({ id: uuidv7(), queue: name }))
    return [{ task, queue: lineOf(task.exchange), children }]
  })
}

function unroutable({ exchange, routingKey }: Addressed, known: ExchangeRows | undefined): Refused {
  if (!known) {
    const detail = `There is no exchange "${exchange}": create it with PUT /api/v1/exchanges/<name>`
    return { kind: 'refused', code: 'unknown-exchange', field: 'exchange', detail }
  }
  const detail = `No queue is bound to the ${known.type} exchange "${exchange}" for the routing key "${routingKey ?? ''}"`
  return { kind: 'refused', code: 'unroutable', field: 'routingKey', detail }
}

type PlacedRow = CreatedRow & Omit<Placed, 'children'>

const PLACED_COLUMNS = `${CREATED_COLUMNS}, t.queue, t.status, t.sealed, t.started_at as "startedAt"`

/**
 * As INSERT, of the same values. Queues are looked up by the statement itself, so that a parent counts the children that it
 * gets. A fan-out has no work of its own: $23 says whether it has yet to be published.
 */
export const INSERT_ADDRESSED = `
  with given as (
    select i.* from rows from (
      unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::smallint[], $6::timestamptz[], $7::float8[], $8::int[],
        $9::bigint[], $10::text[], $11::text[], $12::uuid[], $13::text[], $16::text[], $17::text[], $18::text[], $19::text[]),
      json_array_elements($14::json)
    ) as i(id, queue, type, target, priority, due_at, delay_ms, max_attempts, timeout_ms, idempotency_key, fingerprint,
      parent_id, origin, traceparent, message, exchange, routing_key, payload)
  ), copies as (
    select c.id, c.parent, c.queue, (q.retry ->> 'maxAttempts')::int as max_attempts
    from unnest($20::uuid[], $21::uuid[], $22::text[]) as c(id, parent, queue) join queues q on q.name = c.queue
  ), totals as (
    select parent, count(*)::int as total from copies group by parent
  ), placed as (
    insert into tasks (id, queue, type, payload, target, priority, due_at, max_attempts, timeout_ms, idempotency_key,
      fingerprint, parent_id, origin, traceparent, exchange, routing_key, message, children_total, status, sealed, started_at)
    select i.id, i.queue, i.type, i.payload, i.target::json, i.priority,
      greatest(now(), coalesce(i.due_at, now() + coalesce(i.delay_ms, 0) * interval '1 ms')),
      coalesce(i.max_attempts, (q.retry ->> 'maxAttempts')::int, 1), i.timeout_ms, i.idempotency_key, i.fingerprint,
      i.parent_id, i.origin, i.traceparent, i.exchange, i.routing_key, i.message::json, coalesce(n.total, 0),
      case when n.total is null or $23 then 'pending' else 'running' end::task_status,
      n.total is not null and not $23, case when n.total is not null and not $23 then now() end
    from given i left join queues q on q.name = i.queue left join totals n on n.parent = i.id
    where q.name is not null or n.total is not null
    order by i.queue, i.idempotency_key, i.id
    on conflict do nothing
    returning *
  ), children as (
    insert into tasks (id, queue, type, payload, target, priority, due_at, max_attempts, timeout_ms, parent_id, origin,
      traceparent, routing_key, message, status)
    select c.id, c.queue, p.type, p.payload, p.target, p.priority, p.due_at, coalesce(i.max_attempts, c.max_attempts),
      p.timeout_ms, p.id, 'child', p.traceparent, p.routing_key, p.message, case when $23 then 'queued' else 'pending' end::task_status
    from copies c join placed p on p.id = c.parent join given i on i.id = p.id
    order by c.id
    returning queue, origin
  ), counted as (
    insert into counters (node, queue, origin, accepted)
    select $15::uuid, queue, origin, count(*)
    from (select queue, origin from placed union all select queue, origin from children) accepted
    group by queue, origin order by queue, origin
    on conflict (node, queue, origin) do update set accepted = counters.accepted + excluded.accepted
  )
  select ${PLACED_COLUMNS}, t.children_total as total from placed t`

async function insertPlaced(tx: Pool | PoolClient, node: string, placed: PlacedTask[], broker: BrokerKind) {
  const tasks = placed.map(({ task, queue }) => ({ ...task, queue }))
  const children = placed.flatMap(({ task, children }) => children.map((child) => ({ ...child, parent: task.id })))
  const rows = await prepared<PlacedRow & { total: number }>(tx, 'insert-addressed', INSERT_ADDRESSED, [
    ...insertValues(node, tasks),
    tasks.map(({ exchange }) => exchange),
    tasks.map(({ routingKey }) => routingKey ?? ''),
    children.map(({ id }) => id),
    children.map(({ parent }) => parent),
    children.map(({ queue }) => queue),
    broker === 'rabbitmq',
  ])
  return new Map(rows.map((row) => [row.id, row]))
}

function createdAnswer(row: PlacedRow & Pick<Placed, 'children'>) {
  const { queue, status, sealed, startedAt, children, ...created } = row
  return { kind: 'created' as const, ...created, placed: { queue, status, sealed, startedAt, children } }
}

const WITH_CHILDREN = `${PLACED_COLUMNS}, (
    select coalesce(jsonb_agg(jsonb_build_object('id', c.id, 'queue', c.queue) order by c.id), '[]')
    from tasks c where c.parent_id = t.id
  ) as children`

/** Those of the tasks that are stored, by their ids. */
async function placedTasks(tx: Pool | PoolClient, tasks: Addressed[]): Promise<Answers> {
  const rows = await prepared<PlacedRow & Pick<Placed, 'children'>>(
    tx,
    'placed-tasks',
    `select ${WITH_CHILDREN} from tasks t where t.id = any($1::uuid[])`,
    [tasks.map(({ id }) => id)],
  )
  return new Map(rows.map((row) => [row.id, createdAnswer(row)]))
}

/**
 * Says why tasks were not inserted; returns those for which there is no reason any more. A key is known by its exchange,
 * wherever its bindings led then, and, where the task goes to one queue, by that queue.
 */
async function resolveMissing(tx: Pool | PoolClient, missing: PlacedTask[], answers: Answers): Promise<Addressed[]> {
  // Ids of our own are there already when this is the repetition of a commit whose answer was lost.
  const own = await placedTasks(
    tx,
    missing.map(({ task }) => task),
  )
  for (const [id, answer] of own) answers.set(id, answer)
  const keyed = missing.filter(({ task }) => !own.has(task.id) && task.idempotencyKey !== null)
  const rows = await prepared<{ task: string; id: string; queue: string; fingerprint: string | null; same: boolean }>(
    tx,
    'resolve-addressed',
    RESOLVE,
    [
      keyed.map(({ task }) => task.id),
      keyed.map(({ task }) => task.exchange),
      keyed.map(({ task }) => task.idempotencyKey),
      keyed.map(({ queue }) => queue),
    ],
  )
  const found = new Map(rows.map((row) => [row.task, row]))
  return missing.flatMap(({ task }) => {
    if (own.has(task.id)) return []
    const first = found.get(task.id)
    if (!first) return [task]
    if (first.same && first.fingerprint === task.fingerprint) answers.set(task.id, { kind: 'existing', id: first.id })
    else answers.set(task.id, mismatch(task, first.id, first.same ? lineOf(task.exchange) : first.queue))
    return []
  })
}

const RESOLVE = `
  select i.id as task, t.id, t.queue, t.fingerprint, t.same
  from unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) as i(id, exchange, key, queue)
    cross join lateral (
      select id, queue, fingerprint, true as same from tasks where exchange = i.exchange and idempotency_key = i.key
      union all
      select id, queue, fingerprint, false from tasks where queue = i.queue and idempotency_key = i.key
      limit 1
    ) t`

/** What became of tasks whose insert was committed, when its answer was lost. */
export async function committedAddressed(pool: Pool, tasks: Addressed[], addressing: Addressing): Promise<Answers> {
  const answers = await placedTasks(pool, tasks)
  const missing = tasks.filter(({ id }) => !answers.has(id))
  // Those that led nowhere were refused then, and are refused now, unless they lead somewhere since.
  const placed = missing.length > 0 ? await place(pool, missing, addressing, answers) : []
  const gone = placed.length > 0 ? await resolveMissing(pool, placed, answers) : []
  if (gone.length > 0) throw deletedMeanwhile()
  return answers
}

/** The queues that got something of a task that was stored. */
export function queuesOf(task: Pick<NewTask, 'queue'>, { placed }: Created): string[] {
  if (!placed) return [task.queue]
  const { queue, status, children } = placed
  // A fan-out that waits to be published wakes its exchange's line; the children of one that runs are to be done.
  return exchangeOfLine(queue) !== undefined && status === 'running' ? children.map((child) => child.queue) : [queue]
}

/** For each queue (or exchange's line) that got tasks, in how many milliseconds the earliest is due. */
export type Woken = Map<string, number>

/** Adds the queues of a task that was stored. */
export function addWoken(woken: Woken, task: Pick<NewTask, 'queue'>, created: Created): void {
  for (const queue of queuesOf(task, created))
    woken.set(queue, Math.min(woken.get(queue) ?? Number.POSITIVE_INFINITY, created.delayMs))
}
