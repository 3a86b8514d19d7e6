import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { arrayLiteral } from '../../../src/store/database/array-literal.ts'
import { ENGINES, testDatabase } from '../../support/database.ts'

describe('arrayLiteral', () => {
  test.each([
    [[], '{}'],
    [[1, -2, 0.5, 1e21, null, undefined], '{1,-2,0.5,1e+21,NULL,NULL}'],
    [[true, false], '{true,false}'],
    [
      ['pending', '2026-01-02T03:04:05.000Z', 'NULL', 'null', '', ' ', 'a b'],
      '{pending,2026-01-02T03:04:05.000Z,"NULL","null",""," ","a b"}',
    ],
    [['{"a":"\\\\"}', 'a,b', '{}'], '{"{\\"a\\":\\"\\\\\\\\\\"}","a,b","{}"}'],
  ])('writes %j', (items, text) => {
    expect(arrayLiteral(items)).toBe(text)
  })

  test('leaves what it does not know to pg', () => {
    expect(arrayLiteral([1, new Date()])).toBeUndefined()
    expect(arrayLiteral([[1]])).toBeUndefined()
    expect(arrayLiteral([Buffer.from('a')])).toBeUndefined()
    expect(arrayLiteral([1n])).toBeUndefined()
  })

  test.each(ENGINES)('is read by Postgres as what was written (%s)', async (engine) => {
    const { database, drop } = await testDatabase(engine, { poolSize: 1 })
    try {
      // Postgres has no text with NUL, and pg sends unpaired surrogates as U+FFFD.
      const texts = fc.string({ unit: 'grapheme' }).map((text) => text.replaceAll('\0', '').toWellFormed())
      const syntax = fc.string({ unit: fc.constantFrom('"', '\\', ',', '{', '}', ' ', '\n', '\t', 'n', 'N', 'u', 'l') })
      await fc.assert(
        fc.asyncProperty(
          fc.array(fc.option(fc.oneof(texts, syntax, fc.constantFrom('NULL', 'null')))),
          async (items) => {
            const { rows } = await database.pool.query('select $1::text[] as items', [arrayLiteral(items)])
            expect(rows[0].items).toEqual(items)
          },
        ),
        { numRuns: 300 },
      )
    } finally {
      await drop()
    }
  })
})
