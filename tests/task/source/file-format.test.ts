import { describe, expect, test } from 'bun:test'
import type { TSchema } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import { CompressionSchema, compressionKind } from '../../../src/task/source/compression.ts'
import {
  ByExtensionSchema,
  CsvFormatSchema,
  FileFormatSchema,
  FormatChoiceSchema,
  formatFor,
  JsonFormatSchema,
  XmlFormatSchema,
} from '../../../src/task/source/file-format.ts'

/** Every schema in a schema. */
function* within(schema: TSchema): Generator<TSchema> {
  yield schema
  for (const inner of [...Object.values(schema.properties ?? {}), ...(schema.anyOf ?? [])])
    yield* within(inner as TSchema)
}

describe('the schemas of formats', () => {
  test('are satisfied by their examples and defaults', () => {
    const schemas = [CsvFormatSchema, JsonFormatSchema, XmlFormatSchema, ByExtensionSchema, CompressionSchema]
    let examples = 0
    for (const schema of schemas.flatMap((root) => [...within(root)])) {
      const given = [...((schema.examples as unknown[]) ?? []), ...('default' in schema ? [schema.default] : [])]
      for (const example of given) {
        examples++
        expect([example, Value.Check(schema, example)]).toEqual([example, true])
      }
    }
    expect(examples).toBeGreaterThan(40)
  })

  test('refuse unknown fields and kinds', () => {
    for (const format of [
      { type: 'csv', delimeter: ';' },
      { type: 'xml' },
      { type: 'xml', path: 'rows' },
      { type: 'json', path: 'rows' },
      { type: 'csv', types: { a: 'int' } },
      { type: 'yaml' },
    ]) {
      expect(Value.Check(FileFormatSchema, format)).toBe(false)
      expect(Value.Check(FormatChoiceSchema, format)).toBe(false)
    }
  })
})

describe('a file name', () => {
  test('says how the file is compressed, unless the source does', () => {
    expect(['a.csv', 'a.CSV.GZ', 'a.zip', 'gz'].map((name) => compressionKind(name))).toEqual([
      'none',
      'gzip',
      'zip',
      'none',
    ])
    expect(compressionKind('a.gz', { kind: 'none' })).toBe('none')
    expect(compressionKind('a.csv', { kind: 'zip' })).toBe('zip')
  })

  test('says which format it has, when the source leaves it open', () => {
    const choice = { type: 'by-extension', csv: { delimiter: ';' }, json: { path: '/rows' } } as const
    expect(formatFor('a.csv', choice)).toEqual({ type: 'csv', delimiter: ';' })
    expect(formatFor('a.TSV.gz', { type: 'by-extension' })).toEqual({ type: 'csv', delimiter: '\t' })
    expect(formatFor('a.json', choice)).toEqual({ type: 'json', path: '/rows' })
    expect(formatFor('a.b.jsonl', choice)).toEqual({ type: 'json', lines: true })
    expect(formatFor('a.xml', choice)).toBeUndefined()
    expect(formatFor('a.csv.bak', choice)).toBeUndefined()
    expect(formatFor('anything', { type: 'csv' })).toEqual({ type: 'csv' })
  })
})
