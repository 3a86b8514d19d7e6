import { describe, expect, test } from 'bun:test'
import { FileFault } from '../../../src/files/file-fault.ts'
import { openParser } from '../../../src/files/parsers/open-parser.ts'
import type { Entry, Source } from '../../../src/files/parsers/parsed.ts'
import type { ColumnType, CsvFormat } from '../../../src/task/source/file-format.ts'
import { isRecord, pieces, readAll, recordsOf } from '../reading.ts'

const csv = (options: Partial<CsvFormat> = {}): CsvFormat => ({ type: 'csv', ...options })
const read = (file: string | Uint8Array, options: Partial<CsvFormat> = {}, sizes?: number[]) =>
  readAll(pieces(file, sizes), csv(options))

/** The JSON texts of one column's fields, or `reject`. */
async function column(type: ColumnType, fields: string[], options: Partial<CsvFormat> = {}): Promise<string[]> {
  const file = ['a;b', ...fields.map((field) => `"${field.replaceAll('"', '""')}";x`)].join('\n')
  const { entries } = await read(file, { delimiter: ';', types: { a: type }, ...options })
  return entries.map((entry) => (isRecord(entry) ? entry.json.slice('{"a":'.length, -',"b":"x"}'.length) : 'reject'))
}

describe('a CSV file', () => {
  test('becomes objects of its columns, in their order, as JSON text', async () => {
    const { entries, fault } = await read('b,1,__proto__\nx,"y ""z""",1\n,2,\n')
    expect(fault).toBeUndefined()
    expect(entries).toEqual([
      { number: 1, json: '{"b":"x","1":"y \\"z\\"","__proto__":"1"}', offset: 27, line: 2 },
      { number: 2, json: '{"b":null,"1":"2","__proto__":null}', offset: 31, line: 3 },
    ])
  })

  test('ends its lines with LF, CRLF, CR or any of them, and need not end with one', async () => {
    for (const file of ['a,b\n1,2\n3,4\n', 'a,b\r\n1,2\r\n3,4', 'a,b\r1,2\r3,4\r', '\n\na,b\r\n\n1,2\r3,4\n\n']) {
      expect(await recordsOf(file, csv(), [1])).toEqual([
        { a: '1', b: '2' },
        { a: '3', b: '4' },
      ])
    }
  })

  test('without content, or with a header alone, has no records', async () => {
    for (const file of ['', '\ufeff', 'a,b', 'a,b\r\n', '\n\n']) expect(await recordsOf(file, csv())).toEqual([])
  })

  test('says which encoding it is in by its byte order mark, else as the format says', async () => {
    const text = 'name,price\nMüller,3 €\n'
    const expected = [{ name: 'Müller', price: '3 €' }]
    const wide = Buffer.from(`\ufeff${text}`, 'utf16le')
    expect(await recordsOf(`\ufeff${text}`, csv({ encoding: 'windows-1252' }))).toEqual(expected)
    expect(await recordsOf(wide, csv())).toEqual(expected)
    expect(await recordsOf(Buffer.from(wide).swap16(), csv(), [1, 2, 3])).toEqual(expected)
    expect(await recordsOf(wide.subarray(2), csv({ encoding: 'utf-16le' }))).toEqual(expected)
    const western = Buffer.from('name,price\nM\xfcller,3 \x80\n', 'latin1')
    expect(await recordsOf(western, csv({ encoding: 'windows-1252' }))).toEqual(expected)
    expect(await recordsOf(western, csv({ encoding: 'iso-8859-1' }))).toEqual([{ name: 'Müller', price: '3 \x80' }])
  })

  test('gives offsets in bytes of the file, whatever it is encoded in', async () => {
    const text = 'a\né😀\nx\n'
    for (const [encoding, first, second] of [
      ['utf-8', 8, 10],
      ['utf-16le', 10, 14],
      ['windows-1252', 8, 10],
    ] as const) {
      const file = Buffer.from(text, encoding === 'utf-16le' ? 'utf16le' : 'utf8')
      const { entries } = await read(file, { encoding })
      expect(entries.map(({ offset }) => offset)).toEqual([first, second])
    }
  })

  test('may have comments, lines before its header, fields with spaces around, other quotes and names of the format', async () => {
    const file = "Report of today\n\nno, use\n# c, \"\n a ; b \n\n1 ; 'x;\\'y' \n   \n # indented\n2;3\n"
    const options = { delimiter: ';', quote: "'", escape: '\\', comment: '#', trim: true, skipLines: 3 }
    expect(await recordsOf(file, csv(options))).toEqual([
      { a: '1', b: "x;'y" },
      { a: '2', b: '3' },
    ])
    expect(await recordsOf(file, csv({ ...options, columns: ['p', 'q'] }), [1])).toEqual([
      { p: '1', q: "x;'y" },
      { p: '2', q: '3' },
    ])
    expect(await recordsOf('1,"2\n', csv({ header: false, columns: ['a', 'b'], quote: null }))).toEqual([
      { a: '1', b: '"2' },
    ])
  })
})

