import { expect, test } from 'bun:test'
import fc from 'fast-check'
import { cellOf, csvLine, firstLine, guarded, unguarded } from '../../src/targets/csv/line.ts'

const DELIMITERS = [',', ';', '\t', '|']
const cells = fc.array(fc.option(fc.string({ unit: 'binary', maxLength: 12 }), { nil: null }), {
  minLength: 1,
  maxLength: 6,
})
const delimiter = fc.constantFrom(...DELIMITERS)
/** Full of what must be quoted. */
const hostile = fc.array(fc.string({ unit: fc.constantFrom('"', ',', ';', '\r', '\n', '\t', ' ', "'", '=', 'a') }), {
  minLength: 1,
  maxLength: 6,
})

/** RFC 4180, one character at a time. */
function parse(text: string, separator: string): string[][] {
  const records: string[][] = []
  let record: string[] = []
  let cell = ''
  let quoted = false
  for (let at = 0; at < text.length; at++) {
    const char = text[at] as string
    if (quoted) {
      if (char !== '"') cell += char
      else if (text[at + 1] === '"') cell += text[at++]
      else quoted = false
    } else if (char === '"') quoted = true
    else if (char === separator) {
      record.push(cell)
      cell = ''
    } else if (char === '\r' && text[at + 1] === '\n') {
      records.push([...record, cell])
      record = []
      cell = ''
      at++
    } else cell += char
  }
  return records
}

test('what is written is what a reader of RFC 4180 reads, whatever it holds', () => {
  fc.assert(
    fc.property(fc.array(fc.oneof(cells, hostile), { minLength: 1, maxLength: 4 }), delimiter, (records, separator) => {
      const text = records.map((record) => csvLine(record, { delimiter: separator })).join('')
      expect(parse(text, separator)).toEqual(records.map((record) => record.map((cell) => cell ?? '')))
    }),
  )
})

test('a header that was written is read back', () => {
  fc.assert(
    fc.property(hostile, delimiter, fc.boolean(), (names, separator, guardFormulas) => {
      const header = csvLine(
        names.map((name) => guarded(name, guardFormulas)),
        { delimiter: separator },
      )
      const read = firstLine(`${header}1,2,3\r\n`, separator)
      expect(read?.map((cell) => unguarded(cell, guardFormulas))).toEqual(names)
    }),
  )
})

test('a line that is empty is not taken for none, and an empty text is not nothing', () => {
  expect(csvLine([null], { delimiter: ',' })).toBe('""\r\n')
  expect(csvLine([null, ''], { delimiter: ',' })).toBe(',""\r\n')
})

test('values are written as they came', () => {
  const plain = (json: string) => cellOf(json, { guardFormulas: false })
  expect(plain('10.10')).toBe('10.10')
  expect(plain('12345678901234567890')).toBe('12345678901234567890')
  expect(plain('true')).toBe('true')
  expect(plain('null')).toBeNull()
  expect(plain('"a\\n\\u00e9"')).toBe('a\né')
  expect(plain('{"b": 1.0, "a": []}')).toBe('{"b": 1.0, "a": []}')
})

test('texts that a spreadsheet would run are guarded, numbers are not', () => {
  const guardFormulas = true
  for (const text of ['=1+1', '+1', '-1', '@x', '\t=1', '\r=1']) {
    expect(cellOf(JSON.stringify(text), { guardFormulas })).toBe(`'${text}`)
    expect(cellOf(JSON.stringify(text), { guardFormulas: false })).toBe(text)
  }
  expect(cellOf('-1.5', { guardFormulas })).toBe('-1.5')
  expect(cellOf('"a=b"', { guardFormulas })).toBe('a=b')
})
