import { describe, expect, test } from 'bun:test'
import { type RecordCheck, recordCheck } from '../../../src/files/parsers/record-schema.ts'
import { pieces, readAll } from '../reading.ts'

function check(schema: Record<string, unknown>): RecordCheck {
  const made = recordCheck(schema)
  if (typeof made !== 'function') throw new Error(made.reason)
  return made
}

describe('a JSON Schema', () => {
  const schema = {
    type: 'object',
    required: ['id'],
    properties: { id: { type: 'integer' }, mail: { type: 'string', format: 'email' }, next: { $ref: '#' } },
    additionalProperties: false,
  }

  test('says what is wrong with a record, and where', () => {
    const of = check(schema)
    expect(of('{"id":1,"mail":"a@example.com","next":{"id":2}}')).toBeUndefined()
    expect(of('{"mail":"a@example.com"}')).toBe("The record must have required property 'id'")
    expect(of('{"id":"1"}')).toBe('/id must be integer')
    expect(of('{"id":1,"next":{"id":1,"mail":"x"}}')).toBe('/next/mail must match format "email"')
    expect(of('{"id":1,"idd":1}')).toBe('The record must NOT have additional properties (idd)')
  })

  test('is of 2020-12, or of draft-07 if it says so', () => {
    const tuple = check({ $schema: 'https://json-schema.org/draft/2020-12/schema', prefixItems: [{ type: 'string' }] })
    expect(tuple('[1]')).toBe('/0 must be string')
    const old = check({ $schema: 'http://json-schema.org/draft-07/schema#', items: [{ type: 'string' }] })
    expect(old('[1]')).toBe('/0 must be string')
  })

  test.each<[string, Record<string, unknown>]>([
    ['refers to "https://example.com/a.json"', { $ref: 'https://example.com/a.json' }],
    ['refers to "other.json#/x"', { properties: { a: { items: { $ref: 'other.json#/x' } } } }],
    ['has a "$schema" that is neither', { $schema: 'http://json-schema.org/draft-04/schema#' }],
    ['has a "$schema" that is neither', { $schema: 1 }],
    ['is larger than 65536 bytes', { description: 'x'.repeat(70_000) }],
    ['unknown keyword: "requird"', { requird: ['a'] }],
    ['schema is invalid', { type: 'objct' }],
    ['unknown format "phone"', { format: 'phone' }],
    ["can't resolve reference #/$defs/a", { $ref: '#/$defs/a' }],
    ['Invalid regular expression', { pattern: '(' }],
  ])('that %s is refused', (reason, schema) => {
    expect(recordCheck(schema)).toEqual({ reason: expect.stringContaining(reason) })
  })

  test('that refers to itself without end rejects, and does not crash', () => {
    expect(check({ $ref: '#' })('1')).toBe('The schema cannot be applied: it refers to itself without end')
  })

  test('rejects the records that do not satisfy it, in every format', async () => {
    const format = { schema: { required: ['a'] } }
    const reason = "The record must have required property 'a'"
    for (const { rejects, records } of [
      await readAll(pieces('[{"a":1},{"b":1}]'), { type: 'json', ...format }),
      await readAll(pieces('{"a":1}\n{"b":1}'), { type: 'json', lines: true, ...format }),
      await readAll(pieces('<r><x><a/></x><x b="1"/></r>'), { type: 'xml', path: '/r/x', ...format }),
    ]) {
      expect(records).toHaveLength(1)
      expect(rejects).toMatchObject([{ number: 2, reason }])
    }
    const { rejects } = await readAll(pieces('b\n1\n'), { type: 'csv', ...format })
    expect(rejects).toMatchObject([{ number: 1, reason, raw: '{"b":"1"}', line: 2, offset: 3 }])
  })
})
