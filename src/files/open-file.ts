import { type Compression, compressionKind } from '../task/source/compression.ts'
import { type FileFormat, type FormatChoice, formatFor } from '../task/source/file-format.ts'
import { gzipFile, type OnRead, outputCaps, plainFile } from './decompress.ts'
import { FileFault } from './file-fault.ts'
import { openParser, START } from './parsers/open-parser.ts'
import type { Batch, Checkpoint, Source } from './parsers/parsed.ts'
import { zipParts } from './zip.ts'

export interface OpenFileOptions {
  /** Where the file lies. */
  path: string
  /** Its name at the source, whose extension counts. */
  name: string
  format: FormatChoice
  compression?: Compression
  /** Goes on behind the checkpoint's entry. */
  checkpoint?: Checkpoint
  /** For progress: bytes of the file on disk, compressed as they are. After a checkpoint, a plain file begins at its offset. */
  onRead?: OnRead
}

/** One stream of records in the file: the file itself, or an entry of a zip archive. */
interface Part {
  name: string
  /** Undefined for the file itself. */
  entry: string | undefined
  source: Source
}

/** As a part, with the format of its name. */
interface FormattedPart extends Part {
  format: FileFormat
}

/**
 * Reads the records of a file on disk, decompressed as its name or `compression` says, in batches. The records of a zip
 * archive's entries are numbered through; each entry has its own header, and by extension its own format.
 *
 * Promises and checkpoints are those of `openParser`. A compressed file is decompressed again up to the checkpoint, which is
 * several times as fast as parsing. The bytes on disk must not have changed since.
 */
export async function* openFile(options: OpenFileOptions): AsyncGenerator<Batch, void, undefined> {
  const { checkpoint = START } = options
  // Formats first: what is not known shall be told before anything is imported.
  const parts = (await partsOf(options)).map((part) => formatted(part, options.format))
  const first = checkpoint.state.part ?? 0
  let from = checkpoint
  let number = checkpoint.number
  for (const [index, { format, entry, source }] of parts.entries()) {
    if (index < first) continue
    try {
      for await (const batch of openParser(source, format, from)) {
        number = batch.entries.at(-1)?.number ?? number
        yield batch
      }
    } catch (error) {
      throw error instanceof FileFault && entry !== undefined ? error.at({ entry }) : error
    }
    from = { ...START, number, state: { part: index + 1, before: number } }
  }
}

async function partsOf({ path, name, compression = {}, onRead }: OpenFileOptions): Promise<Part[]> {
  switch (compressionKind(name, compression)) {
    case 'none':
      return [{ name, entry: undefined, source: plainFile(path, onRead) }]
    case 'gzip':
      return [{ name, entry: undefined, source: gzipFile(path, outputCaps(compression), onRead) }]
    case 'zip': {
      const parts = await zipParts(path, compression, onRead)
      return parts.map((part) => ({ name: part.name, entry: part.name, source: part.source }))
    }
  }
}

function formatted(part: Part, choice: FormatChoice): FormattedPart {
  const format = formatFor(part.name, choice)
  if (format) return { ...part, format }
  const what = `The format of ${JSON.stringify(part.name.slice(0, 200))} is not known by its extension`
  throw new FileFault(
    'unsupported',
    what,
    'exclude the file, or give the source a format (for .xml, "xml" with its path)',
  )
}
