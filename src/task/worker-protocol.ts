import { type Static, type TSchema, Type } from '@sinclair/typebox'
import { BROKER_KINDS } from './ledger.ts'
import { LIMITS } from './limits.ts'
import type { ConsumerOrder, QueueOrder, Topology } from './topology/topology.ts'

/*
 * What a worker without a database and the API say to each other: the port `Ledger`, in JSON. A payload, a target and a result
 * travel as JSON text in a string, so that key order, `1.0` and large integers survive.
 */

/** What one call may hold. */
export const WORKER_LIMITS = {
  deliveries: 500,
  settlements: 500,
  reports: 500,
  /** Of the body of a claim or of outcomes, in bytes. */
  batchBytes: LIMITS.batchBytes,
  held: 50_000,
  /** Of the body of a beat, in bytes. */
  beatBytes: 8 * 1024 * 1024,
  consumers: 10_000,
} as const

const closed = { additionalProperties: false }
const Id = (description: string) =>
  Type.String({ pattern: '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$', description: `${description}: a UUID` })
const Text = (maxLength: number, description: string) => Type.String({ maxLength, description })
const Count = (maximum: number, description: string, minimum = 0) => Type.Integer({ minimum, maximum, description })
const Nullable = <S extends TSchema>(schema: S) => Type.Union([schema, Type.Null()])

const NodeId = Id('The worker’s id, which it has made itself at its start')
const MAX_INT = 2_147_483_647
const AttemptNumber = Count(MAX_INT, 'The number of the attempt', 1)
const Milliseconds = (description: string, maximum: number = LIMITS.dueAheadMs) =>
  Type.Number({ minimum: 0, maximum, description: `${description}, in milliseconds` })

const StrayMessageSchema = Type.Object(
  {
    unreadable: Type.Optional(
      Type.Literal(true, {
        description: 'Its bytes are no payload: the task cannot be replayed before it has another one',
      }),
    ),
    body: Type.Optional(Type.String({ pattern: '^[A-Za-z0-9+/]*={0,2}$', description: 'Its bytes in base64' })),
    exchange: Text(255, 'Where it was published'),
    routingKey: Text(255, 'With which routing key'),
    properties: Type.Record(Type.String(), Type.Unknown()),
    headers: Type.Record(Type.String(), Type.Unknown()),
  },
  { ...closed, description: 'What else there was to the message; kept with the task' },
)

const STRAY = {
  id: Id('Of the task that it becomes; the same for every copy of the message'),
  payload: Type.String({ description: 'JSON text; `null` (the text) where the bytes are none' }),
  type: Type.Optional(Nullable(Text(LIMITS.typeLength, 'The type of the task'))),
  priority: Type.Optional(Count(9, 'Higher first')),
  traceparent: Type.Optional(Nullable(Text(256, 'W3C trace context'))),
  message: StrayMessageSchema,
}

const TaskDeliverySchema = Type.Object(
  { kind: Type.Literal('task'), id: Id('The header x-longshore-task'), attempt: AttemptNumber },
  { ...closed, description: 'A message of Longshore: the headers x-longshore-task and x-longshore-attempt' },
)
const CopyDeliverySchema = Type.Object(
  { kind: Type.Literal('copy'), parentId: Id('The header x-longshore-parent') },
  { ...closed, description: 'A copy of a task that was published to an exchange' },
)
const ForeignDeliverySchema = Type.Object(
  { kind: Type.Literal('foreign'), ...STRAY },
  { ...closed, description: 'Somebody else’s message, which becomes a task' },
)
const UnreadableDeliverySchema = Type.Object(
  {
    kind: Type.Literal('unreadable'),
    reason: Type.String({ minLength: 1, description: 'Kept up to 4 KiB' }),
    ...STRAY,
  },
  { ...closed, description: 'A message that cannot be worked on: it becomes a dead letter' },
)

/** The body of POST /claims. */
export const ClaimsSchema = Type.Object(
  {
    claimId: Id('New for every claim; the same again gives the same answer'),
    node: NodeId,
    queue: Text(128, 'The queue that the messages were taken from'),
    deliveries: Type.Array(
      Type.Union([TaskDeliverySchema, CopyDeliverySchema, ForeignDeliverySchema, UnreadableDeliverySchema]),
      { minItems: 1, maxItems: WORKER_LIMITS.deliveries },
    ),
  },
  closed,
)

const ErrorText = Type.String({ description: 'Kept up to 4 KiB' })
const ResponseSchema = Type.Object(
  { status: Type.Integer({ minimum: 0, maximum: 999 }), body: Type.String({ description: 'Kept up to 4 KiB' }) },
  { ...closed, description: 'What an HTTP target answered' },
)

const OUTCOMES = [
  Type.Object(
    {
      kind: Type.Literal('succeeded'),
      result: Type.Optional(Type.String({ description: 'JSON text, up to 64 KiB' })),
      response: Type.Optional(ResponseSchema),
    },
    closed,
  ),
  Type.Object(
    {
      kind: Type.Literal('failed'),
      retryable: Type.Boolean({ description: 'False: a dead letter at once' }),
      error: ErrorText,
      retryAfterMs: Type.Optional(Milliseconds('Used instead of the backoff; no more than a day counts')),
      response: Type.Optional(ResponseSchema),
    },
    closed,
  ),
  Type.Object(
    { kind: Type.Literal('snoozed'), delayMs: Milliseconds('No failure is spent; the next attempt comes then') },
    closed,
  ),
  Type.Object({ kind: Type.Literal('cancelled'), error: Type.Optional(ErrorText) }, closed),
  Type.Object(
    {
      kind: Type.Literal('lost'),
      error: ErrorText,
      started: Type.Boolean({ description: 'Whether its work had begun' }),
    },
    { ...closed, description: 'What ran it broke down; no failure is spent' },
  ),
  Type.Object({ kind: Type.Literal('returned') }, { ...closed, description: 'Given back: nothing ran' }),
]