describe('a typed column', () => {
  test('keeps the digits of integers and decimals, as JSON writes them', async () => {
    const integers = ['0', '-0', '+7', '007', '12345678901234567890123', '1.0', '', '1e3', ' 1', '--1', 'x']
    expect(await column('integer', integers)).toEqual([
      ...['0', '0', '7', '7', '12345678901234567890123', 'reject', 'null', 'reject', 'reject', 'reject', 'reject'],
    ])
    const decimals = ['1.10', '.5', '-5.', '00.0', '1,5', '1e3', '.', '-', '0.10000000000000000000001']
    expect(await column('decimal', decimals)).toEqual([
      ...['1.10', '0.5', '-5', '0.0', 'reject', 'reject', 'reject', 'reject', '0.10000000000000000000001'],
    ])
    expect(await column('number', ['1.10', '1e3', '-.5', '1e999', 'NaN', '0x1'])).toEqual([
      ...['1.1', '1000', '-0.5', 'reject', 'reject', 'reject'],
    ])
  })

  test('takes a decimal comma and groups of three digits', async () => {
    const european = { decimal: ',', grouping: '.' } as const
    const amounts = ['1.234.567,80', '-12,5', '1234,5', '1.23,4', '1.5', '1,234.5', '1,2,3', '1.234,567.890', '.123']
    expect(await column('decimal', amounts, european)).toEqual([
      ...['1234567.80', '-12.5', '1234.5', 'reject', 'reject', 'reject', 'reject', 'reject', 'reject'],
    ])
    expect(await column('integer', ["1'000", '10', '1000,0'], { decimal: ',', grouping: "'" })).toEqual([
      ...['1000', '10', 'reject'],
    ])
    expect(await column('decimal', ['1.5'], { decimal: ',' })).toEqual(['reject'])
  })

  test('takes words for booleans, JSON, and dates of the calendar', async () => {
    expect(await column('boolean', ['TRUE', 'no', '1', 'f', '2', '', 'toString'])).toEqual([
      ...['true', 'false', 'true', 'false', 'reject', 'null', 'reject'],
    ])
    expect(
      await column('json', ['{"x":1.0}', ' [1] ', '{', '"\\u0000"', `${'['.repeat(64)}${']'.repeat(64)}`]),
    ).toEqual([...['{"x":1.0}', '[1]', 'reject', 'reject', 'reject']])
    const date = { type: 'date', pattern: 'dd.MM.yyyy' } as const
    expect(await column(date, ['31.01.2025', '29.02.2024', '29.02.2023', '1.1.2025', '2025-01-31'])).toEqual([
      ...['"2025-01-31"', '"2024-02-29"', 'reject', 'reject', 'reject'],
    ])
  })

  test('is empty as null, or as "" where it is text and the format says so', async () => {
    expect(await recordsOf('a,b\n,\n', csv({ types: { b: 'integer' } }))).toEqual([{ a: null, b: null }])
    expect(await recordsOf('a,b\n,\n', csv({ types: { b: 'integer' }, empty: 'string' }))).toEqual([{ a: '', b: null }])
  })

  test('that is wrong rejects its record with the column, what stands there, and the text', async () => {
    const { rejects, records } = await read('a,n\nx,1\ny,"1,5"\nz,2\n', { types: { n: 'integer' } })
    expect(records).toHaveLength(2)
    expect(rejects).toEqual([
      { number: 2, reason: 'Column "n": "1,5" is no integer', raw: 'y,"1,5"', offset: 15, line: 3 },
    ])
  })
})

