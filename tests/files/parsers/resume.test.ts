import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { FileFault } from '../../../src/files/file-fault.ts'
import type { Entry } from '../../../src/files/parsers/parsed.ts'
import type { Encoding, FileFormat } from '../../../src/task/source/file-format.ts'
import { isRecord, pieces, readAll } from '../reading.ts'

/*
 * For each format: records that are generated, written as a file and read in any pieces are the records again; and from
 * each checkpoint on come exactly the entries that would have followed.
 */

const sizes = fc.array(fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 300 })), {
  minLength: 1,
  maxLength: 6,
})

async function expectEveryWay(file: Uint8Array, format: FileFormat, records: unknown[] | undefined, cuts: number[]) {
  const whole = await readAll(pieces(file, [1 << 20]), format)
  expect(whole.fault).toBeUndefined()
  if (records) {
    expect(whole.rejects).toEqual([])
    expect(whole.records).toEqual(records)
  }
  const inPieces = await readAll(pieces(file, cuts), format)
  expect(inPieces.entries.map(told)).toEqual(whole.entries.map(told))
  expect(whole.entries.map(({ number }) => number)).toEqual(whole.entries.map((_, index) => index + 1))
  for (const [index, checkpoint] of inPieces.checkpoints.entries()) {
    const rest = await readAll(pieces(file, cuts), format, checkpoint)
    expect(rest.fault).toBeUndefined()
    expect(rest.entries.map(told)).toEqual(whole.entries.slice(index + 1).map(told))
  }
}

/** Which of two reasons for a reject is met first may depend on the pieces. */
const told = (entry: Entry) => (isRecord(entry) ? entry : { ...entry, reason: '' })

const kept = (text: string) => text.isWellFormed() && !text.includes('\0')
const text = fc
  .oneof(
    fc.string({
      unit: fc.constantFrom('a', '"', ',', ';', '\n', '\r', '\\', ' ', 'é', '€', '😀', '#', '\t'),
      maxLength: 8,
    }),
    fc.string({ unit: 'binary', maxLength: 8 }),
  )
  .filter(kept)

describe('CSV', () => {
  const rows = fc
    .integer({ min: 1, max: 4 })
    .chain((columns) =>
      fc
        .array(fc.array(text, { minLength: columns, maxLength: columns }), { maxLength: 12 })
        .map((fields) => ({ columns, fields })),
    )
  const style = fc.record({
    delimiter: fc.constantFrom(',', ';', '\t', '||'),
    lineBreak: fc.constantFrom('\n', '\r\n', '\r'),
    encoding: fc.constantFrom<Encoding>('utf-8', 'utf-16le', 'utf-16be'),
    mark: fc.boolean(),
    escapeMark: fc.constantFrom('"', '\\'),
    ends: fc.boolean(),
    comments: fc.boolean(),
  })

  test('every record comes back from a file in any style and pieces, and from every checkpoint', async () => {
    await fc.assert(
      fc.asyncProperty(rows, style, sizes, async ({ columns, fields }, style, cuts) => {
        const { delimiter, lineBreak, encoding, mark, escapeMark, ends, comments } = style
        const names = Array.from({ length: columns }, (_, index) => `c${index}`)
        const quote = (field: string) =>
          `"${escapeMark === '"' ? field.replaceAll('"', '""') : field.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`
        const lines = [names, ...fields].map((row) => row.map(quote).join(delimiter))
        const between = comments ? `${lineBreak}# "not a record${lineBreak}${lineBreak}` : lineBreak
        const written = (mark ? '\ufeff' : '') + lines.join(between) + (ends ? lineBreak : '')
        const format: FileFormat = {
          type: 'csv',
          delimiter,
          encoding,
          escape: escapeMark,
          empty: 'string',
          ...(comments && { comment: '#' }),
        }
        const records = fields.map((row) => Object.fromEntries(row.map((field, index) => [names[index], field])))
        await expectEveryWay(encode(written, encoding), format, records, cuts)
      }),
      { numRuns: 150 },
    )
  })

  test('whatever stands in the file, pieces and checkpoints change nothing', async () => {
    const soup = fc
      .array(
        fc.constantFrom('a', 'b"', '"', '""', ',', '\n', '\r\n', '"x"', ',"', '",', '#', ' ', '1,2\n', '"a\nb",c\n'),
        { maxLength: 150, size: 'max' },
      )
      .map((parts) => parts.join(''))
    const options = fc.record({
      trim: fc.boolean(),
      relaxQuotes: fc.boolean(),
      comment: fc.constantFrom('#', undefined),
      maxRecordBytes: fc.constantFrom(1024, 3, 6, 12),
    })
    await fc.assert(
      fc.asyncProperty(soup, sizes, options, async (soup, cuts, { comment, ...options }) => {
        const format: FileFormat = {
          type: 'csv',
          header: false,
          columns: ['a', 'b'],
          ...options,
          ...(comment && { comment }),
        }
        await expectEveryWay(Buffer.from(soup), format, undefined, cuts)
      }),
      { numRuns: 250 },
    )
  })
})

const jsonText = fc
  .tuple(fc.jsonValue({ maxDepth: 3 }), fc.constantFrom(undefined, '\t'))
  .filter(([value]) => !/\\u0000|\\u[dD][89a-fA-F]/.test(JSON.stringify(value)))
  .map(([value, indent]) => JSON.stringify(value, null, indent))

