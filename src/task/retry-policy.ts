import { type Static, Type } from '@sinclair/typebox'
import { DURATION_PATTERN, parseDuration } from '../runtime/duration.ts'
import { LIMITS } from './limits.ts'

const Duration = (description: string, example: string) =>
  Type.String({ pattern: DURATION_PATTERN, description, examples: [example] })

/** How long a failed task waits for its next attempt. */
export const BackoffSchema = Type.Union(
  [
    Type.Object(
      {
        kind: Type.Literal('exponential'),
        base: Duration('Wait after the first failure', '1s'),
        factor: Type.Optional(Type.Number({ minimum: 1, maximum: 100, default: 2 })),
        max: Type.Optional(Duration('Longest wait', '1h')),
        jitter: Type.Optional(
          Type.Number({ minimum: 0, maximum: 1, description: 'Share of the wait that is random', default: 0.2 }),
        ),
      },
      { additionalProperties: false },
    ),
    Type.Object(
      {
        kind: Type.Literal('linear'),
        base: Duration('Wait after the first failure; the second waits twice as long', '10s'),
        max: Type.Optional(Duration('Longest wait', '10m')),
        jitter: Type.Optional(Type.Number({ minimum: 0, maximum: 1 })),
      },
      { additionalProperties: false },
    ),
    Type.Object(
      {
        kind: Type.Literal('fixed'),
        base: Duration('Wait after each failure', '30s'),
        jitter: Type.Optional(Type.Number({ minimum: 0, maximum: 1 })),
      },
      { additionalProperties: false },
    ),
    Type.Object(
      {
        kind: Type.Literal('delays'),
        delays: Type.Array(Duration('Wait after the failure of this number; the last one repeats', '1m'), {
          minItems: 1,
          maxItems: 100,
        }),
      },
      { additionalProperties: false },
    ),
  ],
  { description: 'How long a failed task waits for its next attempt; seven days at most, whatever it says' },
)
export type Backoff = Static<typeof BackoffSchema>

export const RetryPolicySchema = Type.Object(
  {
    maxAttempts: Type.Integer({
      minimum: 1,
      maximum: LIMITS.maxAttempts,
      description: 'Failures after which a task is dead',
    }),
    backoff: BackoffSchema,
  },
  { additionalProperties: false, description: 'How often and how late a failed task is tried again' },
)
export type RetryPolicy = Static<typeof RetryPolicySchema>

/** Ten attempts over about a quarter of an hour. */
export const DEFAULT_RETRY_POLICY: RetryPolicy = {
  maxAttempts: 10,
  backoff: { kind: 'exponential', base: '1s', factor: 2, max: '1h', jitter: 0.2 },
}

/** The longest wait between two attempts, whatever the policy says. */
export const MAX_BACKOFF_MS = 7 * 24 * 3_600_000

/**
 * The wait in milliseconds after the failure number `failures` (from 1).
 * `random` gives numbers in [0, 1); jitter only ever shortens the wait, so `max` holds.
 */
export function backoffMs(backoff: Backoff, failures: number, random: () => number): number {
  const ms = (duration: string | undefined) =>
    duration === undefined ? MAX_BACKOFF_MS : (parseDuration(duration) ?? 0)
  const jittered = (wait: number, max: number, jitter: number) =>
    Math.round(Math.min(wait, max, MAX_BACKOFF_MS) * (1 - jitter * random()))
  switch (backoff.kind) {
    case 'exponential':
      return jittered(
        // Bounded, because an infinite growth of nothing would be NaN.
        ms(backoff.base) * Math.min((backoff.factor ?? 2) ** (failures - 1), MAX_BACKOFF_MS),
        ms(backoff.max),
        backoff.jitter ?? 0.2,
      )
    case 'linear':
      return jittered(ms(backoff.base) * failures, ms(backoff.max), backoff.jitter ?? 0)
    case 'fixed':
      return jittered(ms(backoff.base), MAX_BACKOFF_MS, backoff.jitter ?? 0)
    case 'delays':
      return jittered(ms(backoff.delays[Math.min(failures, backoff.delays.length) - 1]), MAX_BACKOFF_MS, 0)
    default:
      return backoff satisfies never
  }
}
