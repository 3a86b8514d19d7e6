import { describe, expect, test } from 'bun:test'
import { Value } from '@sinclair/typebox/value'
import fc from 'fast-check'
import { parseDuration } from '../../src/runtime/duration.ts'
import { LIMITS } from '../../src/task/limits.ts'
import {
  type Backoff,
  BackoffSchema,
  backoffMs,
  DEFAULT_RETRY_POLICY,
  MAX_BACKOFF_MS,
  RetryPolicySchema,
} from '../../src/task/retry-policy.ts'
import { backoffs, fraction } from './arbitraries.ts'

const failures = fc.integer({ min: 1, max: LIMITS.maxAttempts })
const ms = (duration: string) => parseDuration(duration) ?? Number.NaN
const longest = (backoff: Backoff) =>
  Math.min(MAX_BACKOFF_MS, 'max' in backoff && backoff.max !== undefined ? ms(backoff.max) : MAX_BACKOFF_MS)
const waits = (backoff: Backoff, random = 0, count = 6) =>
  Array.from({ length: count }, (_, index) => backoffMs(backoff, index + 1, () => random))

describe('backoffMs', () => {
  test('is a whole number of milliseconds between 0 and the longest wait, for every policy', () => {
    fc.assert(
      fc.property(backoffs, failures, fraction, (backoff, count, random) => {
        expect(Value.Check(BackoffSchema, backoff)).toBe(true)
        const wait = backoffMs(backoff, count, () => random)
        expect(Number.isSafeInteger(wait)).toBe(true)
        expect(wait).toBeGreaterThanOrEqual(0)
        expect(wait).toBeLessThanOrEqual(longest(backoff))
      }),
      { numRuns: 1_000 },
    )
  })

  test('never shrinks from one failure to the next, but for a list, which is followed as written', () => {
    const growing = backoffs.filter(({ kind }) => kind !== 'delays')
    fc.assert(
      fc.property(growing, failures, fraction, (backoff, count, random) => {
        const [now, next] = [count, count + 1].map((failure) => backoffMs(backoff, failure, () => random))
        expect(next).toBeGreaterThanOrEqual(now as number)
      }),
    )
  })

  test('shortens a wait by at most its jitter and never lengthens it', () => {
    fc.assert(
      fc.property(backoffs, failures, fraction, (backoff, count, random) => {
        const full = backoffMs(backoff, count, () => 0)
        const wait = backoffMs(backoff, count, () => random)
        const byDefault = backoff.kind === 'exponential' ? 0.2 : 0
        const jitter = 'jitter' in backoff ? (backoff.jitter ?? byDefault) : byDefault
        expect(wait).toBeLessThanOrEqual(full)
        expect(wait).toBeGreaterThanOrEqual(Math.floor(full * (1 - jitter)) - 1)
      }),
    )
  })

  test('grows as each kind says', () => {
    expect(waits({ kind: 'exponential', base: '1s', max: '10s' })).toEqual([1_000, 2_000, 4_000, 8_000, 10_000, 10_000])
    expect(waits({ kind: 'exponential', base: '100ms', factor: 3, jitter: 0 }, 0.9, 3)).toEqual([100, 300, 900])
    expect(waits({ kind: 'linear', base: '10s', max: '25s' }, 0.9, 4)).toEqual([10_000, 20_000, 25_000, 25_000])
    expect(waits({ kind: 'fixed', base: '30s', jitter: 0.5 }, 0.5, 2)).toEqual([22_500, 22_500])
    expect(waits({ kind: 'delays', delays: ['1s', '1m', '5s'] }, 0.9, 5)).toEqual([1_000, 60_000, 5_000, 5_000, 5_000])
  })

  test('ends at a week however steep the policy is', () => {
    expect(backoffMs({ kind: 'exponential', base: '1d', factor: 100 }, 1_000, () => 0)).toBe(MAX_BACKOFF_MS)
    expect(backoffMs({ kind: 'exponential', base: '0ms', factor: 100 }, 1_000, () => 0)).toBe(0)
    expect(backoffMs({ kind: 'delays', delays: ['999999999999d'] }, 1, () => 0)).toBe(MAX_BACKOFF_MS)
  })
})

test('the default policy is one that its own schema takes, and lasts about a quarter of an hour', () => {
  expect(Value.Check(RetryPolicySchema, DEFAULT_RETRY_POLICY)).toBe(true)
  const total = waits(DEFAULT_RETRY_POLICY.backoff, 0.5, DEFAULT_RETRY_POLICY.maxAttempts - 1).reduce(
    (sum, wait) => sum + wait,
  )
  expect(total / 60_000).toBeGreaterThan(5)
  expect(total / 60_000).toBeLessThan(20)
})
