import { Type } from '@sinclair/typebox'
import { SubmissionSchema } from '../../../submit/validate.ts'
import { LIMITS } from '../../../task/limits.ts'
import {
  FIRE_OUTCOMES,
  MissedSchema,
  OverlapSchema,
  ScheduleNameSchema,
  ScheduleTimingSchema,
} from '../../../task/schedule.ts'
import { Nullable, OneOf, Time } from '../../openapi/schema-words.ts'
import { PageQuery } from '../../page.ts'

/** What a schedule's task cannot have, and why. */
export const NOT_FOR_SCHEDULES: Record<string, string> = {
  dueAt: 'is not for schedules: the cron expression says when; `delay` is counted from each fire',
  idempotencyKey: 'is not for schedules: each fire has a key of its own, made of the name and the time',
  parentId: 'is not for schedules: a parent ends before the next fire',
}

/** The body of PUT /schedules/:name. */
export const ScheduleBody = Type.Object(
  {
    ...ScheduleTimingSchema.properties,
    task: Type.Omit(SubmissionSchema, ['dueAt', 'idempotencyKey', 'parentId'], {
      additionalProperties: false,
      description: 'What each fire submits, as POST /tasks takes it; the payload is kept as the very text',
    }),
  },
  { additionalProperties: false },
)

export const SCHEDULE_BYTES = LIMITS.payloadBytes * 2

export const FireSchema = Type.Object(
  {
    fireAt: Time('The time that the cron expression names; of a manual one, when it was asked for'),
    firedAt: Time('When it was judged'),
    outcome: OneOf(
      FIRE_OUTCOMES,
      'submitted: a task was made. overlap: the task before was not final. missed: no scheduler ran at its time. refused: its idempotency key belongs to another task',
    ),
    manual: Type.Boolean({ description: 'True when POST .../run asked for it' }),
    taskId: Nullable(Type.String({ format: 'uuid' })),
    detail: Nullable(Type.String()),
  },
  { description: 'What became of a fire' },
)

export const FIRE_EXAMPLE = {
  fireAt: '2026-01-02T01:30:00.000Z',
  firedAt: '2026-01-02T01:30:00.012Z',
  outcome: 'submitted',
  manual: false,
  taskId: '019b7a3e-5c00-7000-8000-000000000001',
  detail: null,
}

/** A schedule as responses show it. */
export const ScheduleSchema = Type.Object({
  name: ScheduleNameSchema,
  cron: Type.String(),
  timezone: Type.String(),
  task: Type.Any({ description: 'What each fire submits, as it was sent, without secrets' }),
  overlap: OverlapSchema,
  missed: MissedSchema,
  jitter: Type.String(),
  paused: Type.Boolean(),
  nextFireAt: Nullable(Time('The next time that the cron expression names; null while it is paused')),
  nextDueAt: Nullable(Time('The same with its jitter')),
  lastFire: Nullable(FireSchema),
  error: Nullable(
    Type.String({
      description: 'Why it cannot fire, such as an unknown queue; tried again every 30 s, and then `missed` decides',
    }),
  ),
  createdAt: Time('When it was made'),
  updatedAt: Time('When it was changed last'),
})

export const BODY_EXAMPLE = {
  cron: '30 2 * * *',
  timezone: 'Europe/Berlin',
  task: { queue: 'reports', type: 'report.nightly', payload: { format: 'pdf' } },
  overlap: 'skip',
}

export const SCHEDULE_EXAMPLE = {
  name: 'nightly-report',
  ...BODY_EXAMPLE,
  missed: 'last',
  jitter: '0ms',
  paused: false,
  nextFireAt: '2026-01-03T01:30:00.000Z',
  nextDueAt: '2026-01-03T01:30:00.000Z',
  lastFire: FIRE_EXAMPLE,
  error: null,
  createdAt: '2026-01-01T00:00:00.000Z',
  updatedAt: '2026-01-01T00:00:00.000Z',
}

/** Longshore's own periodic work, as `GET /schedules?system=true` shows it. */
export const SystemWorkSchema = Type.Object({
  name: Type.String(),
  description: Type.String(),
  every: Type.String({ description: 'The pause between two runs; signals bring a run forward' }),
  node: Type.String({
    format: 'uuid',
    description: 'Each node does this work for itself; this is the one that answers',
  }),
  running: Type.Boolean(),
  runs: Type.Integer({ description: 'Since the node started' }),
  lastRunAt: Nullable(Time('When the last run began')),
  nextRunAt: Nullable(Time('When the next begins, if nothing brings it forward')),
  lastError: Nullable(Type.String({ description: 'Of the last run; null when it went well' })),
})

export const ListQuery = Type.Object(
  {
    ...PageQuery,
    system: Type.Optional(
      Type.Boolean({ default: false, description: "true: Longshore's own periodic work on this node instead" }),
    ),
  },
  { additionalProperties: false },
)

export const FiresQuery = Type.Object(PageQuery, { additionalProperties: false })

export const PreviewQuery = Type.Object(
  {
    count: Type.Optional(Type.Integer({ minimum: 1, maximum: 100, default: 10, description: 'How many fires' })),
    from: Type.Optional(
      Type.String({
        maxLength: 64,
        description: 'Those after this time, RFC 3339 with a zone; now by default',
        examples: ['2026-03-28T00:00:00Z'],
      }),
    ),
    cron: Type.Optional({ ...ScheduleTimingSchema.properties.cron, description: "Instead of the schedule's" }),
    timezone: Type.Optional(Type.String({ minLength: 1, maxLength: 64, description: "Instead of the schedule's" })),
    jitter: Type.Optional({ ...ScheduleTimingSchema.properties.jitter, description: "Instead of the schedule's" }),
  },
  { additionalProperties: false },
)

export const PreviewSchema = Type.Object({
  items: Type.Array(
    Type.Object({
      fireAt: Time('The time that the cron expression names'),
      dueAt: Time('The same with its jitter'),
      local: Time("fireAt as the clocks of the schedule's zone show it"),
    }),
  ),
})

export const PREVIEW_EXAMPLE = {
  items: [
    {
      fireAt: '2026-03-29T01:00:00.000Z',
      dueAt: '2026-03-29T01:00:00.000Z',
      local: '2026-03-29T03:00:00+02:00',
    },
  ],
}
