import { messageOf } from '../../runtime/errors.ts'
import type { Execution } from '../../task/executor.ts'
import { failed, type Outcome } from '../../task/outcome.ts'
import type { CsvTarget } from '../../task/target/target.ts'
import type { AppendedFile, MayTouch } from './appended-file.ts'
import { fieldsOf, formatOf, headerLine, payloadLine } from './columns.ts'
import { type Journal, openJournal } from './journal.ts'
import { createParts, OtherColumns, type Parts } from './parts.ts'
import { openPlace } from './place.ts'

/** A task on its way into the file. */
export interface Item {
  execution: Execution
  target: CsvTarget
  /** It does not wait any more: it is not written, unless that has begun. */
  left: boolean
}

/** The journal and the files of a path, while its name is held. */
export interface CsvFiles {
  /**
   * Writes the items and puts what became of each into `outcomes`. Rejects when a file cannot be written: it is then not
   * known what was, and all has to be opened anew.
   */
  write(items: Item[], outcomes: Map<Item, Outcome>): Promise<void>
  close(): Promise<void>
}

export interface CsvFilesSettings {
  outDir: string
  path: string
  mayTouch: MayTouch
  now(): Date
}

const SUCCEEDED: Outcome = { kind: 'succeeded' }

export async function openFiles({ outDir, path, mayTouch, now }: CsvFilesSettings): Promise<CsvFiles> {
  const place = await openPlace(outDir, path)
  const journal = await openJournal(place.journal, mayTouch, now)
  const parts = createParts({ place, journal, mayTouch, now })
  return {
    async write(items, outcomes) {
      const known = await journal.known(items.map(({ execution }) => execution))
      const first = new Map<string, Item>()
      for (const item of items) {
        if (known.has(item.execution.id)) outcomes.set(item, SUCCEEDED)
        else if (!first.has(item.execution.id)) first.set(item.execution.id, item)
      }
      // Consumers may have different targets with one path.
      const groups = Map.groupBy(first.values(), ({ target }) => JSON.stringify(target))
      for (const group of groups.values()) await writeGroup(journal, parts, group, outcomes)
      // Two attempts at one task, because somebody settled the first by REST while it ran: one line.
      for (const item of items) {
        const outcome = outcomes.get(first.get(item.execution.id) ?? item)
        if (outcome) outcomes.set(item, outcome)
      }
    },
    async close() {
      await parts.close().finally(() => journal.close())
    },
  }
}

/** Items with one target. */
async function writeGroup(journal: Journal, parts: Parts, group: Item[], outcomes: Map<Item, Outcome>): Promise<void> {
  const target = (group[0] as Item).target
  try {
    let file = await parts.current(target)
    let rest = group
    while (rest.length > 0) {
      const lines = await linesOf(parts, file, target, rest, outcomes)
      rest = lines.map(({ item }) => item)
      if (rest.length === 0) return
      const fitting = fit(lines, file, target)
      if (fitting.length > 0) await append(journal, file, fitting, outcomes)
      rest = rest.slice(fitting.length)
      if (rest.length > 0) file = await parts.rotate(target)
    }
  } catch (error) {
    if (!(error instanceof OtherColumns)) throw error
    for (const item of group) {
      if (!outcomes.has(item)) outcomes.set(item, failed(messageOf(error), true))
    }
  }
}

interface Line {
  item: Item
  /** The first of a file has the header before it. */
  bytes: Buffer
}

/** The lines of the items that have one; those that have none are dead. */
async function linesOf(
  parts: Parts,
  file: AppendedFile,
  target: CsvTarget,
  items: Item[],
  outcomes: Map<Item, Outcome>,
): Promise<Line[]> {
  let columns = await parts.columns(target)
  const lines: Line[] = []
  for (const item of items) {
    const { payload } = item.execution
    const found = columns ?? fieldsOf(payload)
    const line = Array.isArray(found) ? payloadLine(payload, target, found) : found
    if (typeof line !== 'string') {
      outcomes.set(item, failed(line.error, false))
      continue
    }
    if (!columns && Array.isArray(found)) {
      columns = found
      parts.decide(found)
    }
    const begins = lines.length === 0 && file.size === 0 && target.header !== false
    const header = begins && columns ? headerLine(columns, formatOf(target)) : ''
    lines.push({ item, bytes: Buffer.from(header + line, 'utf8') })
  }
  return lines
}

/** As many lines as the file has room for; one always fits into an empty file. */
function fit(lines: Line[], file: AppendedFile, { rotate }: CsvTarget): Line[] {
  const limit = rotate?.size ?? Number.POSITIVE_INFINITY
  let size = file.size
  let count = 0
  for (const { bytes } of lines) {
    if (size + bytes.length > limit && !(size === 0 && count === 0)) break
    size += bytes.length
    count++
  }
  return lines.slice(0, count)
}

async function append(
  journal: Journal,
  file: AppendedFile,
  lines: Line[],
  outcomes: Map<Item, Outcome>,
): Promise<void> {
  const start = file.size
  await file.append(Buffer.concat(lines.map(({ bytes }) => bytes)))
  let end = start
  const noted = lines.map(({ item, bytes }) => {
    end += bytes.length
    return { id: item.execution.id, end }
  })
  await journal.note(file, start, noted)
  for (const { item } of lines) outcomes.set(item, SUCCEEDED)
}
