import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { LIMITS } from '../../src/task/limits.ts'
import type { Outcome } from '../../src/task/outcome.ts'
import { MAX_BACKOFF_MS } from '../../src/task/retry-policy.ts'
import { isFinal } from '../../src/task/status.ts'
import { type Standing, transition } from '../../src/task/transition.ts'
import { backoffs, fraction } from './arbitraries.ts'

const anyText = fc.string({ unit: 'binary', maxLength: 40 })
const succeeded = fc.constant<Outcome>({ kind: 'succeeded' })
const cancelled = fc.record({ kind: fc.constant('cancelled' as const), error: fc.option(anyText, { nil: undefined }) })
const snoozed = fc.record({ kind: fc.constant('snoozed' as const), delayMs: fc.nat(LIMITS.dueAheadMs) })
const returned = fc.constant<Outcome>({ kind: 'returned' })
const lost = fc.record({ kind: fc.constant('lost' as const), error: anyText, started: fc.boolean() })
const failed = fc.record({
  kind: fc.constant('failed' as const),
  retryable: fc.boolean(),
  error: anyText,
  retryAfterMs: fc.option(fc.oneof(fc.integer(), fc.double()), { nil: undefined }),
})
const outcomes: fc.Arbitrary<Outcome> = fc.oneof(succeeded, cancelled, snoozed, returned, lost, failed)
/** Mostly what keeps a task alive, so that walks are long. */
const survivable: fc.Arbitrary<Outcome> = fc.oneof(
  { weight: 20, arbitrary: fc.oneof(snoozed, returned, lost) },
  { weight: 20, arbitrary: failed.map((outcome) => ({ ...outcome, retryable: true })) },
  { weight: 1, arbitrary: outcomes },
)

const maxAttempts = fc.oneof(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: LIMITS.maxAttempts }))
const policies = fc.record({ maxAttempts, backoff: backoffs })
/** Where a living task can stand: it has failed less often than it may. */
const standings: fc.Arbitrary<Standing> = maxAttempts.chain((max) =>
  fc.record({
    failures: fc.nat(max - 1),
    maxAttempts: fc.constant(max),
    lostStarts: fc.nat(LIMITS.lostStarts - 1),
  }),
)

