import { Type } from '@sinclair/typebox'
import { DURATION_PATTERN } from '../../../runtime/duration.ts'
import { ConsumerTargetSchema } from '../../../task/target/target.ts'
import { QueueNameSchema } from '../../../task/topology/queue.ts'
import { RateLimitSchema } from '../../../task/topology/rate-limit.ts'
import { PageQuery } from '../../page.ts'

const Concurrency = Type.Integer({
  minimum: 1,
  maximum: 10_000,
  default: 10,
  description: 'Tasks at once on each node',
})
const Timeout = Type.String({
  pattern: DURATION_PATTERN,
  default: '30s',
  description: 'After how long an attempt is ended and counts as failed; at most 7d',
})
const Limit = Type.Union([RateLimitSchema, Type.Null()], {
  description: 'How often tasks start, over all nodes together; null: as often as they can',
})
const Paused = Type.Boolean({ default: false })

const CHANGEABLE = {
  concurrency: Type.Optional(Concurrency),
  timeout: Type.Optional(Timeout),
  paused: Type.Optional(Paused),
  rateLimit: Type.Optional(Limit),
}

export const ConsumerBody = Type.Object(
  {
    queue: Type.String({ maxLength: 128, description: 'An existing queue' }),
    target: ConsumerTargetSchema,
    ...CHANGEABLE,
  },
  { additionalProperties: false },
)
export const ConsumerPatch = Type.Object(
  { target: Type.Optional(ConsumerTargetSchema), ...CHANGEABLE },
  { additionalProperties: false },
)
export const ListQuery = Type.Object(
  { ...PageQuery, queue: Type.Optional(Type.String({ maxLength: 128, description: 'Only those of this queue' })) },
  { additionalProperties: false },
)

/** A consumer as responses show it. */
export const ConsumerSchema = Type.Object({
  id: Type.String({ format: 'uuid' }),
  queue: QueueNameSchema,
  target: Type.Any({ description: 'As it was given; a secret is shown as "[secret]"' }),
  concurrency: Concurrency,
  timeout: Timeout,
  paused: Paused,
  rateLimit: Limit,
  createdAt: Type.String({ format: 'date-time' }),
  updatedAt: Type.String({ format: 'date-time' }),
})

export const NEW_EXAMPLE = {
  queue: 'emails',
  target: { type: 'http', url: 'https://api.example.com/hook' },
  concurrency: 20,
  timeout: '10s',
}
export const CHANGE_EXAMPLE = { concurrency: 50 }
export const EXAMPLE = {
  id: '019b7a3e-5c00-7000-8000-000000000002',
  ...NEW_EXAMPLE,
  paused: false,
  rateLimit: null,
  createdAt: '2026-01-01T00:00:00.000Z',
  updatedAt: '2026-01-01T00:00:00.000Z',
}
