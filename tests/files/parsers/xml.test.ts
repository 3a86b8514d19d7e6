import { describe, expect, test } from 'bun:test'
import type { FileFault } from '../../../src/files/file-fault.ts'
import type { XmlFormat } from '../../../src/task/source/file-format.ts'
import { pieces, readAll } from '../reading.ts'

const read = (file: string | Uint8Array, options: Partial<XmlFormat> = {}, sizes?: number[]) =>
  readAll(pieces(file, sizes), { type: 'xml', path: '/rows/row', ...options })
const records = async (content: string, options: Partial<XmlFormat> = {}) => {
  const { records, rejects, fault } = await read(`<rows>${content}</rows>`, options)
  expect({ fault, rejects }).toEqual({ fault: undefined, rejects: [] })
  return records
}

describe('an XML record', () => {
  test('has attributes, text, children, and arrays of repeated children', async () => {
    const content = `<row id="1" x="&lt;&#233;"><a>1</a><a>2</a><b c="d">t<!-- - -->u</b><e/> <f><![CDATA[<&]]></f></row>`
    expect(await records(content)).toEqual([
      { '@id': '1', '@x': '<é', a: ['1', '2'], b: { '@c': 'd', '#text': 'tu' }, e: null, f: '<&' },
    ])
    expect(await records('<row>text</row><row/><row a="1"/>')).toEqual(['text', null, { '@a': '1' }])
    expect(await records('<row> x <a> y </a></row>', { trim: true })).toEqual([{ a: 'y', '#text': 'x' }])
    expect(await records('<row><a/><b/></row>', { arrays: ['a'], empty: 'string' })).toEqual([{ a: [''], b: '' }])
    expect(await records('<row><__proto__>1</__proto__><constructor/></row>')).toEqual([
      JSON.parse('{"__proto__":"1","constructor":null}'),
    ])
  })

  test('has its namespaces stripped or kept', async () => {
    const file = '<n:rows xmlns:n="urn:n"><n:row xmlns="urn:m" n:id="1"><m:a xmlns:m="urn:m">x</m:a></n:row></n:rows>'
    expect((await read(file)).records).toEqual([{ '@id': '1', a: 'x' }])
    expect((await read(file, { path: '/n:rows/n:row', namespaces: 'keep' })).records).toEqual([
      { '@xmlns': 'urn:m', '@n:id': '1', 'm:a': { '@xmlns:m': 'urn:m', '#text': 'x' } },
    ])
  })

  test('stands at its path and nowhere else', async () => {
    const file = '<rows><row>1</row><x><row>2</row></x><row><row>3</row></row></rows>'
    expect((await read(file)).records).toEqual(['1', { row: '3' }])
    expect((await read(file, { path: '/rows/*/row' })).records).toEqual(['2', '3'])
    expect((await read(file, { path: '/*/x' })).records).toEqual([{ row: '2' }])
    expect((await read('<row>1</row>', { path: '/row' })).records).toEqual(['1'])
    expect(await records('')).toEqual([])
  })

  test('that nests deeper than a payload may is rejected, and reading goes on', async () => {
    const nested = (depth: number, arrays = '') => `<row>${'<a>'.repeat(depth)}${arrays}${'</a>'.repeat(depth)}</row>`
    const { rejects, records } = await read(
      `<rows>${nested(40)}${nested(64)}<row id="1&quot;">${nested(70)}x</row><row>1</row></rows>`,
    )
    expect(records).toHaveLength(2)
    expect(rejects.map(({ number, reason }) => [number, reason])).toEqual([
      [2, 'Is nested deeper than 64 levels'],
      [3, 'Is nested deeper than 64 levels'],
    ])
    expect(rejects[1]?.raw).toStartWith('<row id="1""><row><a><a>')
    const arrays = await read(`<rows><row>${'<a>'.repeat(40)}${'</a>'.repeat(40)}</row></rows>`, { arrays: ['a'] })
    expect(arrays.rejects[0]?.reason).toContain('nested deeper than 64 levels')
  })

  test('that is longer than may be is rejected, and only its beginning is kept', async () => {
    const long = `<row><a>${'x'.repeat(700_000)}</a><a>${'y'.repeat(700_000)}</a><b/></row>`
    for (const sizes of [[50_000], [3_000_000]]) {
      const { rejects, records, fault } = await read(`<rows>${long}<row>1</row></rows>`, {}, sizes)
      expect(fault).toBeUndefined()
      expect(records).toEqual(['1'])
      expect(rejects).toMatchObject([{ number: 1 }])
      expect(rejects[0]?.raw).toStartWith('<row><a>xxx')
      expect(Buffer.byteLength(rejects[0]?.raw ?? '')).toBeLessThanOrEqual(4096)
    }
  })
})

