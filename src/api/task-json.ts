import { Type } from '@sinclair/typebox'
import { formatDuration } from '../runtime/duration.ts'
import type { AttemptRecord, TaskRow } from '../store/tasks/read/read.ts'
import { ORIGINS, STATUSES } from '../task/status.ts'
import { type Target, withoutSecret } from '../task/target/target.ts'
import { CAUSES, type Situation, waitingFor } from '../task/waiting-for.ts'
import { Nullable, OneOf, Time } from './openapi/schema-words.ts'

type Shown = Omit<TaskRow, 'logs' | 'attempts'> & Partial<Pick<TaskRow, 'logs' | 'attempts'>>

/**
 * The task as JSON text. Payload, result and progress go out as the text that is stored, never parsed. Rows without `logs`
 * and `attempts` (of lists) are shown without them; without a situation nobody can say what a task waits for (null).
 */
export function taskJson(row: Shown, situation: Situation | undefined): string {
  const final = row.children_succeeded + row.children_dead
  const fields: [string, string][] = [
    ['id', text(row.id)],
    ['queue', text(row.queue)],
    ['type', text(row.type)],
    ['payload', row.payload],
    ['status', text(row.status)],
    ['priority', String(row.priority)],
    ['dueAt', text(row.due_at)],
    ['attempt', String(row.attempt)],
    ['failures', String(row.failures)],
    ['maxAttempts', String(row.max_attempts)],
    ['timeout', text(row.timeout_ms === null ? null : formatDuration(row.timeout_ms))],
    ['idempotencyKey', text(row.idempotency_key)],
    ['parentId', text(row.parent_id)],
    ['origin', text(row.origin)],
    ['exchange', text(row.exchange)],
    ['routingKey', text(row.routing_key)],
    ['target', row.target === null ? 'null' : text(withoutSecret(JSON.parse(row.target) as Target))],
    ['result', row.result ?? 'null'],
    ['error', text(row.error)],
    ['progress', row.progress ?? 'null'],
    ['message', row.message ?? 'null'],
    ['createdAt', text(row.created_at)],
    ['startedAt', text(row.started_at)],
    ['finishedAt', text(row.finished_at)],
    ['waitingFor', text(situation ? waiting(row, final, situation) : null)],
    ['children', text(children(row, final))],
  ]
  if (row.logs !== undefined) fields.push(['logs', text(row.logs ?? [])])
  if (row.attempts !== undefined) fields.push(['attempts', text(row.attempts.map(attempt))])
  return `{${fields.map(([name, value]) => `"${name}":${value}`).join(',')}}`
}

const text = (value: unknown): string => JSON.stringify(value)

function waiting(row: Shown, childrenFinal: number, situation: Situation) {
  return waitingFor(
    {
      queue: row.queue,
      status: row.status,
      dueAt: row.due_at,
      failures: row.failures,
      maxAttempts: row.max_attempts,
      node: row.node,
      childrenTotal: row.children_total,
      childrenFinal,
      sealed: row.sealed,
      exchange: row.attempt === 0 ? row.exchange : null,
    },
    situation,
  )
}

function children(row: Shown, final: number) {
  if (row.children_total === 0) return null
  const { children_total: total, children_succeeded: succeeded, children_dead: dead } = row
  return { total, succeeded, dead, live: total - final }
}

/** jsonb orders fields by their length, and writes times in Postgres's way. */
function attempt({ number, node, startedAt, finishedAt, outcome, error, response }: AttemptRecord) {
  return {
    number,
    node,
    startedAt: time(startedAt),
    finishedAt: time(finishedAt),
    outcome,
    error,
    response: response ?? null,
  }
}

function time(stored: string | null): string | null {
  return stored === null ? null : new Date(stored).toISOString()
}

const Uuid = (description: string) => Type.String({ format: 'uuid', description })