describe('transition', () => {
  test('walks any living task through any outcomes without passing a limit, until it is final', () => {
    fc.assert(
      fc.property(fc.array(survivable, { maxLength: 60 }), policies, fraction, (walk, policy, random) => {
        let standing: Standing = { failures: 0, maxAttempts: policy.maxAttempts, lostStarts: 0 }
        let failures = 0
        let lostInARow = 0
        for (const outcome of walk) {
          const next = transition(standing, outcome, policy, () => random)
          if (outcome.kind === 'failed') failures++
          if (outcome.kind === 'lost') lostInARow += outcome.started ? 1 : 0
          else if (outcome.kind !== 'returned') lostInARow = 0
          expect(next).toMatchObject({ failures, maxAttempts: policy.maxAttempts, lostStarts: lostInARow })
          expect(next.failures).toBeLessThanOrEqual(next.maxAttempts)
          expect(next.lostStarts).toBeLessThanOrEqual(LIMITS.lostStarts)
          if (isFinal(next.status)) return
          expect(next.failures).toBeLessThan(next.maxAttempts)
          standing = next
        }
      }),
    )
  })

  test('gives every outcome the status that belongs to it, and no other', () => {
    fc.assert(
      fc.property(standings, outcomes, policies, fraction, (standing, outcome, policy, random) => {
        const { status } = transition(standing, outcome, policy, () => random)
        switch (outcome.kind) {
          case 'succeeded':
          case 'cancelled':
            return expect(status).toBe(outcome.kind)
          case 'snoozed':
          case 'returned':
            return expect(status).toBe('pending')
          case 'lost': {
            const starts = standing.lostStarts + (outcome.started ? 1 : 0)
            return expect(status).toBe(starts < LIMITS.lostStarts ? 'pending' : 'dead')
          }
          case 'failed': {
            const again = outcome.retryable && standing.failures + 1 < standing.maxAttempts
            return expect(status).toBe(again ? 'retrying' : 'dead')
          }
          default:
            return outcome satisfies never
        }
      }),
    )
  })

  test('spends a failure on a failed attempt and on nothing else', () => {
    fc.assert(
      fc.property(standings, outcomes, policies, fraction, (standing, outcome, policy, random) => {
        const { failures } = transition(standing, outcome, policy, () => random)
        expect(failures - standing.failures).toBe(outcome.kind === 'failed' ? 1 : 0)
      }),
    )
  })

  test('kills a task by its last failure exactly, by the first one that cannot be retried, and by the fifth lost start', () => {
    const policy = { maxAttempts: 3, backoff: { kind: 'fixed', base: '1s' } } as const
    const fail = (failures: number, retryable = true) =>
      transition(
        { failures, maxAttempts: 3, lostStarts: 0 },
        { kind: 'failed', retryable, error: 'e' },
        policy,
        () => 0,
      )
    expect([fail(0).status, fail(1).status, fail(2).status]).toEqual(['retrying', 'retrying', 'dead'])
    expect(fail(0, false)).toMatchObject({ status: 'dead', failures: 1 })
    const lose = (lostStarts: number, started: boolean) =>
      transition({ failures: 0, maxAttempts: 3, lostStarts }, { kind: 'lost', error: 'gone', started }, policy, () => 0)
    expect(lose(3, true).status).toBe('pending')
    expect(lose(4, false)).toMatchObject({ status: 'pending', lostStarts: 4 })
    expect(lose(4, true)).toMatchObject({ status: 'dead', error: 'lost 5 times in a row: gone' })
  })

  test('never waits for a final task, and for a living one within bounds', () => {
    fc.assert(
      fc.property(standings, outcomes, policies, fraction, (standing, outcome, policy, random) => {
        const { status, delayMs } = transition(standing, outcome, policy, () => random)
        expect(Number.isInteger(delayMs)).toBe(true)
        if (isFinal(status) || outcome.kind === 'returned' || outcome.kind === 'lost') expect(delayMs).toBe(0)
        else expect(delayMs).toBeGreaterThanOrEqual(0)
        if (status === 'retrying') expect(delayMs).toBeLessThanOrEqual(MAX_BACKOFF_MS)
        if (outcome.kind === 'snoozed') expect(delayMs).toBe(outcome.delayMs)
      }),
    )
  })

  test('follows Retry-After instead of the backoff, clamped to a day', () => {
    const delayAfter = (retryAfterMs: number) =>
      transition(
        { failures: 0, maxAttempts: 3, lostStarts: 0 },
        { kind: 'failed', retryable: true, error: 'busy', retryAfterMs },
        { maxAttempts: 3, backoff: { kind: 'fixed', base: '7s' } },
        () => 0,
      ).delayMs
    expect([0, 1_500, -5, LIMITS.retryAfterMs + 1, Number.POSITIVE_INFINITY].map(delayAfter)).toEqual([
      0,
      1_500,
      0,
      LIMITS.retryAfterMs,
      LIMITS.retryAfterMs,
    ])
    expect(delayAfter(1_500.4)).toBe(1_500)
    expect(delayAfter(Number.NaN)).toBe(7_000)
  })

  test('keeps of an error only what Postgres takes, in bounds', () => {
    const message = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.constantFrom('\0', 'a\0b', '\ud83d', 'x\udc00y', '😀'.repeat(2_000)),
    )
    fc.assert(
      fc.property(standings, message, fc.constantFrom('failed', 'lost', 'cancelled'), (standing, error, kind) => {
        const outcome = { kind, error, retryable: false, started: true } as Outcome
        const full = { ...standing, lostStarts: LIMITS.lostStarts - 1 }
        const next = transition(full, outcome, { maxAttempts: 3, backoff: { kind: 'fixed', base: '1s' } }, () => 0)
        expect(next.error?.includes('\0')).toBe(false)
        expect(next.error?.isWellFormed()).toBe(true)
        expect(Buffer.byteLength(next.error ?? '')).toBeLessThanOrEqual(LIMITS.errorBytes)
      }),
    )
  })

  test('a success leaves no error behind', () => {
    const policy = { maxAttempts: 3, backoff: { kind: 'fixed', base: '1s' } } as const
    const after = transition({ failures: 2, maxAttempts: 3, lostStarts: 4 }, { kind: 'succeeded' }, policy, () => 0)
    expect(after).toEqual({ status: 'succeeded', failures: 2, maxAttempts: 3, lostStarts: 0, delayMs: 0, error: null })
  })
})
