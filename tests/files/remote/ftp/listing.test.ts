import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import {
  linesOf,
  MAX_LINE_BYTES,
  readFtpTime,
  readListLine,
  readMlsxLine,
} from '../../../../src/files/remote/ftp/listing.ts'

describe('lines of LIST', () => {
  test.each([
    // vsftpd, pure-ftpd
    ['-rw-r--r--    1 999      995             5 Nov 25 17:06 a b.txt', 'file', 'a b.txt', 5, 'Nov 25 17:06'],
    ['-rw-------   1 joe  staff  1057 Dec 11  2019  leading space', 'file', ' leading space', 1057, 'Dec 11 2019'],
    ['drwxr-xr-x    2 999      longshore-       4096 Nov 25 17:06 in', 'directory', 'in', 4096, 'Nov 25 17:06'],
    ['lrwxrwxrwx    1 0        0               7 Nov 25 17:06 now -> then', 'link', 'now', 7, 'Nov 25 17:06'],
    ['prw-r--r--    1 0        0               0 Nov 25 17:06 pipe', 'other', 'pipe', 0, 'Nov 25 17:06'],
    // A file whose name begins like the head of a listing, and one beyond 2^32 bytes.
    ['-rw-r--r-- 1 0 0 5000000000 Jan 01 2026 total.csv', 'file', 'total.csv', 5_000_000_000, 'Jan 01 2026'],
    ['-rw-r--r--+ 1 a b c 12 1 Feb 09:08 with acl', 'file', 'with acl', 12, '1 Feb 09:08'],
    // IIS
    ['12-05-26  10:19AM       <DIR>          Archive 2026', 'directory', 'Archive 2026', 0, '12-05-26 10:19AM'],
    ['12-05-2026  10:19AM              4242 report.csv', 'file', 'report.csv', 4242, '12-05-2026 10:19AM'],
  ])('%s', (line, kind, name, size, rawModifiedAt) => {
    expect(readListLine(line, '/in')).toEqual({
      kind,
      path: `/in/${name}`,
      size,
      modifiedAt: null,
      rawModifiedAt,
    } as ReturnType<typeof readListLine>)
  })

  test.each(['total 12', '', 'drwxr-xr-x 2 0 0 4096 Jan 01 00:00 .', 'drwxr-xr-x 2 0 0 4096 Jan 01 00:00 ..'])(
    '%s tells of nothing in the directory',
    (line) => expect(readListLine(line, '')).toBeUndefined(),
  )

  test.each([
    'gibberish',
    ' size=5; x',
    '-rw-r--r-- 1 0 0 5 Jan 01 00:00 a\rb',
    '-rw-r--r-- 1 0 0 5 Jan 01 00:00 a\u2028b',
    '-rw-r--r-- 1 0 0 5 Jan 01 00:00 a/b',
    '-rw-r--r-- 1 0 0 5 Jan 01 00:00 caf\ufffd',
  ])('%p is refused', (line) => {
    expect(readListLine(line, '/in')).toMatchObject({ kind: 'refused', directory: '/in' })
  })
})

describe('lines of MLSD', () => {
  test.each([
    ['type=file;size=5;modify=20261125170600; a; b=c.txt', 'file', 'a; b=c.txt', 5, '2026-11-25T17:06:00Z'],
    ['Type=dir;Modify=20261125170600.123; in', 'directory', 'in', null, '2026-11-25T17:06:00.123Z'],
    ['modify=2026;type=OS.unix=slink:/etc;size=7; link', 'link', 'link', 7, null],
    ['type=OS.unix=symlink; link', 'link', 'link', null, null],
    ['type=OS.unix=chr-13/29; device', 'other', 'device', null, null],
    [' no facts', 'other', 'no facts', null, null],
    ['type=file;size=99999999999999999999; huge', 'file', 'huge', null, null],
  ])('%s', (line, kind, name, size, modifiedAt) => {
    const entry = readMlsxLine(line, 'in')
    expect(entry).toMatchObject({ kind, path: `in/${name}`, size, modifiedAt } as object)
  })

  test('a time that Postgres cannot keep is none', () => {
    expect(readMlsxLine('type=file;modify=2026\x001; a', '')).toMatchObject({ kind: 'file', rawModifiedAt: null })
  })

  test.each(['type=cdir; .', 'type=pdir;modify=20260101000000; ..', 'type=dir; ..', 'type=cdir; /home/joe'])(
    '%s tells of nothing in the directory',
    (line) => expect(readMlsxLine(line, '')).toBeUndefined(),
  )

  test.each(['type=file;size=5;', 'type=file; a/b', 'type=dir; ', 'type=file; a\\b'])('%p is refused', (line) => {
    expect(readMlsxLine(line, '')).toMatchObject({ kind: 'refused' })
  })
})

test.each([
  ['20260102030405', '2026-01-02T03:04:05Z'],
  ['20260102030405.678', '2026-01-02T03:04:05.678Z'],
  ['2026010203040', null],
  ['20260102030405+0100', null],
  ['Jan 01 00:00', null],
])('the time %s is %s', (text, time) => {
  expect(readFtpTime(text)).toBe(time)
})

describe('lines of a stream', () => {
  const tooLong = () => new Error('too long')
  async function read(chunks: Uint8Array[]): Promise<string[]> {
    const lines: string[] = []
    const stream = (async function* () {
      yield* chunks
    })()
    for await (const some of linesOf(stream, tooLong)) lines.push(...some)
    return lines
  }

  test('are the same however the bytes come in', async () => {
    const line = fc.string({ unit: 'grapheme' }).map((text) => text.replace(/[\r\n]/g, ''))
    await fc.assert(
      fc.asyncProperty(fc.array(line), fc.boolean(), fc.array(fc.nat(40)), async (lines, isOpen, cuts) => {
        // The last line may lack its end; an empty one then is none.
        const text = lines.join('\r\n') + (isOpen ? '' : '\r\n')
        const expected = isOpen && lines.at(-1) === '' ? lines.slice(0, -1) : lines.length > 0 || isOpen ? lines : ['']
        const bytes = Buffer.from(text)
        const chunks: Uint8Array[] = []
        let from = 0
        for (const cut of [...cuts, bytes.length]) {
          chunks.push(bytes.subarray(from, from + cut))
          from += cut
        }
        expect(await read(chunks)).toEqual(expected)
      }),
    )
  })

  test('may have the length that is allowed, and not one byte more, with or without an end', async () => {
    const longest = Buffer.alloc(MAX_LINE_BYTES, 'x')
    expect(await read([longest, Buffer.from('\n')])).toEqual([longest.toString()])
    for (const end of ['x', 'x\n']) expect(read([longest, Buffer.from(end)])).rejects.toThrow('too long')
  })
})