describe('a header that does not fit', () => {
  test.each<[string, string, Partial<CsvFormat>]>([
    ['names the column "a" twice', 'a,b,a\n1,2,3\n', {}],
    ['column 2 has no name', 'a,\n1,2\n', {}],
    ['no column "amount", which "types" names; it has "id", "Amount"', 'id,Amount\n', { types: { amount: 'decimal' } }],
    ['has 1 column, the format names 2', 'a;b\n', { columns: ['x', 'y'] }],
    ['The header cannot be read: A quote stands within', 'a"b,c\n', {}],
  ])('fails the file: it %s', async (what, file, options) => {
    const { fault, entries } = await read(file, options)
    expect(entries).toEqual([])
    expect(fault).toBeInstanceOf(FileFault)
    expect(fault).toMatchObject({ code: 'columns', place: { line: 1 } })
    expect((fault as FileFault).message).toContain(what)
  })

  test('does for records of other lengths only what the format says', async () => {
    const file = 'a,b\n1\n1,2\n1,2,3\n'
    const { rejects } = await read(file)
    expect(rejects.map(({ number, reason }) => [number, reason])).toEqual([
      [1, 'The record has 1 field; the file has 2 columns'],
      [3, 'The record has 3 fields; the file has 2 columns'],
    ])
    expect(await recordsOf(file, csv({ missingColumns: 'null', extraColumns: 'drop' }))).toEqual([
      { a: '1', b: null },
      { a: '1', b: '2' },
      { a: '1', b: '2' },
    ])
  })
})

describe('a stray quote', () => {
  /** Rows that are made on the way; that of number `bad` is `row`. */
  function rows(count: number, bad: number, row: string): Source {
    return async function* () {
      yield Buffer.from('id,name,amount\n')
      for (let number = 1; number <= count; ) {
        let block = ''
        for (let line = 0; line < 2_000 && number <= count; line++, number++) {
          block += number === bad ? row : `${String(number).padStart(8, '0')},"Client, Ltd",1.5\n`
        }
        yield Buffer.from(block)
      }
    }
  }

  test('at row 500,000 costs that row alone', async () => {
    for (const row of ['00500000,"Client, Ltd,1.5\n', '00500000,5" pipe,1.5\n', '00500000,"5" pipe",1.5\n']) {
      let taken = 0
      let last: Entry | undefined
      const rejects: Entry[] = []
      for await (const { entries } of openParser(rows(600_000, 500_000, row), csv())) {
        for (const entry of entries) {
          if (isRecord(entry)) taken++
          else rejects.push(entry)
        }
        last = entries.at(-1)
      }
      expect(rejects).toMatchObject([{ number: 500_000, line: 500_001, raw: row.trimEnd() }])
      expect(taken).toBe(599_999)
      expect(last).toMatchObject({ number: 600_000, line: 600_001 })
    }
  }, 60_000)

  test('that no other quote follows costs its row, and memory for one record', async () => {
    const plain = Array.from({ length: 250_000 }, (_, index) => `${index},name,1`)
    plain[100_000] = '100000,"name,1'
    const { rejects, records, fault } = await read(`id,name,amount\n${plain.join('\n')}`, {}, [65_536])
    expect(fault).toBeUndefined()
    expect(rejects).toMatchObject([{ number: 100_001, raw: '100000,"name,1', line: 100_002 }])
    expect(rejects[0]?.reason).toContain('Is longer than 1048576 bytes: a quote without its partner')
    expect(records).toHaveLength(249_999)
  })

  test('at the end of the file, or in a pair that spans lines, is found, too', async () => {
    const { rejects, records } = await read('a,b\n1,"2\n3,4\n5,"6\n7,8\n9,"10\n')
    expect(rejects.map(({ raw }) => raw)).toEqual(['1,"2', '5,"6', '9,"10'])
    expect(records).toEqual([
      { a: '3', b: '4' },
      { a: '7', b: '8' },
    ])
  })

  test('is text where the format says so', async () => {
    expect(await recordsOf('a,b\n5" pipe,x\n', csv({ relaxQuotes: true }))).toEqual([{ a: '5" pipe', b: 'x' }])
  })
})

