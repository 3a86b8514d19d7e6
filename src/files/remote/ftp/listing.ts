import { type FileInfo, FileType, parseList } from 'basic-ftp'
import type { RemoteEntry, RemoteFile } from '../../remote-files.ts'
import { hasControl, joinPath, refusalOfName, shown } from '../names.ts'

/** A line may be this long, in bytes; names have at most 255. */
export const MAX_LINE_BYTES = 8_192

/** Reads one line of a listing; undefined for lines that tell of nothing in the directory. */
export type ReadLine = (line: string, directory: string) => RemoteEntry | undefined

type Kind = RemoteFile['kind']

/** A line of MLSD or MLST (RFC 3659): `type=file;size=5;modify=20260102030405; name`. */
export const readMlsxLine: ReadLine = (line, directory) => {
  const space = line.indexOf(' ')
  if (space === -1) return refused(directory, line, 'its line in the listing cannot be read')
  const facts = new Map(
    line
      .slice(0, space)
      .split(';')
      .map((fact) => [fact.slice(0, fact.indexOf('=')).toLowerCase(), fact.slice(fact.indexOf('=') + 1)]),
  )
  const type = facts.get('type')?.toLowerCase() ?? ''
  if (type === 'cdir' || type === 'pdir') return undefined
  const modify = facts.get('modify') ?? null
  return entry(directory, line.slice(space + 1), {
    kind: type === 'file' ? 'file' : type === 'dir' ? 'directory' : type.startsWith('os.unix=s') ? 'link' : 'other',
    size: readSize(facts.get('size')),
    modifiedAt: modify === null ? null : readFtpTime(modify),
    rawModifiedAt: modify,
  })
}

/** A line of LIST, in the form of Unix or of DOS. */
export const readListLine: ReadLine = (line, directory) => {
  // The package takes a name to end there, which would be another file's.
  if (/[\r\u2028\u2029]/.test(line)) return refused(directory, line, 'its line in the listing holds another line end')
  if (/^total \d+$/.test(line)) return undefined
  const info = parseLine(line)
  // The package finds no entry in the lines of `.` and `..`.
  if (info === undefined) return undefined
  if (info === 'unreadable') return refused(directory, line, 'its line in the listing cannot be read')
  return entry(directory, info.name, {
    kind: kindOf(info),
    size: Number.isSafeInteger(info.size) ? info.size : null,
    modifiedAt: null,
    rawModifiedAt: info.rawModifiedAt || null,
  })
}

function parseLine(line: string): FileInfo | 'unreadable' | undefined {
  try {
    const [info] = parseList(line)
    // Text that fits neither form it takes for the start of MLSD's, which has a size or a type.
    return info?.type === FileType.Unknown && info.rawModifiedAt === '' ? 'unreadable' : info
  } catch {
    return 'unreadable'
  }
}

function kindOf(info: FileInfo): Kind {
  switch (info.type) {
    case FileType.File:
      return 'file'
    case FileType.Directory:
      return 'directory'
    case FileType.SymbolicLink:
      return 'link'
    case FileType.Unknown:
      return 'other'
    default:
      return info.type satisfies never
  }
}

/** `20260102030405.678`, which is UTC (RFC 3659, 2.3), as RFC 3339; null when it is none. */
export function readFtpTime(text: string): string | null {
  const parts = /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\.\d+)?$/.exec(text.trim())
  if (!parts) return null
  const [, year, month, day, hour, minute, second, fraction = ''] = parts
  return `${year}-${month}-${day}T${hour}:${minute}:${second}${fraction}Z`
}

/** Bytes in digits; null when it is something else. */
export function readSize(text: string | undefined): number | null {
  const size = Number(text)
  return text !== undefined && /^\d+$/.test(text) && Number.isSafeInteger(size) ? size : null
}

function entry(directory: string, name: string, facts: Omit<RemoteFile, 'path'>): RemoteEntry | undefined {
  if (name === '.' || name === '..') return undefined
  const reason = refusalOfName(name)
  const raw = facts.rawModifiedAt
  const rawModifiedAt = raw !== null && hasControl(raw) ? null : raw
  return reason ? refused(directory, name, reason) : { ...facts, rawModifiedAt, path: joinPath(directory, name) }
}

/** Something in a directory that cannot be used. */
export function refused(directory: string, name: string, reason: string): RemoteEntry {
  return { kind: 'refused', directory, name: shown(name), reason }
}

/** The lines of a listing as they come in, without their ends; throws what `tooLong` gives for one over the limit. */
export async function* linesOf(chunks: AsyncIterable<Uint8Array>, tooLong: () => Error): AsyncGenerator<string[]> {
  let rest = Buffer.alloc(0)
  for await (const chunk of chunks) {
    const bytes =
      rest.length > 0 ? Buffer.concat([rest, chunk]) : Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length)
    const lines: string[] = []
    let start = 0
    for (let end = bytes.indexOf(10); end !== -1; end = bytes.indexOf(10, start)) {
      if (end - start > MAX_LINE_BYTES) throw tooLong()
      lines.push(lineOf(bytes.subarray(start, end)))
      start = end + 1
    }
    if (bytes.length - start > MAX_LINE_BYTES) throw tooLong()
    // A copy: the rest of the chunk is not kept.
    rest = Buffer.from(bytes.subarray(start))
    yield lines
  }
  if (rest.length > 0) yield [lineOf(rest)]
}

function lineOf(bytes: Buffer): string {
  const text = bytes.toString('utf8')
  return text.endsWith('\r') ? text.slice(0, -1) : text
}
