import { describe, expect, test } from 'bun:test'
import { checkFormat } from '../../../src/files/parsers/check-format.ts'
import type { FormatChoice } from '../../../src/task/source/file-format.ts'

describe('checkFormat', () => {
  test('passes what a parser can be made of', () => {
    const formats: FormatChoice[] = [
      { type: 'csv' },
      {
        type: 'csv',
        delimiter: ';',
        decimal: ',',
        grouping: '.',
        types: { d: { type: 'date', pattern: 'dd.MM.yyyy' } },
      },
      { type: 'csv', header: false, columns: ['a'], types: { a: 'integer' }, quote: null },
      { type: 'json', lines: true, schema: { type: 'object' } },
      { type: 'by-extension', csv: { delimiter: '\t' }, xml: { path: '/a/b' } },
    ]
    for (const format of formats) expect(checkFormat(format)).toEqual([])
  })

  test.each<[string, FormatChoice]>([
    ['/columns', { type: 'csv', header: false }],
    ['/delimiter', { type: 'csv', delimiter: '"' }],
    ['/delimiter', { type: 'csv', delimiter: '\n' }],
    ['/escape', { type: 'csv', delimiter: '\\', escape: '\\' }],
    ['/escape', { type: 'csv', quote: null, escape: '\\' }],
    ['/comment', { type: 'csv', comment: ',' }],
    ['/grouping', { type: 'csv', decimal: ',', grouping: ',' }],
    ['/types/x~1y', { type: 'csv', columns: ['a'], types: { 'x/y': 'integer' } }],
    ['/types/d/pattern', { type: 'csv', types: { d: { type: 'date', pattern: 'dd' } } }],
    ['/schema', { type: 'csv', schema: { $ref: 'https://example.com' } }],
    ['/path', { type: 'json', lines: true, path: '/rows' }],
    ['/csv/grouping', { type: 'by-extension', csv: { grouping: '.' } }],
    ['/xml/schema', { type: 'by-extension', xml: { path: '/a', schema: { type: 'x' } } }],
  ])('names %s', (path, format) => {
    expect(checkFormat(format).map((error) => error.path)).toEqual([path])
  })
})