describe('JSON arrays', () => {
  test('every element comes back as its very text, from any place, in any pieces, and from every checkpoint', async () => {
    const space = fc.constantFrom('', ' ', '\n', '\r\n')
    await fc.assert(
      fc.asyncProperty(
        fc.array(jsonText, { maxLength: 8 }),
        space,
        jsonText,
        sizes,
        async (elements, space, other, cuts) => {
          const array = `[${space}${elements.join(`${space},${space}`)}${space}]`
          const file = `{"a~/b":[${other},{"rows":${array},"more":${other}}],"x":${space}${other}}${space}`
          const format: FileFormat = { type: 'json', path: '/a~0~1b/1/rows' }
          await expectEveryWay(
            Buffer.from(file),
            format,
            elements.map((element) => JSON.parse(element)),
            cuts,
          )
          const { entries } = await readAll(pieces(array, cuts), { type: 'json' })
          expect(entries.map((entry) => 'json' in entry && entry.json)).toEqual(elements)
        },
      ),
      { numRuns: 150 },
    )
  })
})

describe('JSON Lines', () => {
  test('every line comes back, in any pieces, and from every checkpoint', async () => {
    const line = fc.oneof(
      jsonText.map((text) => JSON.stringify(JSON.parse(text))),
      fc.constantFrom('{"a":', '', ' ', '{"a":"\\u0000"}', 'é'),
    )
    await fc.assert(
      fc.asyncProperty(
        fc.array(line, { maxLength: 12 }),
        fc.constantFrom('\n', '\r\n'),
        sizes,
        async (lines, end, cuts) => {
          await expectEveryWay(Buffer.from(lines.join(end)), { type: 'json', lines: true }, undefined, cuts)
        },
      ),
      { numRuns: 150 },
    )
  })
})

describe('XML', () => {
  test('every record comes back, in any pieces and encoding, and from every checkpoint', async () => {
    const value = text.filter((text) => /^[\t\n\x20-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]*$/u.test(text))
    const records = fc.array(
      fc.record({ id: value, name: value, tags: fc.array(value, { minLength: 2, maxLength: 3 }) }),
      {
        maxLength: 8,
      },
    )
    const encoding = fc.constantFrom<Encoding>('utf-8', 'utf-16le', 'utf-16be')
    await fc.assert(
      fc.asyncProperty(records, encoding, fc.boolean(), sizes, async (records, encoding, inCdata, cuts) => {
        const escaped = (text: string) => text.replace(/[&<>"\t\n\r]/g, (char) => `&#${char.charCodeAt(0)};`)
        const content = (text: string) =>
          inCdata && !text.includes(']]>') && !text.includes('\r') ? `<![CDATA[${text}]]>` : escaped(text)
        const written = records.map(
          ({ id, name, tags }) =>
            `<o:order id="${escaped(id)}"><name>${content(name)}</name>${tags.map((tag) => `<tag>${content(tag)}</tag>`).join('')}</o:order>`,
        )
        const file = `\ufeff<?xml version="1.0"?><!-- " --><orders xmlns:o="urn:o">\n${written.join('\n')}\n</orders>`
        const format: FileFormat = { type: 'xml', path: '/orders/order', empty: 'string' }
        const expected = records.map(({ id, name, tags }) => ({ '@id': id, name, tag: tags }))
        await expectEveryWay(encode(file, encoding), format, expected, cuts)
      }),
      { numRuns: 100 },
    )
  })
})

describe('damaged files', () => {
  const damaged = (tokens: string[], start: string) =>
    fc.array(fc.constantFrom(...tokens), { maxLength: 40, size: 'max' }).map((parts) => start + parts.join(''))
  const json = damaged(
    [
      '{',
      '}',
      '[',
      ']',
      ',',
      ':',
      '"a"',
      '"',
      '\\',
      '1',
      'true',
      'x',
      ' ',
      '\n',
      '{"a":[1]},',
      '"rows":[',
      '"rows":[1,2],',
      'é',
    ],
    '',
  )
  const xml = damaged(
    [
      '<r>',
      '</r>',
      '<x>',
      '</x>',
      '<x a="1"/>',
      '<',
      '>',
      '&amp;',
      '&',
      '"',
      '=',
      'x',
      ' ',
      '\n',
      '<!--',
      '-->',
      ']]>',
      '<![CDATA[',
      '<?p',
      '?>',
    ],
    `<r>${' '.repeat(300)}`,
  )
  const formats: [string, fc.Arbitrary<string>, FileFormat][] = [
    ['JSON', json, { type: 'json' }],
    ['JSON at a path', json.map((text) => `{${text}`), { type: 'json', path: '/rows', maxRecordBytes: 8 }],
    ['XML', xml, { type: 'xml', path: '/r/x' }],
  ]

  test.each(formats)('of %s end in the same records and the same fault, in any pieces', async (_, files, format) => {
    await fc.assert(
      fc.asyncProperty(files, sizes, async (file, cuts) => {
        const whole = await readAll(pieces(file, [1 << 20]), format)
        const inPieces = await readAll(pieces(file, cuts), format)
        expect(inPieces.entries).toEqual(whole.entries)
        expect(whole.fault === undefined || whole.fault instanceof FileFault).toBe(true)
        // saxes sees some faults of text only at the text's end.
        if (format.type === 'xml') expect(whatOf(inPieces.fault)).toEqual(whatOf(whole.fault))
        else expect(inPieces.fault).toEqual(whole.fault)
      }),
      { numRuns: 500 },
    )
  })
})

const whatOf = (fault: unknown) => fault instanceof FileFault && [fault.code, fault.what]

function encode(text: string, encoding: Encoding): Uint8Array {
  if (encoding === 'utf-8') return Buffer.from(text)
  const bytes = Buffer.from(text, 'utf16le')
  return encoding === 'utf-16le' ? bytes : bytes.swap16()
}
