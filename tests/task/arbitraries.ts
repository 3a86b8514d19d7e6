import fc from 'fast-check'
import type { Backoff } from '../../src/task/retry-policy.ts'

/** What `Math.random` can give: 0 to just below 1. */
export const fraction = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })

/** Durations as a user writes them, up to ones that are far longer than any wait. */
export const durations = fc.oneof(
  fc.tuple(fc.nat(5_000), fc.constantFrom('ms', 's', 'm', 'h', 'd')).map(([count, unit]) => `${count}${unit}`),
  fc.constantFrom('0ms', '1ms', '999999999999d'),
)

const optional = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: undefined })
const jitter = optional(fc.double({ min: 0, max: 1, noNaN: true }))
const max = optional(durations)

/** Every kind of backoff that the schema takes. */
export const backoffs: fc.Arbitrary<Backoff> = fc
  .oneof(
    fc.record({
      kind: fc.constant('exponential' as const),
      base: durations,
      factor: optional(fc.double({ min: 1, max: 100, noNaN: true })),
      max,
      jitter,
    }),
    fc.record({ kind: fc.constant('linear' as const), base: durations, max, jitter }),
    fc.record({ kind: fc.constant('fixed' as const), base: durations, jitter }),
    fc.record({ kind: fc.constant('delays' as const), delays: fc.array(durations, { minLength: 1, maxLength: 6 }) }),
  )
  .map((backoff) => Object.fromEntries(Object.entries(backoff).filter(([, value]) => value !== undefined)) as Backoff)
