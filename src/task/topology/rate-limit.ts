import { type Static, Type } from '@sinclair/typebox'
import { DURATION_PATTERN, parseDuration } from '../../runtime/duration.ts'

/** How often a consumer may start a task, over all nodes together. */
export const RateLimitSchema = Type.Object(
  {
    count: Type.Integer({ minimum: 1, maximum: 1_000_000, description: 'Tasks' }),
    per: Type.String({ pattern: DURATION_PATTERN, description: 'In this time; 10ms to 24h', examples: ['1s'] }),
    burst: Type.Optional(
      Type.Integer({
        minimum: 1,
        maximum: 1_000_000,
        description: 'So many may start at once after a pause; by default `count`',
      }),
    ),
  },
  { additionalProperties: false, description: 'How often tasks start, over all nodes together' },
)
export type RateLimit = Static<typeof RateLimitSchema>

/** What a token bucket needs: how many tokens it holds, and how many come a millisecond. */
export function bucketOf({ count, per, burst }: RateLimit): { capacity: number; perMs: number } {
  return { capacity: burst ?? count, perMs: count / Math.max(1, parseDuration(per) ?? 1) }
}

/** Tokens that were granted now, and in how many milliseconds the next one comes; 0 when all were. */
export interface Tokens {
  granted: number
  retryAfterMs: number
}
