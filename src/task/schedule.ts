import { type Static, Type } from '@sinclair/typebox'
import { DURATION_PATTERN } from '../runtime/duration.ts'

export const ScheduleNameSchema = Type.String({
  pattern: '^[A-Za-z0-9._:-]{1,128}$',
  description: 'Letters, digits and . _ : - , 1 to 128',
  examples: ['nightly-report'],
})

export const OVERLAPS = ['allow', 'skip'] as const
export const OverlapSchema = Type.Union(
  OVERLAPS.map((overlap) => Type.Literal(overlap)),
  {
    default: 'allow',
    description:
      'What happens when the task of an earlier fire is not final yet. allow: both run. skip: the fire is passed over; with `missed: all` it waits for its turn instead',
  },
)
export type Overlap = (typeof OVERLAPS)[number]

export const MISSED = ['skip', 'last', 'all'] as const
export const MissedSchema = Type.Union(
  MISSED.map((missed) => Type.Literal(missed)),
  {
    default: 'last',
    description:
      'What is done about fires that are over a minute late (no scheduler ran). skip: nothing. last: one fire makes up for all. all: each is made up for, the latest 100',
  },
)
export type Missed = (typeof MISSED)[number]

/** When a schedule fires, without what. */
export const ScheduleTimingSchema = Type.Object(
  {
    cron: Type.String({
      minLength: 1,
      maxLength: 256,
      description:
        'Minute, hour, day of month, month, day of week; optionally seconds in front; or @hourly, @daily, @weekly, @monthly, @yearly',
      examples: ['30 2 * * *'],
    }),
    timezone: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 64,
        default: 'UTC',
        description: 'A name of the IANA database',
        examples: ['Europe/Berlin'],
      }),
    ),
    overlap: Type.Optional(OverlapSchema),
    missed: Type.Optional(MissedSchema),
    jitter: Type.Optional(
      Type.String({
        pattern: DURATION_PATTERN,
        default: '0ms',
        description:
          'Each fire is put off by its own share of this, always the same for the same name and time, and never past the next fire; 1d at most',
        examples: ['30s'],
      }),
    ),
    paused: Type.Optional(Type.Boolean({ description: 'Left out: a new schedule is not, an old one stays as it is' })),
  },
  { additionalProperties: false },
)
export type ScheduleTiming = Static<typeof ScheduleTimingSchema>

export const MAX_JITTER_MS = 24 * 3_600_000

/** `submitted`: a task was made. The others made none: `overlap`, `missed`, or `refused` (its key belongs to another task). */
export const FIRE_OUTCOMES = ['submitted', 'overlap', 'missed', 'refused'] as const
export type FireOutcome = (typeof FIRE_OUTCOMES)[number]
