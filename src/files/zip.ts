import { posix } from 'node:path'
import { crc32 } from 'node:zlib'
import yauzl, { type Entry, type ZipFile } from 'yauzl'
import { messageOf } from '../runtime/errors.ts'
import { COMPRESSION_DEFAULTS, type Compression } from '../task/source/compression.ts'
import { capped, from, type OnRead, outputCaps, RATIO_FLOOR, tooDense, tooManyBytes } from './decompress.ts'
import { FileFault } from './file-fault.ts'
import type { Source } from './parsers/parsed.ts'

/** One file in an archive. */
export interface ZipPart {
  /** For a person and for its extension; it may hold anything, and is never used as a path. */
  name: string
  /** Decompressed, in bytes, as the archive says; reading it fails if that is not so. */
  size: number
  source: Source
}

// Names are decoded by us: yauzl would refuse an archive for a name that is no safe path, and here none is one.
const OPTIONS = { autoClose: false, lazyEntries: true, decodeStrings: false, validateEntrySizes: true }
/** What macOS adds to archives. */
const NOISE = /^__MACOSX\//

/**
 * The files of a zip archive on disk that `entries` names, in the archive's order; the only one when it names none.
 * Throws FileFault: `not-found`, `too-large` (a cap), `encrypted`, `unsupported`, `malformed`, before anything is decompressed.
 */
export async function zipParts(path: string, compression: Compression, onRead?: OnRead): Promise<ZipPart[]> {
  const all = await entriesOf(path, compression.maxEntries ?? COMPRESSION_DEFAULTS.maxEntries)
  const chosen = choose(all, compression.entries)
  const caps = outputCaps(compression)
  const total = chosen.reduce((sum, { entry }) => sum + entry.uncompressedSize, 0)
  if (total > caps.maxBytes) throw tooManyBytes(caps.maxBytes)
  return chosen.map(({ name, entry }) => {
    if (entry.isEncrypted()) throw refused('encrypted', name, 'is encrypted', 'let it be written without a password')
    if (!entry.canDecodeFileData()) {
      throw refused('unsupported', name, `is compressed by method ${entry.compressionMethod}`, 'use deflate, or none')
    }
    const size = entry.uncompressedSize
    if (size > RATIO_FLOOR && size > caps.maxRatio * entry.compressedSize)
      throw tooDense(caps.maxRatio).at({ entry: name })
    return { name, size, source: partSource(path, entry, name, compression, onRead) }
  })
}

async function entriesOf(path: string, maxEntries: number): Promise<{ name: string; entry: Entry }[]> {
  const zip = await openZip(path)
  try {
    if (zip.entryCount > maxEntries) {
      throw new FileFault(
        'too-large',
        `The archive has ${zip.entryCount} entries`,
        'raise "maxEntries" if that is right',
      )
    }
    const entries: { name: string; entry: Entry }[] = []
    for await (const entry of zip.eachEntry()) {
      const name = yauzl.getFileNameLowLevel(entry.generalPurposeBitFlag, entry.fileNameRaw, entry.extraFields, false)
      if (!name.endsWith('/') && !NOISE.test(name)) entries.push({ name, entry })
    }
    return entries
  } catch (error) {
    throw asFault(error)
  } finally {
    zip.close()
  }
}

async function openZip(path: string): Promise<ZipFile> {
  try {
    return await yauzl.openPromise(path, OPTIONS)
  } catch (error) {
    throw asFault(error)
  }
}

function choose<T extends { name: string }>(all: T[], glob: string | undefined): T[] {
  if (glob === undefined) {
    if (all.length === 1) return all
    const advice = 'name those to be read in "entries", such as "**/*.csv"'
    throw new FileFault('not-found', `The archive holds ${all.length} files: ${shown(all)}`, advice)
  }
  const chosen = all.filter(({ name }) => posix.matchesGlob(name, glob))
  if (chosen.length > 0) return chosen
  const what = `No file in the archive matches ${JSON.stringify(glob)}: it holds ${shown(all)}`
  throw new FileFault('not-found', what, 'correct "entries"')
}

function shown(all: { name: string }[]): string {
  const names = all.slice(0, 5).map(({ name }) => JSON.stringify(name.slice(0, 100)))
  return `${names.join(', ') || 'nothing'}${all.length > 5 ? ', ...' : ''}`
}

function partSource(path: string, entry: Entry, name: string, compression: Compression, onRead?: OnRead): Source {
  return (offset) => from(offset, read())

  async function* read(): AsyncGenerator<Uint8Array> {
    const zip = await openZip(path)
    let crc = 0
    let told = 0
    let output = 0
    try {
      const stream = await zip.openReadStreamPromise(entry)
      for await (const chunk of capped(stream, outputCaps(compression), () => entry.compressedSize)) {
        crc = crc32(chunk, crc)
        output += chunk.length
        // The archive's reader does not tell: the share of the output stands for it.
        const read = Math.round((entry.compressedSize * output) / entry.uncompressedSize)
        onRead?.(read - told)
        told = read
        yield chunk
      }
    } catch (error) {
      const fault = asFault(error)
      throw fault instanceof FileFault ? fault.at({ entry: name }) : fault
    } finally {
      zip.close()
    }
    if (crc !== entry.crc32) throw refused('malformed', name, 'does not have its checksum', 'fetch the file again')
  }
}

function refused(
  code: 'encrypted' | 'unsupported' | 'malformed',
  entry: string,
  what: string,
  advice: string,
): FileFault {
  return new FileFault(code, `The entry ${what}`, advice, { entry })
}

/** yauzl's errors about the archive have no code; those of the disk have. */
function asFault(error: unknown): unknown {
  if (error instanceof FileFault || (error instanceof Error && 'code' in error)) return error
  return new FileFault(
    'malformed',
    `The archive cannot be read: ${messageOf(error)}`,
    'fetch the file again, or mend it',
  )
}