const SettlementSchema = Type.Object(
  { id: Id('The task'), attempt: AttemptNumber, outcome: Type.Union(OUTCOMES) },
  closed,
)

const ReportSchema = Type.Object(
  {
    id: Id('The task'),
    attempt: AttemptNumber,
    progress: Type.Optional(
      Type.Object(
        { done: Type.Number(), total: Type.Optional(Type.Number()), message: Type.Optional(Text(1024, 'For people')) },
        { ...closed, description: 'Replaces what was told before' },
      ),
    ),
    lines: Type.Optional(
      Type.Array(Type.String({ description: 'Kept up to 1 KiB' }), {
        maxItems: 10_000,
        description: 'Log lines; the last 100 are kept',
      }),
    ),
  },
  closed,
)

/** The body of POST /outcomes. */
export const OutcomesSchema = Type.Object(
  {
    node: NodeId,
    reports: Type.Optional(
      Type.Array(ReportSchema, { maxItems: WORKER_LIMITS.reports, description: 'Written before the settlements' }),
    ),
    settlements: Type.Optional(Type.Array(SettlementSchema, { maxItems: WORKER_LIMITS.settlements })),
  },
  closed,
)

const Instant = (description: string) => Type.String({ maxLength: 40, description: `${description}, RFC 3339` })

export const NodeStateSchema = Type.Object(
  {
    broker: Type.Union(BROKER_KINDS.map((kind) => Type.Literal(kind))),
    link: Type.Optional(
      Type.Object(
        {
          status: Type.Union([Type.Literal('up'), Type.Literal('down'), Type.Literal('blocked')]),
          since: Instant('Since when'),
          reason: Nullable(Text(4096, 'Why it is not up')),
          connections: Type.Array(
            Type.Object(
              {
                name: Text(255, 'At the broker'),
                host: Text(255, 'The broker’s host'),
                purpose: Type.Union([Type.Literal('publish'), Type.Literal('consume')]),
                since: Instant('Since when'),
              },
              closed,
            ),
            { maxItems: 100 },
          ),
        },
        { ...closed, description: 'How it stands with its broker' },
      ),
    ),
    consumers: Type.Array(
      Type.Object(
        {
          id: Id('The consumer'),
          queue: Text(128, 'Its queue'),
          concurrency: Count(10_000, 'Tasks at once'),
          running: Count(MAX_INT, 'Tasks whose target runs'),
          buffered: Count(MAX_INT, 'Tasks claimed and not started'),
          rate: Type.Number({ minimum: 0, description: 'Outcomes per second, lately' }),
          limitedUntil: Type.Optional(Instant('Until when its rate limit holds tasks back')),
        },
        closed,
      ),
      { maxItems: WORKER_LIMITS.consumers },
    ),
  },
  { ...closed, description: 'What the worker does, for `waitingFor` and `GET /nodes`' },
)

const Held = (description: string) =>
  Type.Optional(Type.Array(Id('A task'), { maxItems: WORKER_LIMITS.held, description }))

/** The body of POST /beats. */
export const BeatsSchema = Type.Object(
  {
    node: NodeId,
    join: Type.Optional(
      Type.Object(
        {
          name: Type.String({ minLength: 1, maxLength: 255, description: 'For people: host and process' }),
          version: Type.String({ minLength: 1, maxLength: 64, description: 'Of the worker’s program' }),
          broker: Type.Optional(
            Text(
              512,
              'Kind and vhost of its broker, as in `rabbitmq:/`: the worker is refused when it is not the server’s',
            ),
          ),
        },
        {
          ...closed,
          description: 'With the first beat of an id: enters it into the ledger, under the key of the call',
        },
      ),
    ),
    leave: Type.Optional(Type.Literal(true, { description: 'With the last beat of an id: it ends in order' })),
    held: Held('Every task in its hands'),
    started: Held('Those of them whose work has begun'),
    confirmed: Type.Optional(
      Type.Integer({ minimum: 0, description: 'All publishes of the worker up to this number are confirmed' }),
    ),
    state: Type.Optional(NodeStateSchema),
    topology: Type.Optional(
      Nullable(Text(64, 'The digest of the topology that it has; null for none. Left out: none is sent')),
    ),
  },
  closed,
)
export type BeatsBody = Static<typeof BeatsSchema>

/** The body of POST /tokens. */
export const TokensSchema = Type.Object(
  { consumer: Id('The consumer whose rate limit it is'), count: Count(100_000, 'How many tokens are wanted', 1) },
  closed,
)

/** The body of POST /locks. */
export const LocksSchema = Type.Object(
  {
    node: NodeId,
    name: Type.String({ minLength: 1, maxLength: 1024, description: 'What one living node at a time can have' }),
    hold: Type.Boolean({ description: 'True takes or keeps it, false lets it go' }),
  },
  closed,
)

/** What a worker goes by. */
export interface WorkerTopology {
  queues: Pick<QueueOrder, 'name' | 'paused' | 'conflict'>[]
  /** With their targets' secrets. */
  consumers: ConsumerOrder[]
}

/** What workers go by, always in the same order. */
export function workerTopology({ queues, consumers }: Pick<Topology, 'queues' | 'consumers'>): WorkerTopology {
  return {
    queues: queues
      .map(({ name, paused, conflict }) => ({ name, paused, conflict }))
      .sort((a, b) => (a.name < b.name ? -1 : 1)),
    consumers: consumers.toSorted((a, b) => (a.id < b.id ? -1 : 1)),
  }
}
