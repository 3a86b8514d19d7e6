import { type Static, Type } from '@sinclair/typebox'
import { formatDuration, parseDuration } from '../../../runtime/duration.ts'
import { invalid } from '../../../runtime/errors.ts'
import type { Queue, QueueFigures } from '../../../store/topology/queues.ts'
import { RetryPolicySchema } from '../../../task/retry-policy.ts'
import {
  DEFAULT_RETENTION,
  DISPATCH_ORDERS,
  QueueNameSchema,
  type QueuePolicy,
  type QueuePolicySchema,
  QueueTypeSchema,
  queuePolicy,
  RetentionSchema,
  SETTLEMENTS,
} from '../../../task/topology/queue.ts'
import { Count, OneOf } from '../../openapi/schema-words.ts'

/** How a queue or exchange stands with the broker; the same on both. */
export const BROKER_STATE = {
  state: OneOf(
    ['ready', 'conflict'],
    'conflict: the broker has it otherwise; it stands still, and everything else goes on',
  ),
  conflict: Type.Union([Type.String(), Type.Null()], { description: 'The difference, and what to do' }),
}

export function brokerState({ conflict }: { conflict: string | null }) {
  return { state: conflict === null ? 'ready' : 'conflict', conflict } as const
}

/** A queue as responses show it. */
export const QueueSchema = Type.Object({
  name: QueueNameSchema,
  type: QueueTypeSchema,
  maxPriority: Type.Union([Type.Integer(), Type.Null()], {
    description: 'RabbitMQ keeps priorities up to this one apart; null: it does not',
  }),
  retry: RetryPolicySchema,
  window: Type.Union([Type.Integer(), Type.Null()], {
    description: "How many tasks RabbitMQ holds at most; null: by the consumers' concurrency and rate",
  }),
  settlement: OneOf(
    SETTLEMENTS,
    'outcome: consumers tell how each task ended; confirm: it is done when RabbitMQ has it',
  ),
  retention: RetentionSchema,
  deadLetter: Type.Boolean({ description: 'What a foreign consumer rejects is kept as a dead letter' }),
  order: OneOf(DISPATCH_ORDERS, 'In which order tasks that are due are taken'),
  reportWithin: Type.Union([Type.String(), Type.Null()], {
    description: 'A task of which no foreign consumer reported for so long is sent again; null: it may take any time',
  }),
  paused: Type.Boolean(),
  ...BROKER_STATE,
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
  maxPriority: null,
  retry: { maxAttempts: 10, backoff: { kind: 'exponential', base: '1s', factor: 2, max: '1h', jitter: 0.2 } },
  window: null,
  settlement: 'outcome',
  retention: { succeeded: '7d', cancelled: '7d', dead: '90d' },
  deadLetter: true,
  order: 'due',
  reportWithin: null,
  paused: false,
  state: 'ready',
  conflict: null,
  depth: { pending: 3, queued: 0, running: 1, retrying: 0, dead: 0 },
  oldestWaitingMs: 420,
  rate: 12.5,
  createdAt: '2026-01-01T00:00:00.000Z',
  updatedAt: '2026-01-01T00:00:00.000Z',
}

export function queueJson(
  { reportWithinMs, conflict, ...queue }: Queue,
  figures: QueueFigures,
  rate: number,
): Static<typeof QueueSchema> {
  return {
    ...queue,
    reportWithin: reportWithinMs === null ? null : formatDuration(reportWithinMs),
    ...brokerState({ conflict }),
    ...figures,
    rate,
  }
}

const REPORT_WITHIN_MS = { min: 1_000, max: 365 * 24 * 3_600_000 }

/** The policy of a body; a Problem `validation` for what does not go together. */
export function policyOf(body: Static<typeof QueuePolicySchema>): QueuePolicy {
  const { reportWithin, retention, ...given } = body
  if (given.maxPriority !== undefined && given.type === 'quorum') {
    throw invalid('/maxPriority', 'needs a classic queue: leave "type" out, or say "classic"')
  }
  if (reportWithin !== undefined && given.settlement === 'confirm') {
    throw invalid('/reportWithin', 'has no meaning with "settlement": "confirm", where nobody reports')
  }
  return queuePolicy({
    ...given,
    retention: { ...DEFAULT_RETENTION, ...retention },
    reportWithinMs: reportWithin === undefined ? null : reportWithinIn(reportWithin),
  })
}

function reportWithinIn(text: string): number {
  const ms = parseDuration(text) ?? 0
  if (ms >= REPORT_WITHIN_MS.min && ms <= REPORT_WITHIN_MS.max) return ms
  throw invalid('/reportWithin', 'must be from 1s to 365d')
}
