import type { Pool, PoolClient } from 'pg'
import { Problem, type ProblemCode } from '../../../runtime/errors.ts'
import type { Status } from '../../../task/status.ts'
import type { NewTask } from '../../../task/task.ts'
import { exchangeOfLine } from '../../../task/topology/exchange.ts'
import { prepared } from '../../database/statement.ts'

/** What the database added to a task that was created. */
export interface Created {
  kind: 'created'
  id: string
  /** RFC 3339, UTC, milliseconds; by Postgres's clock, like `dueAt`. */
  createdAt: string
  dueAt: string
  maxAttempts: number
  /** Milliseconds until it is due; 0 for now. */
  delayMs: number
  /** Of a task that was addressed to an exchange. */
  placed?: Placed
}

/** Where a task went that was addressed to an exchange. */
export interface Placed {
  /** The one bound queue, or the exchange's line (`lineOf`). */
  queue: string
  status: Status
  /** Its own work, of which a fan-out has none, is done: it waits for its children. */
  sealed: boolean
  startedAt: string | null
  /** One for each bound queue, where they are several. */
  children: { id: string; queue: string }[]
}

/** Why a task was not stored; `field` is the field of the submission that is wrong. */
export interface Refused {
  kind: 'refused'
  code: Extract<
    ProblemCode,
    'unknown-queue' | 'unknown-exchange' | 'unroutable' | 'unknown-parent' | 'parent-final' | 'idempotency-mismatch'
  >
  field: 'queue' | 'exchange' | 'routingKey' | 'parentId' | 'idempotencyKey'
  detail: string
}

/**
 * What became of one task: stored, there already (same idempotency key, same body), or refused. `again`: the one of this
 * batch that has the same key was refused, and nothing speaks against this one: insert it once more.
 */
export type Inserted = Created | { kind: 'existing'; id: string } | Refused | { kind: 'again' }

/** By the task's id. */
export type Answers = Map<string, Inserted>

export type CreatedRow = Omit<Created, 'kind' | 'placed'>

export const CREATED_COLUMNS = `t.id, t.created_at as "createdAt", t.due_at as "dueAt", t.max_attempts as "maxAttempts",
  (greatest(0, extract(epoch from t.due_at - now())) * 1000)::float8 as "delayMs"`

/**
 * The payloads come as one JSON array, whose elements keep their text: that spares escaping them into a Postgres array.
 * Should they be more than the ids (a payload that was no JSON text), the surplus row has no id, and the not-null
 * constraint fails the statement before a payload can reach the wrong task.
 */
export const INSERT = `
  with inserted as (
    insert into tasks (id, queue, type, payload, target, priority, due_at, max_attempts, timeout_ms,
      idempotency_key, fingerprint, parent_id, origin, traceparent, message)
    select i.id, i.queue, i.type, i.payload, i.target::json, i.priority,
      greatest(now(), coalesce(i.due_at, now() + coalesce(i.delay_ms, 0) * interval '1 ms')),
      coalesce(i.max_attempts, (q.retry ->> 'maxAttempts')::int), i.timeout_ms,
      i.idempotency_key, i.fingerprint, i.parent_id, i.origin, i.traceparent, i.message::json
    from rows from (
        unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::smallint[], $6::timestamptz[], $7::float8[],
          $8::int[], $9::bigint[], $10::text[], $11::text[], $12::uuid[], $13::text[], $16::text[], $17::text[]),
        json_array_elements($14::json)
      ) as i(id, queue, type, target, priority, due_at, delay_ms,
        max_attempts, timeout_ms, idempotency_key, fingerprint, parent_id, origin, traceparent, message, payload)
      join queues q on q.name = coalesce(i.queue, (select name from queues limit 1))
    order by i.queue, i.idempotency_key, i.id
    on conflict (queue, idempotency_key) where idempotency_key is not null do nothing
    returning id, queue, origin, created_at, due_at, max_attempts
  ), counted as (
    insert into counters (node, queue, origin, accepted)
    select $15::uuid, queue, origin, count(*) from inserted group by queue, origin order by queue, origin
    on conflict (node, queue, origin) do update set accepted = counters.accepted + excluded.accepted
  )
  select ${CREATED_COLUMNS} from inserted t`

