import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { mkdtempSync, readdirSync, readlinkSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { createGzip, gzipSync } from 'node:zlib'
import type { FileFault } from '../../src/files/file-fault.ts'
import { openFile } from '../../src/files/open-file.ts'
import type { Checkpoint } from '../../src/files/parsers/parsed.ts'
import type { Compression } from '../../src/task/source/compression.ts'
import type { FormatChoice } from '../../src/task/source/file-format.ts'
import { type ZipEntry, zipArchive } from '../support/zip-archive.ts'
import { collect } from './reading.ts'

let folder: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'longshore-files-'))
})
afterAll(() => rmSync(folder, { recursive: true }))

const BY_EXTENSION: FormatChoice = { type: 'by-extension', xml: { path: '/rows/row' } }
const rows = (from: number, to: number) => Array.from({ length: to - from }, (_, index) => ({ id: `${from + index}` }))
const csvOf = (records: { id: string }[]) => `id\n${records.map(({ id }) => `${id}\n`).join('')}`

async function read(
  name: string,
  content: Uint8Array | string,
  {
    format = BY_EXTENSION,
    ...more
  }: { format?: FormatChoice; compression?: Compression; checkpoint?: Checkpoint } = {},
) {
  const path = join(folder, 'spool')
  writeFileSync(path, content)
  let onDisk = 0
  const onRead = (bytes: number) => {
    onDisk += bytes
  }
  return { ...(await collect(openFile({ path, name, format, onRead, ...more }))), onDisk }
}

async function expectResume(name: string, content: Uint8Array, compression: Compression = {}) {
  const whole = await read(name, content, { compression })
  expect(whole.fault).toBeUndefined()
  expect(whole.onDisk).toBeGreaterThan(0)
  for (const [index, checkpoint] of whole.checkpoints.entries()) {
    const rest = await read(name, content, { compression, checkpoint })
    expect(rest.fault).toBeUndefined()
    expect(rest.entries).toEqual(whole.entries.slice(index + 1))
  }
  return whole
}

describe('a file on disk', () => {
  test('is read by its extension', async () => {
    const expected = [{ id: '1' }, { id: '2' }]
    for (const [name, content] of [
      ['a.csv', 'id\n1\n2\n'],
      ['A.CSV', 'id\n1\n2\n'],
      ['a.tsv', 'id\tx\n1\t\n2\t\n'],
      ['a.json', '[{"id":"1"},{"id":"2"}]'],
      ['a.ndjson', '{"id":"1"}\n{"id":"2"}'],
      ['a.jsonl', '{"id":"1"}\n{"id":"2"}'],
      ['a.xml', '<rows><row><id>1</id></row><row><id>2</id></row></rows>'],
    ] as const) {
      const format = name === 'a.tsv' ? { ...BY_EXTENSION, csv: { delimiter: ';' } } : BY_EXTENSION
      for (const zipped of [false, true]) {
        const { records, fault } = await read(zipped ? `${name}.gz` : name, zipped ? gzipSync(content) : content, {
          format,
        })
        expect(fault).toBeUndefined()
        expect(records.map((record) => ({ id: (record as { id: string }).id }))).toEqual(expected)
      }
    }
    for (const name of ['a.txt', 'a', 'a.gz', 'a.csv.old']) {
      const { fault } = await read(name, name.endsWith('gz') ? gzipSync('') : '')
      expect(fault).toMatchObject({ code: 'unsupported' })
    }
    expect((await read('a.xml', '<a/>', { format: { type: 'by-extension' } })).fault).toMatchObject({
      code: 'unsupported',
    })
  })

  test('of any name is read as the format says', async () => {
    const { records } = await read('a.txt', 'id\n1\n', { format: { type: 'csv' } })
    expect(records).toEqual([{ id: '1' }])
  })

  test('that is not there says so', async () => {
    const { fault } = await collect(openFile({ path: join(folder, 'gone'), name: 'a.csv', format: BY_EXTENSION }))
    expect(fault).toMatchObject({ code: 'ENOENT' })
  })

  test('is closed when reading ends early, by a fault, or by itself', async () => {
    const path = join(folder, 'open')
    const isOpen = () =>
      readdirSync('/proc/self/fd').some((fd) => {
        try {
          return readlinkSync(`/proc/self/fd/${fd}`) === path
        } catch {
          return false
        }
      })
    const csv = csvOf(rows(0, 100_000))
    for (const [name, content] of [
      ['a.csv', csv],
      ['a.csv.gz', gzipSync(csv)],
      ['a.zip', zipArchive([{ name: 'a.csv', content: csv }])],
      ['a.zip', zipArchive([{ name: 'a.csv', content: `${csv}\xff` }])],
    ] as const) {
      writeFileSync(path, content)
      for await (const { entries } of openFile({ path, name, format: BY_EXTENSION })) {
        expect(entries.length).toBeGreaterThan(0)
        break
      }
      await collect(openFile({ path, name, format: BY_EXTENSION }))
      // Streams close on a later turn.
      while (isOpen()) await new Promise((resolve) => setImmediate(resolve))
    }
  })
})

