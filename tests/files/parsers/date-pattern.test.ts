import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { dateReader } from '../../../src/files/parsers/csv/date-pattern.ts'

function reader(pattern: string): (text: string) => string | undefined {
  const made = dateReader(pattern)
  if (typeof made !== 'function') throw new Error(made.reason)
  return made
}

describe('a date pattern', () => {
  test('reads what it describes, as ISO 8601', () => {
    expect(reader('d/M/yyyy')('1/2/2025')).toBe('2025-02-01')
    expect(reader('yyyyMMdd')('20250131')).toBe('2025-01-31')
    expect(reader("dd.MM.yyyy 'at' H:mm")('31.01.2025 at 9:05')).toBe('2025-01-31T09:05:00')
    expect(reader("yyyy-MM-dd'T'HH:mm:ss.SSSXXX")('2025-01-31T10:00:00.250+0100')).toBe('2025-01-31T10:00:00.250+01:00')
    expect(reader("yyyy-MM-dd'T'HH:mm:ssXXX")('2025-01-31T10:00:00Z')).toBe('2025-01-31T10:00:00Z')
  })

  test('reads nothing else', () => {
    const read = reader("yyyy-MM-dd'T'HH:mmXXX")
    for (const text of [
      ...[
        '2025-01-31',
        '2025-13-01T10:00Z',
        '2025-04-31T10:00Z',
        '2025-01-31T24:00Z',
        '2025-01-31T10:60Z',
        '0000-01-01T00:00Z',
      ],
      ...['2025-01-31T10:00+19:00', ' 2025-01-31T10:00Z', '2025-01-31T10:00Z\n', '2025x01-31T10:00Z', ''],
    ]) {
      expect(read(text)).toBeUndefined()
    }
    expect(reader('yyyy.MM.dd')('2025x01x31')).toBeUndefined()
  })

  test('agrees with the calendar on which days there are', () => {
    const read = reader('yyyy-MM-dd')
    const pad = (value: number, width: number) => String(value).padStart(width, '0')
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 9999 }),
        fc.integer({ min: 0, max: 13 }),
        fc.integer({ min: 0, max: 32 }),
        (y, m, d) => {
          const text = `${pad(y, 4)}-${pad(m, 2)}-${pad(d, 2)}`
          const date = new Date(`${text}T00:00:00Z`)
          const isDay = !Number.isNaN(date.getTime()) && date.toISOString().startsWith(text)
          expect(read(text)).toBe(isDay ? text : undefined)
        },
      ),
      { numRuns: 2_000 },
    )
  })

  test.each([
    ['dd.MM.yy', 'does not know "yy"'],
    ['dd.MM', 'does not name the year'],
    ['yyyy-MM-dd d', 'names the day twice'],
    ['yyyy-MM-ddTHH:mm', 'does not know "THH:"'],
    ['yyyy-MM-dd HH', 'needs hour and minute together'],
    ['yyyy-MM-dd ss', 'names the second without hour and minute'],
    ["yyyy-MM-dd'x", 'does not know "\'x"'],
  ])('%s is refused: it %s', (pattern, reason) => {
    expect(dateReader(pattern)).toEqual({ reason: expect.stringContaining(reason) })
  })
})