/** Inserts the tasks, each for itself; `written` are those that this call inserted. */
export async function insertRows(
  tx: Pool | PoolClient,
  node: string,
  tasks: NewTask[],
): Promise<{ answers: Answers; written: NewTask[] }> {
  const answers: Answers = new Map()
  const written: NewTask[] = []
  let left = tasks
  // A conflicting task may be deleted before it is read: then its key is free again, and the next round takes it.
  while (left.length > 0) {
    const rows = await prepared<CreatedRow>(tx, 'insert-tasks', INSERT, insertValues(node, left))
    for (const row of rows) answers.set(row.id, { kind: 'created', ...row })
    if (rows.length === left.length) {
      written.push(...left)
      break
    }
    written.push(...left.filter((task) => answers.has(task.id)))
    const missing = left.filter((task) => !answers.has(task.id))
    left = await resolveMissing(tx, missing, answers)
  }
  return { answers, written }
}

/** The parameters of INSERT; statements that insert more go on behind them. */
export function insertValues(node: string, tasks: NewTask[]): unknown[] {
  return [
    tasks.map((task) => task.id),
    tasks.map((task) => task.queue),
    tasks.map((task) => task.type),
    tasks.map((task) => task.target),
    tasks.map((task) => task.priority),
    tasks.map((task) => task.dueAt),
    tasks.map((task) => task.delayMs),
    tasks.map((task) => task.maxAttempts),
    tasks.map((task) => task.timeoutMs),
    tasks.map((task) => task.idempotencyKey),
    tasks.map((task) => task.fingerprint),
    tasks.map((task) => task.parentId),
    tasks.map((task) => task.origin),
    `[${tasks.map((task) => task.payload).join(',')}]`,
    node,
    tasks.map((task) => task.traceparent ?? null),
    tasks.map((task) => task.message ?? null),
  ]
}

/** Says why tasks were not inserted; returns those for which there is no reason any more. */
async function resolveMissing(tx: Pool | PoolClient, missing: NewTask[], answers: Answers): Promise<NewTask[]> {
  type Row = CreatedRow & { task: string; known: boolean; id: string | null; fingerprint: string | null }
  const rows = await prepared<Row>(
    tx,
    'resolve-missing',
    `select i.id as task, q.name is not null as known, t.fingerprint, ${CREATED_COLUMNS}
     from unnest($1::uuid[], $2::text[], $3::text[]) as i(id, queue, key)
       left join queues q on q.name = i.queue
       left join tasks t on t.queue = i.queue and t.idempotency_key = i.key`,
    [missing.map((task) => task.id), missing.map((task) => task.queue), missing.map((task) => task.idempotencyKey)],
  )
  const found = new Map(rows.map((row) => [row.task, row]))
  return missing.filter((task) => {
    const { known, task: _, fingerprint, ...first } = found.get(task.id) as Row
    if (!known) {
      const detail = `There is no queue "${task.queue}": create it with PUT /api/v1/queues/<name>`
      answers.set(task.id, { kind: 'refused', code: 'unknown-queue', field: 'queue', detail })
    } else if (first.id === null) return true
    // The task conflicts with itself when this is the repetition of a commit whose answer was lost.
    else if (first.id === task.id) answers.set(task.id, { kind: 'created', ...first })
    else if (fingerprint === task.fingerprint) answers.set(task.id, { kind: 'existing', id: first.id })
    else answers.set(task.id, mismatch(task, first.id))
    return false
  })
}

/** What became of tasks whose insert was committed, when its answer was lost; of those that are addressed to a queue. */
export async function committedRows(pool: Pool, tasks: NewTask[]): Promise<Answers> {
  const rows = await prepared<CreatedRow>(
    pool,
    'committed-tasks',
    `select ${CREATED_COLUMNS} from tasks t where t.id = any($1::uuid[])`,
    [tasks.map((task) => task.id)],
  )
  const answers: Answers = new Map(rows.map((row) => [row.id, { kind: 'created', ...row }]))
  const missing = tasks.filter((task) => !answers.has(task.id))
  const gone = missing.length > 0 ? await resolveMissing(pool, missing, answers) : []
  // Its key was taken when the others were stored, and the task that had it is deleted since: it may come again.
  if (gone.length > 0) throw deletedMeanwhile()
  return answers
}

export function deletedMeanwhile(): Problem {
  return new Problem('unknown', 'A task with the same idempotencyKey was just deleted: submit again')
}

export function mismatch(task: NewTask, id: string, queue = task.queue): Refused {
  const exchange = exchangeOfLine(queue)
  const where = exchange === undefined ? `on queue "${queue}"` : `at exchange "${exchange}"`
  const detail = `The task "${id}" has the idempotencyKey "${task.idempotencyKey}" ${where} with another body`
  return { kind: 'refused', code: 'idempotency-mismatch', field: 'idempotencyKey', detail }
}
