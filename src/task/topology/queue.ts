import { type Static, Type } from '@sinclair/typebox'
import { DURATION_PATTERN } from '../../runtime/duration.ts'
import { DEFAULT_RETRY_POLICY, type RetryPolicy, RetryPolicySchema } from '../retry-policy.ts'

/** The queue that is always there; its consumer delivers to each task's own target. */
export const DEFAULT_QUEUE = 'default'

/** A queue's name; `amq.` belongs to the broker, `longshore.` to us, and `.dlq` to the dead letters of another queue. */
export const QueueNameSchema = Type.String({
  pattern: '^(?!amq\\.)(?!longshore\\.)(?!.*\\.dlq$)[A-Za-z0-9._:-]{1,128}$',
  description:
    'Letters, digits and . _ : - , 1 to 128; not beginning with "amq." or "longshore." and not ending with ".dlq"',
  examples: ['emails'],
})

const Retained = (description: string, example: string) =>
  Type.String({ pattern: DURATION_PATTERN, description, examples: [example] })

/** How long a queue's final tasks are kept. */
export const RetentionSchema = Type.Object(
  {
    succeeded: Retained('Of tasks that succeeded', '7d'),
    cancelled: Retained('Of tasks that were cancelled', '7d'),
    dead: Retained('Of dead letters', '90d'),
  },
  { additionalProperties: false, description: 'How long final tasks are kept' },
)
export type Retention = Static<typeof RetentionSchema>

export const DEFAULT_RETENTION: Retention = { succeeded: '7d', cancelled: '7d', dead: '90d' }

export const QueueTypeSchema = Type.Union([Type.Literal('quorum'), Type.Literal('classic')], {
  default: 'quorum',
  description: 'How RabbitMQ keeps the queue; without RabbitMQ both are the same',
})

/** `outcome`: consumers tell how each task ended. `confirm`: a task is done when the broker has taken it, for foreign consumers that never report. */
export const SETTLEMENTS = ['outcome', 'confirm'] as const
export type SettlementKind = (typeof SETTLEMENTS)[number]

/** `due`: priority, then due time. `random`: in no order, among those that are due. */
export const DISPATCH_ORDERS = ['due', 'random'] as const
export type DispatchOrder = (typeof DISPATCH_ORDERS)[number]

/** What a purge makes of the tasks that the broker has: they end with the others that wait, or wait in Postgres again. */
export const PURGES = ['cancel', 'return'] as const
export type Purge = (typeof PURGES)[number]

/** What can be set on a queue. */
export interface QueuePolicy {
  type: Static<typeof QueueTypeSchema>
  /** The broker keeps priorities up to this one apart, too; null: within the window it does not. */
  maxPriority: number | null
  retry: RetryPolicy
  /** How many tasks may be in the broker at once; null: by its consumers' concurrency and rate. */
  window: number | null
  settlement: SettlementKind
  retention: Retention
  /** Whether what a foreign consumer rejects is kept as a dead letter. */
  deadLetter: boolean
  order: DispatchOrder
  /** A task that no consumer reported of for so long since its publish is lost; null: it may take any time. */
  reportWithinMs: number | null
}

/** A policy in full: what is not given takes its default. Priorities need a classic queue (RabbitMQ 3.10). */
export function queuePolicy(given: Partial<QueuePolicy> = {}): QueuePolicy {
  return {
    type: (given.maxPriority ?? null) === null ? 'quorum' : 'classic',
    maxPriority: null,
    retry: DEFAULT_RETRY_POLICY,
    window: null,
    settlement: 'outcome',
    deadLetter: true,
    order: 'due',
    reportWithinMs: null,
    ...given,
    retention: { ...DEFAULT_RETENTION, ...given.retention },
  }
}

/** The body of PUT /queues/:name; a missing field takes its default. */
export const QueuePolicySchema = Type.Object(
  {
    type: Type.Optional(QueueTypeSchema),
    maxPriority: Type.Optional(
      Type.Integer({
        minimum: 1,
        maximum: 9,
        description:
          'RabbitMQ keeps priorities up to this one apart among the tasks it holds; makes the queue a classic one. Without it priorities order what waits in Postgres.',
      }),
    ),
    retry: Type.Optional(RetryPolicySchema),
    window: Type.Optional(
      Type.Integer({
        minimum: 1,
        maximum: 1_000_000,
        description:
          "How many tasks RabbitMQ holds at most; by default 4 x the consumers' concurrency or two seconds of work, at least 100",
      }),
    ),
    settlement: Type.Optional(
      Type.Union(
        SETTLEMENTS.map((kind) => Type.Literal(kind)),
        {
          default: 'outcome',
          description:
            'outcome: consumers tell how each task ended; confirm: a task is done when RabbitMQ has taken it, for foreign consumers that never report',
        },
      ),
    ),
    retention: Type.Optional(Type.Partial(RetentionSchema, { additionalProperties: false })),
    deadLetter: Type.Optional(
      Type.Boolean({ default: true, description: 'Keep what a foreign consumer rejects as a dead letter' }),
    ),
    order: Type.Optional(
      Type.Union(
        DISPATCH_ORDERS.map((order) => Type.Literal(order)),
        { default: 'due', description: 'due: priority, then due time; random: any of those that are due' },
      ),
    ),
    reportWithin: Type.Optional(
      Type.String({
        pattern: DURATION_PATTERN,
        description:
          'For queues with foreign consumers: a task of which nobody reported for so long since its publish is sent again',
        examples: ['10m'],
      }),
    ),
  },
  { additionalProperties: false },
)
