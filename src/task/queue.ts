import { type Static, Type } from '@sinclair/typebox'
import { DURATION_PATTERN } from '../runtime/duration.ts'
import { type RetryPolicy, RetryPolicySchema } from './retry-policy.ts'

/** The queue that is always there; its consumer delivers to each task's own target. */
export const DEFAULT_QUEUE = 'default'

/** A queue's name; `amq.` belongs to the broker, and `.dlq` to the dead letters of another queue. */
export const QueueNameSchema = Type.String({
  pattern: '^(?!amq\\.)(?!.*\\.dlq$)[A-Za-z0-9._:-]{1,128}$',
  description: 'Letters, digits and . _ : - , 1 to 128; not beginning with "amq." and not ending with ".dlq"',
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

/** What can be set on a queue. */
export interface QueuePolicy {
  type: Static<typeof QueueTypeSchema>
  retry: RetryPolicy
  retention: Retention
}

/** The body of PUT /queues/:name; a missing field takes its default. */
export const QueuePolicySchema = Type.Object(
  {
    type: Type.Optional(QueueTypeSchema),
    retry: Type.Optional(RetryPolicySchema),
    retention: Type.Optional(Type.Partial(RetentionSchema, { additionalProperties: false })),
  },
  { additionalProperties: false },
)
