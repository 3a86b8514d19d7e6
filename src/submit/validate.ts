import { createHash } from 'node:crypto'
import { type Static, type TSchema, Type } from '@sinclair/typebox'
import { v7 } from 'uuid'
import { DURATION_PATTERN, parseDuration } from '../runtime/duration.ts'
import { invalid, Problem } from '../runtime/errors.ts'
import { UUID_PATTERN } from '../runtime/uuid.ts'
import { checkJsonText, type JsonFault, memberSpans } from '../task/json/text.ts'
import { LIMITS, PRIORITIES } from '../task/limits.ts'
import { OwnTargetSchema } from '../task/target/target.ts'
import type { NewTask } from '../task/task.ts'
import { AddressedExchangeSchema, lineOf, ROUTING_KEY_BYTES, RoutingKeySchema } from '../task/topology/exchange.ts'
import { DEFAULT_QUEUE, QueueNameSchema } from '../task/topology/queue.ts'
import { parseTime } from './parse-time.ts'
import { checkTarget, type TargetChecks } from './target-check.ts'

/** What a client sends to have something done. */
export const SubmissionSchema = Type.Object(
  {
    queue: Type.Optional({ ...QueueNameSchema, default: DEFAULT_QUEUE }),
    exchange: Type.Optional(AddressedExchangeSchema),
    routingKey: Type.Optional(RoutingKeySchema),
    type: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: LIMITS.typeLength,
        description: 'What kind of work it is',
        examples: ['invoice.created'],
      }),
    ),
    payload: Type.Unknown({ description: 'Any JSON up to 1 MiB; kept and delivered as the very text that was sent' }),
    target: Type.Optional({ ...OwnTargetSchema, description: 'Where to deliver; needed on the queue "default"' }),
    priority: Type.Optional(
      Type.Integer({ minimum: 0, maximum: PRIORITIES - 1, default: 0, description: 'Higher goes first' }),
    ),
    dueAt: Type.Optional(
      Type.String({
        maxLength: 64,
        description: 'Not before this time: RFC 3339 with a zone, at most ten years ahead; a past time means now',
        examples: ['2026-12-24T18:00:00Z'],
      }),
    ),
    delay: Type.Optional(
      Type.String({
        pattern: DURATION_PATTERN,
        description: 'Not before this has passed; instead of dueAt',
        examples: ['15m'],
      }),
    ),
    maxAttempts: Type.Optional(
      Type.Integer({
        minimum: 1,
        maximum: LIMITS.maxAttempts,
        description: "Failures after which it is dead; the queue's by default",
      }),
    ),
    timeout: Type.Optional(
      Type.String({
        pattern: DURATION_PATTERN,
        description: "Longest attempt, 1ms to 7d; the consumer's by default",
        examples: ['30s'],
      }),
    ),
    idempotencyKey: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: LIMITS.idempotencyKeyLength,
        description: 'The same key again on the same queue, or exchange, gives the first task instead of another one',
      }),
    ),
    parentId: Type.Optional(
      Type.String({
        pattern: UUID_PATTERN,
        description: 'A task that is not final; it ends with its last child',
      }),
    ),
  },
  { additionalProperties: false, description: 'A task to be done' },
)
export type Submission = Static<typeof SubmissionSchema>

export interface SubmissionRules extends TargetChecks {
  /** The value as the schema's type, or a Problem `validation` that names the fields. */
  check<S extends TSchema>(schema: S, value: unknown): Static<S>
}

/** What the caller's key permits. */
export interface Permissions {
  /** Targets other than http. */
  operate: boolean
}

/** Reads a submission from its received text: everything but what only the database knows is checked. Throws Problem. */
export function readSubmission(text: string, rules: SubmissionRules, permissions: Permissions): NewTask {
  const checked = checkJsonText(text, { maxDepth: LIMITS.jsonDepth + 1 })
  if (!checked.ok) throw faultProblem(checked)
  return newTask(text, rules, permissions)
}

/** As `readSubmission`, of a text that has passed `checkJsonText`. */
export function newTask(text: string, rules: SubmissionRules, permissions: Permissions): NewTask {
  const found = memberSpans(text)
  if (!found) throw invalid('', 'must be an object')
  if (!found.ok) throw faultProblem(found)
  // Without a prototype, so that a field named __proto__ is a field like another.
  const value: Record<string, unknown> = Object.create(null)
  let payload = ''
  for (const [name, [start, end]] of found.members) {
    const member = text.slice(start, end)
    if (name === 'payload') payload = member
    // The payload itself is never parsed: it is stored and sent as the text that came.
    value[name] = name === 'payload' ? null : JSON.parse(member)
  }
  const submission = rules.check(SubmissionSchema, value)
  if (payload.length * 3 > LIMITS.payloadBytes && Buffer.byteLength(payload) > LIMITS.payloadBytes) {
    throw invalid('/payload', `may have at most ${LIMITS.payloadBytes} bytes`, 'too-large')
  }
  const address = readAddress(submission)
  const { queue } = address
  const task: NewTask = {
    id: v7(),
    ...address,
    type: submission.type ?? null,
    payload,
    target: readTarget(submission, queue, rules, permissions),
    priority: submission.priority ?? 0,
    ...readDue(submission),
    maxAttempts: submission.maxAttempts ?? null,
    timeoutMs: readTimeout(submission),
    idempotencyKey: submission.idempotencyKey ?? null,
    fingerprint: null,
    parentId: submission.parentId?.toLowerCase() ?? null,
    origin: submission.parentId === undefined ? 'api' : 'child',
  }
  return task.idempotencyKey === null ? task : { ...task, fingerprint: fingerprint(task) }
}