describe('what cannot be kept', () => {
  test('a NUL rejects its record', async () => {
    const { rejects, records } = await read('a,b\n1,x\0y\n2,z\n')
    expect(rejects).toMatchObject([{ number: 1, reason: 'Holds a NUL character, which Postgres cannot store' }])
    expect(rejects[0]?.raw).toBe('1,x\ufffdy')
    expect(records).toEqual([{ a: '2', b: 'z' }])
  })

  test('a very long field rejects its record, and only its beginning is kept', async () => {
    const long = 'x'.repeat(3_000_000)
    for (const quote of ['', '"']) {
      const { rejects, records, fault } = await read(`a,b\n1,${quote}${long}${quote}\n2,y\n`, {}, [50_000])
      expect(fault).toBeUndefined()
      expect(rejects).toHaveLength(1)
      expect(rejects[0]?.raw).toStartWith(`1,${quote}xxx`)
      expect(rejects[0]?.raw).toEndWith('x [cut]')
      expect(Buffer.byteLength(rejects[0]?.raw ?? '')).toBeLessThanOrEqual(4096)
      expect(records).toEqual([{ a: '2', b: 'y' }])
    }
  })

  test('a record whose JSON is larger than a payload may be is rejected', async () => {
    const { rejects, records } = await read(
      `a\n"${'""'.repeat(600_000)}"\nx\n`,
      { maxRecordBytes: 4_000_000 },
      [65_536],
    )
    expect(rejects[0]?.reason).toContain('more than 1048576 bytes as JSON')
    expect(records).toEqual([{ a: 'x' }])
  })

  test('bytes that are not in the encoding fail the file behind the last whole record', async () => {
    const file = Buffer.concat([Buffer.from('a,b\n1,2\n3,\xe4'), Buffer.from([0xe4]), Buffer.from('\n5,6\n')])
    for (const sizes of [[1], [1000]]) {
      const { records, fault } = await read(file, {}, sizes)
      expect(records).toEqual([{ a: '1', b: '2' }])
      expect(fault).toMatchObject({ code: 'encoding', place: { line: 2, record: 2, offset: 12 } })
      expect((fault as FileFault).message).toBe(
        'The file is not in utf-8 (line 2, record 2, byte 12): set "encoding" to what the file is in, such as windows-1252',
      )
    }
  })

  test('half a character at the end, and half a pair in UTF-16, fail the file', async () => {
    expect((await read(Buffer.from('a\nx\xe2\x82', 'latin1'))).fault).toMatchObject({ code: 'encoding' })
    const wide = Buffer.from('\ufeffa\nx\n', 'utf16le')
    expect((await read(wide.subarray(0, -1))).fault).toMatchObject({ code: 'encoding' })
    const half = Buffer.concat([wide, Buffer.from([0x00, 0xd8, 0x0a, 0x00])])
    expect((await read(half)).fault).toMatchObject({ code: 'encoding' })
  })
})
