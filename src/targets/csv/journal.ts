import { readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { syncFolder } from '../../runtime/sync-folder.ts'
import { KEPT_DAYS } from '../kept-days.ts'
import { AppendedFile, type MayTouch } from './appended-file.ts'
import { entryText, headText, type Position, readJournal } from './journal-text.ts'

const DAY_MS = 86_400_000
/** A journal that grows over this is put aside, and another is begun; what is read at an opening stays small. In bytes. */
const ROLL_BYTES = 8 * 1024 * 1024
/** Clocks of the ledger and of this machine may differ by so much. */
const CLOCK_MARGIN_MS = 10 * 60_000

/** A task that may have its line already. */
export interface Suspect {
  id: string
  attempt: number
  /** RFC 3339. */
  createdAt: string
}

/** Which tasks have their lines, and where the last line ends. */
export interface Journal {
  position(): Position | undefined
  /** Those that have their line. */
  known(suspects: readonly Suspect[]): Promise<Set<string>>
  /** Notes that lines go to this file from its present end on. Waits for the disk. */
  begin(file: AppendedFile): Promise<void>
  /** Notes lines that the disk has: ids, and where each ends. `start` is where the first begins. Waits for the disk. */
  note(file: AppendedFile, start: number, lines: readonly { id: string; end: number }[]): Promise<void>
  close(): Promise<void>
}

/** Opens the journal at `path`, and cuts off what a crash left unfinished. Rejects when it is damaged. */
export async function openJournal(
  path: string,
  mayTouch: MayTouch,
  now: () => Date,
  rollBytes = ROLL_BYTES,
): Promise<Journal> {
  await finishRolling(path)
  let file = await AppendedFile.open(path, mayTouch)
  if (file.size === 0) await syncFolder(dirname(path))
  const content = readJournal((await file.read(0, file.size)).toString('latin1'))
  if (!content) {
    await file.close()
    throw damaged(path)
  }
  if (content.whole < file.size) await file.cut(content.whole)
  let { position, ids } = content
  let before = new Set<string>()
  let asides = await asidesOf(path)
  /** When this journal was begun. */
  let begun = content.since === undefined ? now().getTime() : content.since * 1_000
  /** From when on `before` and `ids` know every task. */
  let since = asides.length === 0 ? Number.NEGATIVE_INFINITY : begun

  const head = (of: AppendedFile, start: number, begins: boolean) =>
    headText({
      at: Math.floor(now().getTime() / 1_000),
      file: basename(of.path),
      inode: of.inode,
      start,
      ...(begins && { begins }),
    })

  /** Puts the journal aside and begins another, which knows no more than the position. */
  async function roll(of: AppendedFile): Promise<void> {
    await mayTouch()
    await writeFile(draftOf(path), head(of, of.size, true), { flush: true })
    const number = (asides.at(-1)?.number ?? 0) + 1
    await rename(path, `${path}.${number}`)
    await rename(draftOf(path), path)
    await syncFolder(dirname(path))
    await file.close()
    file = await AppendedFile.open(path, mayTouch)
    before = ids
    since = begun
    ids = new Set()
    begun = now().getTime()
    asides = await asidesOf(path)
    const oldest = now().getTime() - KEPT_DAYS * DAY_MS
    for (const aside of asides) if (aside.until < oldest) await rm(aside.path, { force: true })
    asides = asides.filter((aside) => aside.until >= oldest)
  }

  return {
    position: () => position,
    async known(suspects) {
      const known = new Set(suspects.map(({ id }) => id).filter((id) => ids.has(id) || before.has(id)))
      const older = suspects.filter(({ id, attempt, createdAt }) => {
        // A first attempt has no line yet, and none is older than its task.
        return attempt > 1 && !known.has(id) && Date.parse(createdAt) - CLOCK_MARGIN_MS < since
      })
      if (older.length === 0) return known
      const first = Math.min(...older.map(({ createdAt }) => Date.parse(createdAt))) - CLOCK_MARGIN_MS
      for (const aside of asides) {
        if (aside.until < first) continue
        const read = readJournal(await readFile(aside.path, 'latin1'))
        if (!read) throw damaged(aside.path)
        for (const { id } of older) if (read.ids.has(id)) known.add(id)
      }
      return known
    },
    async begin(of) {
      await file.append(Buffer.from(head(of, of.size, true), 'latin1'))
      position = { file: basename(of.path), inode: of.inode, end: of.size }
    },
    async note(of, start, lines) {
      const text = head(of, start, false) + lines.map(({ id, end }) => entryText(id, end)).join('')
      await file.append(Buffer.from(text, 'latin1'))
      for (const { id, end } of lines) {
        ids.add(id)
        position = { file: basename(of.path), inode: of.inode, end }
      }
      if (file.size > rollBytes) await roll(of)
    },
    close: () => file.close(),
  }
}

const draftOf = (path: string) => `${path}.new`

/** A crash between the two renames of a roll leaves no journal, but the draft of the next. */
async function finishRolling(path: string): Promise<void> {
  const exists = await stat(path).then(
    () => true,
    (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return false
      throw error
    },
  )
  if (exists) return rm(draftOf(path), { force: true })
  await rename(draftOf(path), path).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error
  })
}

interface Aside {
  path: string
  number: number
  /** When its last line was written, in milliseconds since 1970. */
  until: number
}

/** Journals that were put aside, the oldest first. */
async function asidesOf(path: string): Promise<Aside[]> {
  const prefix = `${basename(path)}.`
  const asides: Aside[] = []
  for (const name of await readdir(dirname(path))) {
    const number = name.startsWith(prefix) ? name.slice(prefix.length) : ''
    if (!/^[1-9]\d{0,8}$/.test(number)) continue
    const aside = join(dirname(path), name)
    asides.push({ path: aside, number: Number(number), until: (await stat(aside)).mtimeMs })
  }
  return asides.sort((a, b) => a.number - b.number)
}

function damaged(path: string): Error {
  return new Error(
    `The journal ${path} is damaged in its middle: nothing is written until it is mended, or moved away (then the lines that it knows may be written again)`,
  )
}