describe('an XML file', () => {
  test('may be in the encoding that it declares', async () => {
    const text = '<?xml version="1.0" encoding="NAME"?><rows><row>M\xfcller \x80</row></rows>'
    const inLatin = (name: string) => read(Buffer.from(text.replace('NAME', name), 'latin1'))
    expect((await inLatin('ISO-8859-1')).records).toEqual(['Müller \x80'])
    expect((await inLatin('windows-1252')).records).toEqual(['Müller €'])
    expect((await inLatin('UTF-8')).fault).toMatchObject({ code: 'encoding' })
    expect((await inLatin('Shift_JIS')).fault).toMatchObject({ code: 'unsupported' })
    const wide = Buffer.from('<?xml version="1.0" encoding="UTF-16"?><rows><row>é</row></rows>', 'utf16le')
    expect((await read(wide)).records).toEqual(['é'])
    expect((await read(wide.swap16())).records).toEqual(['é'])
  })

  test('with an entity bomb, or any DOCTYPE, is refused before anything is expanded', async () => {
    const levels = Array.from({ length: 9 }, (_, i) => `<!ENTITY l${i + 1} "${`&l${i};`.repeat(10)}">`).join('')
    const bomb = `<?xml version="1.0"?><!DOCTYPE r [<!ENTITY l0 "lol">${levels}]><rows><row>&l9;</row></rows>`
    const external = '<!DOCTYPE rows SYSTEM "file:///etc/passwd"><rows><row/></rows>'
    for (const file of [bomb, external]) {
      const { fault, entries } = await read(file)
      expect(entries).toEqual([])
      expect(fault).toMatchObject({ code: 'unsupported' })
      expect((fault as FileFault).message).toContain('The file has a DOCTYPE, which is refused (line 1, byte ')
    }
  })

  test('knows the entities of XML and characters by number, and no others', async () => {
    expect(await records('<row>&amp;&lt;&gt;&quot;&apos;&#65;&#x1F600;</row>')).toEqual(['&<>"\'A😀'])
    for (const name of ['nbsp', 'x', 'constructor', 'toString', '__proto__', '#0', '#xD800', '#x110000']) {
      expect((await read(`<rows><row>&${name};</row></rows>`)).fault).toMatchObject({ code: 'malformed' })
    }
  })

  test.each<[string, string, string, object]>([
    ['is empty', 'truncated', '', {}],
    ['ends within a record', 'truncated', '<rows><row>1</row>\n<row>2', { line: 2, record: 2 }],
    ['ends within its root', 'truncated', '<rows><row>1</row>\n', { line: 2 }],
    ['closes another element', 'malformed', '<rows><row>1</row>\n<row></rows>', { line: 2, record: 2, offset: 31 }],
    ['has an unquoted attribute', 'malformed', '<rows><row a=1/></rows>', { line: 1 }],
    ['has a control character', 'malformed', '<rows><row>\x01</row></rows>', { line: 1 }],
    ['has no such elements', 'not-found', '<orders><row>1</row></orders>', {}],
    ['nests without end', 'too-large', '<a>'.repeat(1_500), { line: 1 }],
  ])('that %s fails (%s)', async (_, code, file, place) => {
    for (const sizes of [[1], [100_000]]) {
      const { fault, entries } = await read(file, {}, sizes)
      expect(fault).toMatchObject({ code, place })
      expect(entries.length).toBeLessThanOrEqual(1)
    }
  })

  test('with a comment, tag or text without end fails in bounded memory', async () => {
    const endless = (start: string) =>
      async function* () {
        yield Buffer.from(start)
        const block = Buffer.alloc(65_536, 'x ')
        for (let index = 0; index < 2_000; index++) yield block
      }
    for (const start of ['<rows><!-- ', '<rows><row a="', '<rows><row>', '<rows><![CDATA[', '<!DOCTYPE x ']) {
      const { fault } = await readAll(endless(start), { type: 'xml', path: '/rows/row' })
      expect(fault).toMatchObject({ code: 'too-large' })
    }
  })
})
