import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { judgeAsked, judgeListed, type Seen } from '../../../src/sources/visit/judge-listing.ts'
import type { KnownFile } from '../../../src/store/files/listing.ts'
import type { CompleteSource } from '../../../src/task/source/defaults.ts'

const STABLE = { kind: 'stable', listings: 3, forMs: 10_000 } as const
const READY: CompleteSource['ready'][] = [STABLE, { kind: 'marker', suffix: '.done' }, { kind: 'at-once' }]
const EXACT = '2025-01-31T10:00:00Z'
const seen = (over: Partial<Seen> = {}): Seen => ({ path: 'a', size: 5, modified: EXACT, isExact: true, ...over })
const known = (over: Partial<KnownFile> = {}): KnownFile => ({
  id: 'f',
  generation: 1,
  status: 'done',
  size: 5,
  modified: EXACT,
  exact: null,
  unsure: false,
  sureNow: false,
  stable: 3,
  stableMs: 10_000,
  ...over,
})

describe('what a listing says about a file', () => {
  test('is ready after as many equal listings as are asked for, and begins anew with each change', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 1, maxLength: 30 }), (sizes) => {
        let row: KnownFile | null = null
        let run = 0
        let before: number | undefined
        for (const size of sizes) {
          run = size === before ? run + 1 : 1
          before = size
          const verdict = judgeListed(seen({ size }), row, STABLE)
          if (verdict.kind !== 'fresh' && verdict.kind !== 'again') throw new Error(verdict.kind)
          expect(verdict.status).toBe(run >= 3 ? 'ready' : 'seen')
          row = known({ size, status: verdict.status, stable: verdict.kind === 'again' ? verdict.stable : 1 })
        }
      }),
    )
  })

  test('is not ready while its equal listings lie closer together than is asked for', () => {
    const again = (stable: number, stableMs: number) =>
      judgeListed(seen(), known({ status: 'seen', stable, stableMs }), STABLE)
    expect(again(50, 9_999)).toEqual({ kind: 'again', status: 'seen', stable: 51 })
    expect(again(50, 10_000)).toEqual({ kind: 'again', status: 'ready', stable: 51 })
    expect(again(1, 10_000)).toEqual({ kind: 'again', status: 'seen', stable: 2 })
  })

  test('never takes a file twice that is listed just as it was', () => {
    for (const ready of READY) {
      for (const status of ['importing', 'done', 'failed', 'skipped'] as const) {
        expect(judgeListed(seen(), known({ status }), ready)).toEqual({ kind: 'unchanged' })
        // A server that does not tell a size has none to compare.
        expect(judgeListed(seen({ size: null }), known({ status }), ready)).toEqual({ kind: 'unchanged' })
      }
    }
  })

  test('is a new generation when size or an exact time has changed', () => {
    expect(judgeListed(seen({ size: 6 }), known({ generation: 4 }), STABLE)).toEqual({
      kind: 'fresh',
      generation: 5,
      status: 'seen',
    })
    expect(judgeListed(seen({ modified: '2025-01-31T10:00:01Z' }), known(), STABLE)).toMatchObject({ kind: 'fresh' })
  })

  test('asks about a time that is not told to the second, and about one that may hide a change', () => {
    const listed = { modified: 'Jan 31 10:00', isExact: false }
    const row = known({ modified: 'Jan 31 10:00', exact: EXACT })
    expect(judgeListed(seen(listed), row, STABLE)).toEqual({ kind: 'unchanged' })
    expect(judgeListed(seen(listed), { ...row, unsure: true }, STABLE)).toEqual({ kind: 'unchanged' })
    expect(judgeListed(seen(listed), { ...row, unsure: true, sureNow: true }, STABLE)).toEqual({ kind: 'ask' })
    expect(judgeListed(seen({ ...listed, modified: 'Jan 31  2025' }), row, STABLE)).toEqual({ kind: 'ask' })
    expect(judgeListed(seen({ ...listed, size: 6 }), row, STABLE)).toMatchObject({ kind: 'fresh' })
    // The server has learnt to tell, or has forgotten how to.
    expect(judgeListed(seen(), row, STABLE)).toEqual({ kind: 'ask' })
    expect(judgeListed(seen(listed), known(), STABLE)).toEqual({ kind: 'ask' })
  })

  test('goes by the answer, to the second', () => {
    const listed = seen({ modified: 'Jan 31  2025', isExact: false })
    const row = known({ modified: 'Jan 31 10:00', exact: EXACT })
    const answer = (modifiedAt: string | null, size: number | null = 5) =>
      judgeAsked(listed, row, { size, modifiedAt }, STABLE)
    expect(answer('2025-01-31T10:00:00.123Z')).toEqual({ kind: 'unchanged' })
    expect(answer('2025-01-31T10:00:01Z')).toMatchObject({ kind: 'fresh', generation: 2 })
    expect(answer(EXACT, 6)).toMatchObject({ kind: 'fresh' })
    expect(judgeAsked(listed, row, null, STABLE)).toEqual({ kind: 'unchanged' })
    expect(
      judgeAsked(seen({ modified: 'x', isExact: false }), known(), { size: 5, modifiedAt: EXACT }, STABLE),
    ).toEqual({
      kind: 'unchanged',
    })
  })

  test('knows a text that half a year has changed, of a server that tells nothing else', () => {
    const answer = (from: string, to: string) =>
      judgeAsked(
        seen({ modified: to, isExact: false }),
        known({ modified: from }),
        { size: 5, modifiedAt: null },
        STABLE,
      ).kind
    expect(answer('Jan 31 10:00', 'Jan 31  2025')).toBe('unchanged')
    expect(answer('Feb  1 10:00', 'Feb 01  2025')).not.toBe('ask')
    expect(answer('Jan 31 10:00', 'Jan 31 10:01')).toBe('fresh')
    expect(answer('Jan 31 10:00', 'Feb 01  2025')).toBe('fresh')
  })
})