describe('a gzip file', () => {
  test('of one or many members is one file, and resumes at every checkpoint', async () => {
    const members = [csvOf(rows(0, 20)), '20\n21', '\n22\n', ''].map((text) => gzipSync(text))
    const { records, onDisk } = await expectResume('a.csv.gz', Buffer.concat(members))
    expect(records).toEqual(rows(0, 23))
    expect(onDisk).toBe(Buffer.concat(members).length)
  })

  test('that ends too early fails behind the records that came whole', async () => {
    const whole = gzipSync(csvOf(rows(0, 200_000)))
    for (const size of [0, 5, 12, 100_000, whole.length - 1]) {
      const { entries, fault } = await read('a.csv.gz', whole.subarray(0, size))
      expect(fault).toMatchObject({ code: 'truncated' })
      if (size > 100_000) expect(entries.length).toBeGreaterThan(100_000)
    }
    const second = Buffer.concat([gzipSync('id\n1\n'), gzipSync('2\n').subarray(0, 15)])
    expect((await read('a.csv.gz', second)).fault).toMatchObject({ code: 'truncated' })
  })

  test('that is damaged, or none, fails', async () => {
    const damaged = gzipSync(csvOf(rows(0, 1000)))
    damaged[damaged.length - 6] = (damaged.at(-6) ?? 0) ^ 1
    expect((await read('a.csv.gz', damaged)).fault).toMatchObject({ code: 'malformed' })
    const { fault } = await read('a.csv.gz', 'id\n1\n')
    expect((fault as FileFault).message).toContain('The file is not compressed as its name says, or is damaged')
    expect((await read('a.csv', 'id\n1\n', { compression: { kind: 'gzip' } })).fault).toMatchObject({
      code: 'malformed',
    })
  })

  test('that is a bomb fails as soon as it shows', async () => {
    const lines = async function* () {
      const block = Buffer.alloc(1 << 20, `"${'x'.repeat((1 << 16) - 3)}"\n`)
      for (let index = 0; index < 100; index++) yield block
    }
    const packed: Buffer[] = []
    await pipeline(lines, createGzip(), async (output: AsyncIterable<Buffer>) => {
      for await (const chunk of output) packed.push(chunk)
    })
    const bomb = Buffer.concat(packed)
    const format: FormatChoice = { type: 'json', lines: true }
    const dense = await read('a.ndjson.gz', bomb, { format })
    expect((dense.fault as FileFault).message).toStartWith(
      'The file decompresses to more than 200 times its size: is it a bomb?',
    )
    // The bound does not count for the first 64 MiB.
    expect(dense.entries.length).toBeGreaterThan(1000)
    expect(dense.entries.length).toBeLessThan(1100)
    const large = await read('a.ndjson.gz', bomb, { format, compression: { maxBytes: 1 << 20 } })
    expect(large.fault).toMatchObject({ code: 'too-large' })
    expect(large.entries.length).toBeLessThan(17)
    expect((await read('a.ndjson.gz', bomb, { format, compression: { maxRatio: 1_100 } })).entries).toHaveLength(1600)
  })
})

