import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { truncate } from '../../src/task/limits.ts'

const bound = fc.integer({ min: 6, max: 64 })
const text = fc.string({ unit: 'grapheme', maxLength: 60 }).map((each) => each.toWellFormed())

describe('truncate', () => {
  test('never gives more bytes than asked for, and no torn character', () => {
    fc.assert(
      fc.property(text, bound, (original, bytes) => {
        const cut = truncate(original, bytes)
        expect(Buffer.byteLength(cut)).toBeLessThanOrEqual(bytes)
        if (cut !== original) {
          expect(cut).toEndWith(' [cut]')
          expect(original.startsWith(cut.slice(0, -' [cut]'.length))).toBe(true)
        }
      }),
      { numRuns: 1_000 },
    )
  })

  test('leaves a text that fits as it is', () => {
    fc.assert(
      fc.property(text, (original) => {
        expect(truncate(original, Math.max(6, Buffer.byteLength(original)))).toBe(original)
      }),
    )
  })

  test('cuts no more than one character more than it must', () => {
    expect(truncate('abcdefghij', 10)).toBe('abcdefghij')
    expect(truncate('abcdefghijk', 10)).toBe('abcd [cut]')
    expect(truncate('😀😀😀😀', 15)).toBe('😀😀 [cut]')
    expect(truncate('😀😀😀😀', 13)).toBe('😀 [cut]')
  })
})