const listed = {
  id: Uuid('UUIDv7'),
  queue: Type.String(),
  type: Nullable(Type.String()),
  payload: Type.Any({ description: 'The JSON that was submitted, as the very text' }),
  status: OneOf(STATUSES, 'succeeded, dead and cancelled are final'),
  priority: Type.Integer({ minimum: 0, maximum: 9 }),
  dueAt: Time('Not started before'),
  attempt: Type.Integer({ description: 'Number of the last attempt; 0 before the first' }),
  failures: Type.Integer({ description: 'Attempts that failed' }),
  maxAttempts: Type.Integer({ description: 'Failures after which it is dead' }),
  timeout: Nullable(Type.String({ description: "Longest attempt; null: the consumer's" })),
  idempotencyKey: Nullable(Type.String()),
  parentId: Nullable(Uuid('The task whose child it is')),
  origin: OneOf(ORIGINS, 'Where it came from'),
  exchange: Nullable(Type.String({ description: 'The exchange that it was addressed to; null: its queue' })),
  routingKey: Nullable(Type.String({ description: 'With which routing key' })),
  target: Nullable(Type.Any({ description: "Where it is delivered, without secrets; null: the consumer's target" })),
  result: Type.Any({ description: 'What the target gave back; null before' }),
  error: Nullable(Type.String({ description: 'Of the last attempt that did not succeed' })),
  progress: Nullable(Type.Any({ description: '{ done, total, message } as the running target told last' })),
  message: Nullable(
    Type.Object(
      {
        unreadable: Type.Optional(
          Type.Literal(true, { description: 'Its bytes are no payload: mend the task before it is replayed' }),
        ),
        body: Type.Optional(Type.String({ description: 'Its bytes (base64), where the payload is not all of it' })),
        exchange: Type.String(),
        routingKey: Type.String(),
        properties: Type.Any({ description: 'As AMQP names them' }),
        headers: Type.Any(),
      },
      {
        description:
          'The message that this task came as, or that was sent to its queue with headers; null for all others',
      },
    ),
  ),
  createdAt: Time('When it was accepted'),
  startedAt: Nullable(Time('When the last attempt started')),
  finishedAt: Nullable(Time('When it became final')),
  waitingFor: Nullable(
    Type.Object(
      {
        cause: OneOf(CAUSES, 'The first that holds'),
        detail: Type.String(),
        until: Type.Optional(Time('When the wait ends by itself')),
      },
      { description: 'Why a live task is not running; null when it runs or is final' },
    ),
  ),
  children: Nullable(
    Type.Object({ total: Type.Integer(), succeeded: Type.Integer(), dead: Type.Integer(), live: Type.Integer() }),
  ),
}

/** A task as lists show it: whole, but for its logs and attempts. */
export const ListedTaskSchema = Type.Object(listed, {
  description: 'A task; its logs and attempts are shown when it is read by id',
})

export const TaskSchema = Type.Object(
  {
    ...listed,
    logs: Type.Array(Type.String(), { description: 'The last 100 lines' }),
    attempts: Type.Array(
      Type.Object({
        number: Type.Integer(),
        node: Nullable(Type.String()),
        startedAt: Nullable(Type.String({ format: 'date-time' })),
        finishedAt: Nullable(Type.String({ format: 'date-time' })),
        outcome: Type.String(),
        error: Nullable(Type.String()),
        response: Nullable(Type.Object({ status: Type.Integer(), body: Type.String() })),
      }),
      { description: 'The last 20 that ended' },
    ),
  },
  { description: 'A task' },
)

export const LISTED_EXAMPLE = {
  id: '019b7a3e-5c00-7000-8000-000000000001',
  queue: 'default',
  type: 'invoice.created',
  payload: { invoice: 1042, total: 99.5 },
  status: 'pending',
  priority: 0,
  dueAt: '2026-01-01T00:15:00.000Z',
  attempt: 0,
  failures: 0,
  maxAttempts: 10,
  timeout: null,
  idempotencyKey: 'invoice-1042',
  parentId: null,
  origin: 'api',
  exchange: null,
  routingKey: null,
  target: { type: 'http', url: 'https://api.example.com/hook' },
  result: null,
  error: null,
  progress: null,
  message: null,
  createdAt: '2026-01-01T00:00:00.000Z',
  startedAt: null,
  finishedAt: null,
  waitingFor: {
    cause: 'due-later',
    detail: 'It is due at 2026-01-01T00:15:00.000Z',
    until: '2026-01-01T00:15:00.000Z',
  },
  children: null,
}

export const TASK_EXAMPLE = { ...LISTED_EXAMPLE, logs: [], attempts: [] }