/** Where it goes; of an exchange that is settled when it is stored. */
function readAddress({ queue, exchange, routingKey }: Submission): Pick<NewTask, 'queue' | 'exchange' | 'routingKey'> {
  if (exchange === undefined) {
    if (routingKey !== undefined) throw invalid('/routingKey', 'only goes with an exchange')
    return { queue: queue ?? DEFAULT_QUEUE }
  }
  if (queue !== undefined) throw invalid('/queue', 'cannot stand beside an exchange: send one of them')
  if (routingKey !== undefined && Buffer.byteLength(routingKey) > ROUTING_KEY_BYTES)
    throw invalid('/routingKey', `may have at most ${ROUTING_KEY_BYTES} bytes`)
  return { queue: lineOf(exchange), exchange, routingKey: routingKey ?? '' }
}

function readTarget(
  { target }: Submission,
  queue: string,
  rules: SubmissionRules,
  permissions: Permissions,
): string | null {
  if (!target) {
    if (queue !== DEFAULT_QUEUE) return null
    const message =
      'is required on the queue "default", which delivers to each task\'s own target; or name another queue'
    throw invalid('/target', message, 'unknown-target')
  }
  if (target.type !== 'http' && !permissions.operate) {
    const detail = `A task with a target of type "${target.type}" needs a key with the scope "operate"`
    throw new Problem('forbidden', detail, [{ path: '/target/type', message: 'needs a key with the scope "operate"' }])
  }
  checkTarget(target, rules)
  return JSON.stringify(target)
}

function readDue({ dueAt, delay }: Submission): Pick<NewTask, 'dueAt' | 'delayMs'> {
  if (dueAt !== undefined && delay !== undefined) throw invalid('/delay', 'cannot stand beside dueAt: send one of them')
  if (delay !== undefined) {
    const delayMs = parseDuration(delay) ?? 0
    if (delayMs > LIMITS.dueAheadMs) throw invalid('/delay', 'may be ten years at most')
    return { dueAt: null, delayMs }
  }
  if (dueAt === undefined) return { dueAt: null, delayMs: null }
  const ms = parseTime(dueAt)
  if (ms === undefined) throw invalid('/dueAt', 'must be an RFC 3339 time with a zone, such as 2026-12-24T18:00:00Z')
  if (ms > Date.now() + LIMITS.dueAheadMs) throw invalid('/dueAt', 'may lie ten years ahead at most')
  // All that is past means now; Postgres knows no year 0.
  return { dueAt: new Date(Math.max(0, ms)).toISOString(), delayMs: null }
}

function readTimeout({ timeout }: Submission): number | null {
  if (timeout === undefined) return null
  const ms = parseDuration(timeout) ?? 0
  if (ms < LIMITS.minTimeoutMs || ms > LIMITS.maxTimeoutMs) throw invalid('/timeout', 'must be from 1ms to 7d')
  return ms
}

/** SHA-256 of what was asked: the payload by its text, everything else by its meaning (`60s` is `1m`). */
function fingerprint(task: NewTask): string {
  const { queue, type, payload, target, priority, dueAt, delayMs, maxAttempts, timeoutMs, parentId } = task
  const asked = [queue, type, payload, canonical(target), priority, dueAt, delayMs, maxAttempts, timeoutMs, parentId]
  if (task.exchange) asked.push(task.routingKey ?? '')
  return createHash('sha256').update(JSON.stringify(asked)).digest('hex')
}

/** The JSON text with its objects' fields in the order of their names. */
function canonical(text: string | null): string | null {
  return text === null
    ? null
    : JSON.stringify(JSON.parse(text), (_, value: unknown) =>
        typeof value === 'object' && value !== null && !Array.isArray(value)
          ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
          : value,
      )
}

/** A text that is no JSON, or none that can be kept, as a problem. */
export function faultProblem({ code, path, reason, offset }: JsonFault): Problem {
  if (code === 'malformed-json') {
    return new Problem(code, `The body is not valid JSON: ${reason} (at character ${offset + 1})`)
  }
  return invalid(path, reason)
}