describe('a zip archive', () => {
  const zip = (...entries: ZipEntry[]) => zipArchive(entries)
  const one: ZipEntry = { name: 'a.csv', content: csvOf(rows(0, 3)) }
  const two: ZipEntry = { name: 'sub/b.json', content: '[{"id":"3"},{"id":"4"}]', stored: true }
  const three: ZipEntry = { name: 'c.xml', content: '<rows><row><id>5</id></row><row><id>6</id></row></rows>' }
  const noise: ZipEntry[] = [
    { name: 'sub/', content: '' },
    { name: '__MACOSX/._a.csv', content: 'x' },
  ]

  test('with one file is read as that file', async () => {
    const { records, onDisk } = await expectResume('a.zip', zip(...noise, one))
    expect(records).toEqual(rows(0, 3))
    expect(onDisk).toBeGreaterThan(0)
  })

  test('with several gives those of the glob, numbered through, and resumes at every checkpoint', async () => {
    const { records } = await expectResume('a.zip', zip(one, ...noise, two, three), { entries: '**/*.*' })
    expect(records).toEqual(rows(0, 7))
    const others = zip(one, { name: 'note.txt', content: 'x' }, { name: 'b.csv', content: csvOf(rows(3, 5)) })
    expect((await expectResume('a.zip', others, { entries: '*.csv' })).records).toEqual(rows(0, 5))
  })

  test('names the entry in which it fails', async () => {
    const bad = zip(one, { name: 'b.json', content: '[{"id":"3"}' })
    const { records, fault } = await read('a.zip', bad, { compression: { entries: '*' } })
    expect(records).toHaveLength(4)
    expect((fault as FileFault).message).toStartWith(
      'The JSON document ends too early (in "b.json", line 1, record 5, byte 11)',
    )
  })

  test.each<[string, string, Buffer | string, Compression]>([
    ['holds several files and no glob says which', 'not-found', zip(one, two), {}],
    ['holds none', 'not-found', zip(...noise), {}],
    ['holds none that matches', 'not-found', zip(one), { entries: '*.json' }],
    ['has too many entries', 'too-large', zip(one, ...noise), { maxEntries: 2 }],
    ['would hold too much', 'too-large', zip(one), { maxBytes: 8 }],
    ['holds a file of no format', 'unsupported', zip(one, { name: 'b.txt', content: '' }), { entries: '*' }],
    ['is a bomb', 'too-large', zip({ name: 'a.csv', content: Buffer.alloc(80 << 20) }), {}],
    ['is encrypted', 'encrypted', zip({ ...one, claims: { flags: 1 } }), {}],
    ['uses another compression', 'unsupported', zip({ ...one, claims: { method: 9 } }), {}],
    ['lies about a size', 'malformed', zip({ ...one, claims: { size: 4 } }), {}],
    ['does not have its checksum', 'malformed', zip({ ...one, claims: { crc: 1 } }), {}],
    ['is no archive', 'malformed', 'id\n1\n', {}],
    ['is empty', 'malformed', '', {}],
    ['ends too early', 'malformed', zip(one, two).subarray(0, -30), {}],
  ])('that %s fails (%s)', async (_, code, content, compression) => {
    const { fault, entries } = await read('a.zip', content, { compression })
    expect(fault).toMatchObject({ code })
    if (code !== 'malformed') expect(entries).toEqual([])
  })

  test('may name its files anything, for no name is a path', async () => {
    for (const name of ['../../etc/passwd.csv', '/abs.csv', 'C:\\x\\y.csv', 'a\nb\0.csv', 'ä.csv']) {
      const { records, fault } = await read('a.zip', zip({ name, content: 'id\n1\n' }))
      expect(fault).toBeUndefined()
      expect(records).toEqual([{ id: '1' }])
    }
  })
})
