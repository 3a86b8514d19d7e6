import { describe, expect, test } from 'bun:test'
import type { FileFault } from '../../../src/files/file-fault.ts'
import type { JsonFormat } from '../../../src/task/source/file-format.ts'
import { isRecord, pieces, readAll } from '../reading.ts'

const read = (file: string | Uint8Array, options: Partial<JsonFormat> = {}, sizes?: number[]) =>
  readAll(pieces(file, sizes), { type: 'json', ...options })
const texts = async (file: string, options: Partial<JsonFormat> = {}) => {
  const { entries, fault } = await read(file, options)
  expect(fault).toBeUndefined()
  return entries.map((entry) => (isRecord(entry) ? entry.json : `rejected: ${entry.reason}`))
}

describe('a JSON array', () => {
  test('gives each element as the very text that stands there', async () => {
    const elements = [
      '{"id":12345678901234567890, "n":1.0}',
      '{ "s" : "]}\\"\\u00e9" }',
      '[1]',
      '"x,]"',
      '-1.50e3',
      'null',
    ]
    expect(await texts(`[${elements.join(' ,\n')}]`)).toEqual(elements)
    expect(await texts('[]')).toEqual([])
    expect(await texts('\ufeff {"data": {"rows" : [ 1 ] } } ', { path: '/data/rows' })).toEqual(['1'])
    expect(await texts('[[0],[{"x":[1,2]}]]', { path: '/1/0/x' })).toEqual(['1', '2'])
  })

  test('gives an element that is no JSON, or cannot be kept, as a reject, and goes on', async () => {
    const deep = `${'['.repeat(65)}${']'.repeat(65)}`
    const { rejects, records, fault } = await read(
      `[{"a":1},\n{"a":tru},\n{"a":"\\u0000"},{"a":["\\ud800"]},${deep},{"a":1e999},{"a":2}]`,
    )
    expect(fault).toBeUndefined()
    expect(records).toEqual([{ a: 1 }, { a: 2 }])
    expect(rejects.map(({ number, line, reason }) => [number, line, reason])).toEqual([
      [2, 2, 'Is not JSON: expected a value (character 6)'],
      [3, 3, '/a: holds a NUL character, which Postgres cannot store'],
      [4, 3, '/a/0: holds a lone surrogate, which is no Unicode text'],
      [5, 3, expect.stringContaining('is nested deeper than 64 levels')],
      [6, 3, '/a: is a number out of range'],
    ])
    expect(rejects[0]?.raw).toBe('{"a":tru}')
  })

  test('rejects a longer element than may be, however long, and keeps its beginning', async () => {
    const long = JSON.stringify({ a: 'x"\\'.repeat(1_000_000), b: [[[]]] })
    const { rejects, records, fault } = await read(`[1,${long},2]`, {}, [30_000])
    expect(fault).toBeUndefined()
    expect(records).toEqual([1, 2])
    expect(rejects).toMatchObject([{ number: 2, reason: 'Is longer than 1048576 bytes: raise "maxRecordBytes"' }])
    expect(rejects[0]?.raw).toStartWith('{"a":"x')
    expect(Buffer.byteLength(rejects[0]?.raw ?? '')).toBeLessThanOrEqual(4096)
  })

  test.each<[string, string, string, Partial<JsonFormat>, object]>([
    ['is empty', 'truncated', '', {}, { line: 1 }],
    ['ends within a record', 'truncated', '[{"a":1},\n{"a":', {}, { line: 2, record: 2, offset: 15 }],
    ['ends behind a record', 'truncated', '[{"a":1}', {}, { record: 2, offset: 8 }],
    ['has more behind its end', 'malformed', '[1]x', {}, { offset: 3 }],
    ['lacks a comma', 'malformed', '[{"a":1} {"a":2}]', {}, { record: 2, offset: 9 }],
    ['closes what it has not opened', 'malformed', '[{"a":1},\n{"a":[1}]', {}, { line: 2, record: 2, offset: 17 }],
    ['lacks a quote', 'malformed', '[{"a":"x},\n{"a":"y"}]', {}, { line: 1, record: 1, offset: 10 }],
    ['is malformed around the records', 'malformed', '{"a":tru,"rows":[1]}', { path: '/rows' }, { offset: 5 }],
    ['has single quotes', 'malformed', "{'rows':[1]}", { path: '/rows' }, { offset: 1 }],
    ['has the records elsewhere', 'not-found', '{"data":[1]}', { path: '/rows' }, {}],
    ['is an object', 'not-found', '{"rows":[1]}', {}, { offset: 0 }],
    ['has no array at the path', 'not-found', '{"rows":"x"}', { path: '/rows' }, { offset: 8 }],
    ['has the records twice', 'malformed', '{"rows":[1],"rows":[2]}', { path: '/rows' }, { offset: 19 }],
  ])('that %s fails the file (%s), and says where', async (_, code, file, options, place) => {
    for (const sizes of [[1], [1000]]) {
      const { fault } = await read(file, options, sizes)
      expect(fault).toMatchObject({ code, place })
    }
  })

  test('gives the records before the place where it fails', async () => {
    const { records, fault } = await read('[{"a":1},{"a":2},{"a":3}}')
    expect(records).toHaveLength(3)
    expect((fault as FileFault).message).toBe(
      'The file is not JSON: expected "," or "]" (line 1, record 4, byte 24): mend the file',
    )
  })

  test('that nests without end fails in bounded memory', async () => {
    for (const file of ['['.repeat(2_000_000), `[${'{"a":'.repeat(1_000_000)}`]) {
      const { fault } = await read(file, {}, [65_536])
      expect(fault).toMatchObject({ code: 'too-large' })
    }
  })

  test('must be UTF-8', async () => {
    expect((await read(Buffer.from('\ufeff[1]', 'utf16le'))).fault).toMatchObject({ code: 'encoding' })
    const { records, fault } = await read(Buffer.from('[1,"\xe4"]', 'latin1'))
    expect(records).toEqual([1])
    expect(fault).toMatchObject({ code: 'encoding', place: { offset: 4, record: 2 } })
  })
})

describe('JSON Lines', () => {
  const lines = { lines: true }

  test('give each line as its text, with blank lines between', async () => {
    expect(await texts('{"n":1.0}\r\n\n  {"n":[2]}  \n3', lines)).toEqual(['{"n":1.0}', '{"n":[2]}', '3'])
    expect(await texts('', lines)).toEqual([])
  })

  test('give a line that is no JSON, or is too long, as a reject, and go on', async () => {
    const long = `{"a":"${'x'.repeat(3_000_000)}"}`
    const { rejects, records, fault } = await read(`{"a":1}\n{"a":1\n${long}\n\n{"a":2}\n{"a"}`, lines, [50_000])
    expect(fault).toBeUndefined()
    expect(records).toEqual([{ a: 1 }, { a: 2 }])
    expect(rejects.map(({ number, line, reason }) => [number, line, reason])).toEqual([
      [2, 2, 'Is not JSON: the text ends too early (character 7)'],
      [3, 3, 'Is longer than 1048576 bytes: raise "maxRecordBytes"'],
      [5, 6, 'Is not JSON: expected ":" after a name (character 5)'],
    ])
    expect(Buffer.byteLength(rejects[1]?.raw ?? '')).toBeLessThanOrEqual(4096)
  })
})
