import { basename, join } from 'node:path'
import { syncFolder } from '../../runtime/sync-folder.ts'
import type { CsvTarget } from '../../task/target/target.ts'
import { AppendedFile, type MayTouch } from './appended-file.ts'
import { formatOf, headerLine, namedColumns } from './columns.ts'
import type { Journal } from './journal.ts'
import { firstLine, LINE_END, unguarded } from './line.ts'
import { dayOf, type Part, type Place, partName, partOf } from './place.ts'

export interface PartsDeps {
  place: Place
  journal: Journal
  mayTouch: MayTouch
  now(): Date
}

/** The files of one path, of which the last one grows. */
export interface Parts {
  /** The file that the next line of `target` belongs to, with nothing in it that is not journalled. */
  current(target: CsvTarget): Promise<AppendedFile>
  /** Begins the file after the present one. */
  rotate(target: CsvTarget): Promise<AppendedFile>
  /**
   * The columns of the present file: those that the target names, or those that the file begins with. Undefined: it is
   * still empty, and the first payload decides. Rejects with `OtherColumns` when the file has others than the target.
   */
  columns(target: CsvTarget): Promise<string[] | undefined>
  /** The columns that the first payload of an empty file has decided on; kept across rotations. */
  decide(columns: string[]): void
  close(): Promise<void>
}

/** The file that is there was begun with other columns than the target's. */
export class OtherColumns extends Error {
  override readonly name = 'OtherColumns'
}

/** A header must end within this many bytes. */
const HEADER_BYTES = 256 * 1024

export function createParts({ place, journal, mayTouch, now }: PartsDeps): Parts {
  let open: AppendedFile | undefined
  /** Of the present file; undefined while it is empty, or was not read yet. */
  let header: { cells: string[]; delimiter: string } | undefined
  /** The columns of the present file and of those after it, where the target names none. */
  let decided: string[] | undefined

  async function close(): Promise<void> {
    const closing = open
    open = undefined
    header = undefined
    await closing?.close()
  }

  async function take(file: AppendedFile): Promise<AppendedFile> {
    open = file
    header = undefined
    return file
  }

  /** Begins `part`, or the next one whose name is free. A first part may be there already: it is continued. */
  async function begin(part: Part): Promise<AppendedFile> {
    await close()
    for (let number = part.number; ; number++) {
      const file = await AppendedFile.open(join(place.folder, partName(place, { ...part, number })), mayTouch)
      if (number > 0 && file.size > 0) {
        await file.close()
        continue
      }
      return adopt(file)
    }
  }

  async function adopt(file: AppendedFile): Promise<AppendedFile> {
    await take(file)
    if (file.size === 0) await syncFolder(place.folder)
    else if ((await file.read(file.size - 1, 1))[0] !== 0x0a) await file.append(Buffer.from(LINE_END))
    await journal.begin(file)
    return file
  }

  /** Opens the file that the journal names, and cuts off what it does not know. */
  async function reopen(name: string): Promise<AppendedFile> {
    const file = await take(await AppendedFile.open(join(place.folder, name), mayTouch))
    const position = journal.position()
    // Another file under its name, or one that somebody has emptied: it is continued as it is.
    if (file.inode !== position?.inode || file.size < position.end) {
      decided = undefined
      return adopt(file)
    }
    if (file.size > position.end) await file.cut(position.end)
    return file
  }

  async function current(target: CsvTarget): Promise<AppendedFile> {
    if (open && !(await open.isInPlace())) await close()
    const day = dayOf(target, now())
    const name = open ? basename(open.path) : journal.position()?.file
    const part = name === undefined ? undefined : partOf(place, name)
    if (name === undefined || part?.day !== day) return begin({ day, number: 0 })
    return open ?? reopen(name)
  }

  async function readHeader(file: AppendedFile, target: CsvTarget): Promise<string[]> {
    const { delimiter } = formatOf(target)
    if (header?.delimiter !== delimiter) {
      const cells = firstLine((await file.read(0, HEADER_BYTES)).toString('utf8'), delimiter)
      if (!cells) throw new OtherColumns(`${file.path} does not begin with a header: move it away, or change the path`)
      header = { cells, delimiter }
    }
    return header.cells
  }

  return {
    current,
    async rotate(target) {
      const name = open ? basename(open.path) : ''
      const number = partOf(place, name)?.number ?? 0
      return begin({ day: dayOf(target, now()), number: number + 1 })
    },
    async columns(target) {
      const file = open ?? (await current(target))
      const named = namedColumns(target)
      if (file.size === 0) return named ?? decided
      if (target.header === false) return named ?? decided
      const cells = await readHeader(file, target)
      const format = formatOf(target)
      if (!named) {
        decided = cells.map((cell) => unguarded(cell, format.guardFormulas))
        return decided
      }
      const plain = { ...format, guardFormulas: false }
      if (headerLine(cells, plain) === headerLine(named, format)) return named
      throw new OtherColumns(
        `${file.path} has other columns (${cells.join(', ')}) than the target: move it away, or change the path`,
      )
    },
    decide(columns) {
      decided = columns
    },
    close,
  }
}
