import { Type } from '@sinclair/typebox'
import { ORIGINS, STATUSES } from '../../../task/status.ts'
import { QueueNameSchema } from '../../../task/topology/queue.ts'
import { RateLimitSchema } from '../../../task/topology/rate-limit.ts'
import { Nullable } from '../../openapi/schema-words.ts'

/* What the worker protocol answers, and an example of each of its calls. */

const Uuid = Type.String({ format: 'uuid' })
const JsonText = (description: string) => Type.String({ description: `JSON text: ${description}` })
const Milliseconds = (description: string) => Type.Number({ description: `${description}, in milliseconds` })

const ClaimedTaskSchema = Type.Object({
  id: Uuid,
  queue: Type.String(),
  type: Nullable(Type.String()),
  payload: JsonText('the payload as it was submitted'),
  target: Nullable(JsonText('the task’s own target')),
  priority: Type.Integer(),
  attempt: Type.Integer({ description: 'The attempt that begins; its outcome names it' }),
  failures: Type.Integer(),
  maxAttempts: Type.Integer(),
  lostStarts: Type.Integer(),
  timeoutMs: Nullable(Milliseconds('Null: the consumer’s')),
  parentId: Nullable(Uuid),
  origin: Type.Union(ORIGINS.map((origin) => Type.Literal(origin))),
  createdAt: Type.String({ format: 'date-time' }),
  traceparent: Type.Optional(Nullable(Type.String())),
  waitedMs: Type.Optional(Milliseconds('How long it had been due')),
})

export const ClaimsResult = Type.Object({
  answers: Type.Array(
    Type.Union([
      Type.Object({ kind: Type.Literal('claimed'), task: ClaimedTaskSchema }, { description: 'Yours to run' }),
      Type.Object(
        { kind: Type.Literal('duplicate') },
        { description: 'Somebody else’s, over, or given back: ack the message' },
      ),
      Type.Object({ kind: Type.Literal('dead') }, { description: 'Kept as a dead letter: ack the message' }),
      Type.Object(
        { kind: Type.Literal('unknown') },
        { description: 'Of no known task: claim the message again as `unreadable`, with its bytes' },
      ),
    ]),
    { description: 'In the order of the deliveries' },
  ),
})

export const OutcomesResult = Type.Object({
  settled: Type.Array(
    Type.Union([
      Type.Object({
        id: Uuid,
        late: Type.Literal(false),
        status: Type.Union(STATUSES.map((status) => Type.Literal(status))),
        delayMs: Milliseconds('When it is due again, if it is to be tried again'),
      }),
      Type.Object(
        { id: Uuid, late: Type.Literal(true) },
        { description: 'The attempt is not, or no longer, this worker’s: nothing was written. Ack the message.' },
      ),
    ]),
    { description: 'In the order of the settlements' },
  ),
})

const AttemptSchema = Type.Object({
  id: Uuid,
  queue: Type.String(),
  attempt: Type.Integer(),
  parentId: Nullable(Uuid),
  standing: Type.Object({ failures: Type.Integer(), maxAttempts: Type.Integer(), lostStarts: Type.Integer() }),
})

export const BeatsResult = Type.Object({
  alive: Type.Boolean({ description: 'False: stop all work of this id, drop what it holds, join under a new one' }),
  cancel: Type.Array(Uuid, { description: 'Held tasks that somebody asked to cancel' }),
  unnamed: Type.Array(AttemptSchema, {
    description:
      'Attempts that are this worker’s by the ledger and were not named; give back what is here in two beats',
  }),
  others: Type.Integer({ description: 'How many other nodes live' }),
  topology: Type.Optional(
    Type.Object(
      {
        digest: Type.String({ description: 'To be sent with the next beats' }),
        queues: Type.Array(
          Type.Object({
            name: QueueNameSchema,
            paused: Type.Boolean(),
            conflict: Nullable(Type.String({ description: 'The queue stands still, because the broker’s differs' })),
          }),
        ),
        consumers: Type.Array(
          Type.Object({
            id: Uuid,
            queue: Type.String(),
            target: Type.Any({ description: 'With its secrets' }),
            concurrency: Type.Integer(),
            timeoutMs: Milliseconds('For an attempt'),
            paused: Type.Boolean(),
            rateLimit: Type.Optional(Type.Union([RateLimitSchema, Type.Null()])),
          }),
        ),
      },
      { description: 'What workers go by; only when the digest that was sent is not that of the present one' },
    ),
  ),
})

export const NoticesResult = Type.Object({
  notice: Type.Boolean({ description: 'True: send a beat' }),
  position: Type.String({ description: 'To be sent with the next question' }),
})

export const TokensResult = Type.Object({
  granted: Type.Integer(),
  retryAfterMs: Milliseconds('Until the next token comes; 0 when all were granted'),
})

export const LocksResult = Type.Object({ held: Type.Boolean({ description: 'Whether the worker has the name now' }) })

const NODE = '019b7a3e-5c00-7000-8000-000000000010'
const TASK = '019b7a3e-5c00-7000-8000-000000000001'
const CONSUMER = '019b7a3e-5c00-7000-8000-000000000002'

export const CLAIMS_EXAMPLE = {
  claimId: '019b7a3e-5c00-7000-8000-000000000011',
  node: NODE,
  queue: 'emails',
  deliveries: [{ kind: 'task', id: TASK, attempt: 1 }],
}
export const CLAIMS_ANSWER = {
  answers: [
    {
      kind: 'claimed',
      task: {
        id: TASK,
        queue: 'emails',
        type: 'invoice.created',
        payload: '{"invoice":1042,"total":99.50}',
        target: null,
        priority: 0,
        attempt: 1,
        failures: 0,
        maxAttempts: 10,
        lostStarts: 0,
        timeoutMs: null,
        parentId: null,
        origin: 'api',
        createdAt: '2026-01-01T00:00:00.000Z',
        traceparent: null,
        waitedMs: 3.2,
      },
    },
  ],
}
export const OUTCOMES_EXAMPLE = {
  node: NODE,
  reports: [{ id: TASK, attempt: 1, progress: { done: 1, total: 1 }, lines: ['sent'] }],
  settlements: [{ id: TASK, attempt: 1, outcome: { kind: 'succeeded', result: '{"sent":true}' } }],
}
export const OUTCOMES_ANSWER = { settled: [{ id: TASK, late: false, status: 'succeeded', delayMs: 0 }] }
export const BEATS_EXAMPLE = {
  node: NODE,
  join: { name: 'worker-1:4711', version: '1.4.0' },
  held: [TASK],
  started: [TASK],
  topology: null,
}
export const BEATS_ANSWER = {
  alive: true,
  cancel: [],
  unnamed: [],
  others: 2,
  topology: {
    digest: 'b1946ac92492d2347c6235b4d2611184',
    queues: [{ name: 'emails', paused: false, conflict: null }],
    consumers: [
      {
        id: CONSUMER,
        queue: 'emails',
        target: { type: 'http', url: 'https://api.example.com/hook' },
        concurrency: 20,
        timeoutMs: 30_000,
        paused: false,
        rateLimit: { count: 10, per: '1s' },
      },
    ],
  },
}
export const TOKENS_EXAMPLE = { consumer: CONSUMER, count: 20 }
export const TOKENS_ANSWER = { granted: 8, retryAfterMs: 74 }
export const NOTICES_ANSWER = { notice: true, position: 'e8f2a4b2-7d3a-4a54-9d0c-2f1c5b8e6a10/42' }
export const LOCKS_EXAMPLE = { node: NODE, name: 'csv:jobs.csv', hold: true }
export const LOCKS_ANSWER = { held: true }
