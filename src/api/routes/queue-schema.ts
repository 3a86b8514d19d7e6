import { Type } from '@sinclair/typebox'
import { QueueNameSchema, QueueTypeSchema, RetentionSchema } from '../../task/queue.ts'
import { RetryPolicySchema } from '../../task/retry-policy.ts'

const Count = (description: string) => Type.Integer({ minimum: 0, description })

/** A queue as responses show it. */
export const QueueSchema = Type.Object({
  name: QueueNameSchema,
  type: QueueTypeSchema,
  retry: RetryPolicySchema,
  retention: RetentionSchema,
  paused: Type.Boolean(),
  depth: Type.Object(
    {
      pending: Count('Waiting for a worker'),
      queued: Count('Handed to the broker'),
      running: Count('In the hands of a node'),
      retrying: Count('Failed, waiting for the next attempt'),
      dead: Count('Dead letters'),
    },
    { description: 'Tasks by status' },
  ),
  oldestWaitingMs: Type.Union([Type.Integer(), Type.Null()], {
    description: 'For how long the task that waits longest has been due, in milliseconds; null when none is due',
  }),
  rate: Type.Number({ description: 'Outcomes per second, lately, on all nodes' }),
  createdAt: Type.String({ format: 'date-time' }),
  updatedAt: Type.String({ format: 'date-time' }),
})

export const QUEUE_EXAMPLE = {
  name: 'emails',
  type: 'quorum',
  retry: { maxAttempts: 10, backoff: { kind: 'exponential', base: '1s', factor: 2, max: '1h', jitter: 0.2 } },
  retention: { succeeded: '7d', cancelled: '7d', dead: '90d' },
  paused: false,
  depth: { pending: 3, queued: 0, running: 1, retrying: 0, dead: 0 },
  oldestWaitingMs: 420,
  rate: 12.5,
  createdAt: '2026-01-01T00:00:00.000Z',
  updatedAt: '2026-01-01T00:00:00.000Z',
}
