import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { checkJsonText, elementSpans, memberSpans, type Span } from '../../../src/task/json/text.ts'

const check = (text: string, maxDepth?: number) => checkJsonText(text, maxDepth === undefined ? {} : { maxDepth })
const codeOf = (text: string, maxDepth?: number) => {
  const checked = check(text, maxDepth)
  return checked.ok ? 'ok' : checked.code
}

function parses(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

function members(text: string, span?: Span): Map<string, Span> {
  const found = memberSpans(text, span)
  if (!found?.ok) throw new Error(`no members in ${text}`)
  return found.members
}

/** Well-formed strings without NUL: what may be kept. */
const keptString = fc
  .string({ unit: 'binary', maxLength: 12 })
  .filter((text) => text.isWellFormed() && !text.includes('\0'))
const keptValue = fc.jsonValue({ maxDepth: 5 }).map((value) => JSON.parse(JSON.stringify(value, dropRefused)))
function dropRefused(_key: string, value: unknown): unknown {
  return typeof value === 'string' ? value.toWellFormed().replaceAll('\0', '') : value
}
/** JSON texts of one value with any indentation, escaped or raw. */
const jsonText = fc
  .tuple(keptValue, fc.constantFrom('', ' ', '\t', '\r\n '), fc.boolean())
  .map(([value, indent, escaped]) => {
    const text = JSON.stringify(value, null, indent)
    return escaped
      ? text.replace(/[^\0-\x7f]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
      : text
  })

describe('checkJsonText', () => {
  test('takes every JSON text that can be kept, however it is written', () => {
    fc.assert(
      fc.property(jsonText, (text) => {
        expect(check(text)).toEqual({ ok: true })
      }),
    )
  })

  test('calls exactly those texts malformed that JSON.parse refuses', () => {
    const token = fc.constantFrom(
      ...['{', '}', '[', ']', ',', ':', '"a"', '"', '\\', 'true', 'nul', 'null', '0', '-', '1', '.5', 'e', 'E+2', '01'],
      ...[
        ' ',
        '\n',
        '\t',
        '\f',
        '\u00a0',
        '\ufeff',
        '"\\u00e9"',
        '"\\u12"',
        '"\\x"',
        '"\n"',
        '"\\ud800"',
        "'a'",
        '/**/',
      ],
    )
    const soup = fc.array(token, { maxLength: 8 }).map((tokens) => tokens.join(''))
    fc.assert(
      fc.property(soup, (text) => {
        expect(codeOf(text) !== 'malformed-json').toBe(parses(text))
      }),
      { numRuns: 3_000 },
    )
  })

  test('agrees with JSON.parse on texts that were damaged by one character', () => {
    const damage = fc.tuple(jsonText, fc.nat(), fc.constantFrom('', '"', '\\', '{', ']', ',', ':', '-', '0', 'e', '\n'))
    fc.assert(
      fc.property(damage, ([text, position, insert]) => {
        const at = position % (text.length + 1)
        const damaged = text.slice(0, at) + insert + text.slice(at + (insert === '' ? 1 : 0))
        expect(codeOf(damaged) !== 'malformed-json').toBe(parses(damaged))
      }),
      { numRuns: 3_000 },
    )
  })

  test('says where a text stops being JSON', () => {
    expect(check('{"a":1,}')).toMatchObject({
      code: 'malformed-json',
      offset: 7,
      reason: 'expected a name in double quotes',
    })
    expect(check('[1 2]')).toMatchObject({ code: 'malformed-json', offset: 3, reason: 'expected "," or "]"' })
    expect(check('{"a"')).toMatchObject({ code: 'malformed-json', offset: 4, reason: 'the text ends too early' })
    expect(check('')).toMatchObject({ code: 'malformed-json', offset: 0 })
  })

  test('counts nesting by open arrays and objects and refuses one level too many', () => {
    const nested = (depth: number) => `${'[{"a":'.repeat(depth / 2)}1${'}]'.repeat(depth / 2)}`
    expect(codeOf(nested(64))).toBe('ok')
    expect(check(nested(66))).toMatchObject({
      code: 'validation',
      reason: 'is nested deeper than 64 levels',
      offset: 192,
    })
    expect(codeOf('[[1],[2],[3]]', 2)).toBe('ok')
    expect(check('{"payload":[[],[[1]]]}', 3)).toMatchObject({ ok: false, path: '/payload/1/0' })
  })

  test('ends on a nesting bomb without reading it', () => {
    const bomb = '['.repeat(30_000_000)
    const start = performance.now()
    expect(codeOf(bomb)).toBe('validation')
    expect(performance.now() - start).toBeLessThan(1_000)
  })

  test('names the place of a NUL, a lone surrogate and a number out of range', () => {
    expect(check('{"a":[1,{"b/c~":"x\\u0000"}]}')).toMatchObject({ code: 'validation', path: '/a/1/b~1c~0' })
    expect(check('{"a":["\\ud83d"]}')).toMatchObject({ code: 'validation', path: '/a/0' })
    expect(check('{"a":"\ud83d x"}')).toMatchObject({ code: 'validation', path: '/a' })
    expect(check('{"a":1,"b":1e999}')).toMatchObject({ code: 'validation', path: '/b', offset: 11 })
    expect(check('{"a":{"x\\u0000":1}}')).toMatchObject({ code: 'validation', path: '/a' })
    expect(check('"\\u0000"')).toMatchObject({ code: 'validation', path: '' })
  })

  test('takes surrogate pairs and refuses halves, raw and escaped', () => {
    for (const text of ['"\\ud83d\\ude00"', '"😀"', '"\\uD83D\\uDE00\\u00e9"', '"\\\\u0000"', '"\\\\ud800"']) {
      expect(codeOf(text)).toBe('ok')
    }
    const halves = [
      '\\ude00',
      '\\ud83d\\ud83d',
      '\\ud83dx',
      '\\ude00\\ud83d',
      '\ude00',
      '\ud83d\\ude00',
      '\\ud83d\ude00',
    ]
    for (const half of halves) expect(codeOf(`"${half}"`)).toBe('validation')
  })

  test('refuses exactly those strings whose decoded text holds a NUL or a lone surrogate', () => {
    const unit = fc.constantFrom('a', '\\u0000', '\\ud83d', '\\uDE00', '\\n', '\\\\', 'u0000', 'é')
    fc.assert(
      fc.property(fc.array(unit, { maxLength: 6 }), (units) => {
        const text = `"${units.join('')}"`
        const decoded = JSON.parse(text) as string
        expect(codeOf(text) === 'ok').toBe(decoded.isWellFormed() && !decoded.includes('\0'))
      }),
      { numRuns: 1_000 },
    )
  })

  test('takes numbers in a range that doubles and Postgres share, however many digits they have', () => {
    const taken = [
      '0',
      '-0.0',
      '1.0',
      '12345678901234567890123',
      '1.7e308',
      '5e-324',
      '1e-16383',
      '9'.repeat(308),
      '0e0005',
    ]
    for (const number of taken) expect([number, codeOf(number)]).toEqual([number, 'ok'])
    const refused = [
      '1e999',
      '-1E+400',
      '9'.repeat(310),
      '1e-16384',
      '1.5e-16383',
      '0e99999',
      `0.${'0'.repeat(16_384)}`,
    ]
    for (const number of refused) expect([number, codeOf(number)]).toEqual([number, 'validation'])
  })

  test('calls a text malformed when it is, whatever else is wrong before', () => {
    expect(codeOf('["\\u0000", 1e999,]')).toBe('malformed-json')
  })

  test('checks 32 MiB in well under two seconds', () => {
    const task = JSON.stringify({
      type: 'mail',
      payload: { to: 'someone@example.com', text: 'x'.repeat(300), n: [1, 2.5] },
    })
    const text = `[${Array(Math.floor((32 * 1024 * 1024) / (task.length + 1)))
      .fill(task)
      .join(',')}]`
    const parsing = performance.now()
    JSON.parse(text)
    const start = performance.now()
    expect(codeOf(text)).toBe('ok')
    const elements = elementSpans(text) ?? []
    for (const element of elements) members(text, element)
    // Where JSON.parse itself is slow, so is the machine.
    expect(performance.now() - start).toBeLessThan(Math.max(2_000, 20 * (start - parsing)))
    expect(elements.length).toBeGreaterThan(80_000)
  })
})

describe('memberSpans', () => {
  test('cuts out exactly the values that JSON.parse reads', () => {
    const object = fc.dictionary(keptString, keptValue, { maxKeys: 6, noNullPrototype: true })
    fc.assert(
      fc.property(object, fc.constantFrom(undefined, 2), (value, indent) => {
        const text = ` ${JSON.stringify(value, null, indent)}\n`
        const parsed = JSON.parse(text) as Record<string, unknown>
        const found = members(text)
        expect([...found.keys()].sort()).toEqual(Object.keys(parsed).sort())
        for (const [name, [start, end]] of found) {
          const slice = text.slice(start, end)
          expect(slice).toBe(slice.trim())
          expect(JSON.parse(slice)).toEqual(parsed[name])
        }
      }),
    )
  })

  test('keeps the very text of a value', () => {
    const text = '{"type":"a" , "payload" : {"b": 1.0, "a":12345678901234567890, "c":"}\\"]"} }'
    const [start, end] = members(text).get('payload') as Span
    expect(text.slice(start, end)).toBe('{"b": 1.0, "a":12345678901234567890, "c":"}\\"]"}')
  })

  test('reads a name that is written with escapes', () => {
    expect([...members('{"pay\\u006coad":1,"__proto__":2}').keys()]).toEqual(['payload', '__proto__'])
  })

  test('refuses a name that stands there twice, escaped or not, and names it', () => {
    expect(memberSpans('{"a":1,"\\u0061":2}')).toMatchObject({ ok: false, code: 'validation', path: '/a', offset: 7 })
    const batch = '[{"a":1},{"b":1,"b":2}]'
    const second = elementSpans(batch)?.[1] as Span
    expect(memberSpans(batch, second)).toMatchObject({ ok: false, path: '/1/b' })
  })

  test('leaves names inside the values alone', () => {
    expect([...members('{"a":{"b":1,"b":2},"b":[{"a":1}]}').keys()]).toEqual(['a', 'b'])
  })

  test('is undefined for anything but an object', () => {
    for (const text of ['[]', '1', '"{}"', 'null']) expect(memberSpans(text)).toBeUndefined()
  })
})

describe('elementSpans', () => {
  test('cuts out exactly the elements that JSON.parse reads', () => {
    fc.assert(
      fc.property(fc.array(keptValue, { maxLength: 6 }), fc.constantFrom(undefined, 2), (value, indent) => {
        const text = `\n${JSON.stringify(value, null, indent)} `
        const found = elementSpans(text) ?? []
        expect(found.map(([start, end]) => JSON.parse(text.slice(start, end)))).toEqual(JSON.parse(text))
      }),
    )
  })

  test('is undefined for anything but an array', () => {
    for (const text of ['{}', '1', '"[]"', 'null']) expect(elementSpans(text)).toBeUndefined()
  })
})
