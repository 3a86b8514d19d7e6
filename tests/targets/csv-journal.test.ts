import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { mkdtemp, readdir, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { v7 as uuidv7 } from 'uuid'
import { AppendedFile } from '../../src/targets/csv/appended-file.ts'
import { type Journal, openJournal } from '../../src/targets/csv/journal.ts'
import { entryText, headText, readJournal } from '../../src/targets/csv/journal-text.ts'
import { KEPT_DAYS } from '../../src/targets/kept-days.ts'

const ROLL_BYTES = 100_000
const HEAD = { at: 1_764_086_400, file: 'orders.csv', inode: '4711', start: 0 }
const [A, B, C] = [uuidv7(), uuidv7(), uuidv7()]

describe('a journal', () => {
  test('tells which tasks have their lines, and where the last one ends', () => {
    const text =
      headText({ ...HEAD, begins: true }) +
      entryText(A, 30) +
      entryText(B, 40) +
      headText({ ...HEAD, start: 40 }) +
      entryText(C, 55)
    expect(readJournal(text)).toEqual({
      position: { file: 'orders.csv', inode: '4711', end: 55 },
      ids: new Set([A, B, C]),
      since: HEAD.at,
      whole: text.length,
    })
  })

  test('does not count a batch that goes on from where no batch ended', () => {
    const text =
      headText({ ...HEAD, begins: true }) +
      entryText(A, 30) +
      headText({ ...HEAD, start: 20 }) +
      entryText(B, 40) +
      headText({ ...HEAD, inode: '1', start: 30 }) +
      entryText(B, 40) +
      headText({ ...HEAD, start: 30 }) +
      entryText(C, 44)
    expect(readJournal(text)).toMatchObject({ position: { end: 44 }, ids: new Set([A, C]) })
  })

  test('goes over to another file where one begins', () => {
    const text =
      headText({ ...HEAD, begins: true }) +
      entryText(A, 30) +
      headText({ ...HEAD, file: 'orders.1.csv', inode: '5', begins: true }) +
      entryText(B, 12)
    expect(readJournal(text)).toMatchObject({
      position: { file: 'orders.1.csv', inode: '5', end: 12 },
      ids: new Set([A, B]),
    })
  })

  test('has bytes for characters, whatever its file is called', () => {
    const text = headText({ ...HEAD, file: 'Größe 😀.csv', begins: true })
    expect(Buffer.byteLength(text)).toBe(text.length)
    expect(readJournal(text)?.position?.file).toBe('Größe 😀.csv')
  })

  test('that a crash cut off anywhere is whole up to its last whole line', () => {
    const text = headText({ ...HEAD, begins: true }) + entryText(A, 30) + entryText(B, 40)
    for (let length = 0; length <= text.length; length++) {
      for (const rest of ['', '\0'.repeat(7), '\0\n\0\n']) {
        const read = readJournal(text.slice(0, length) + rest)
        const whole = text.lastIndexOf('\n', length - 1) + 1
        expect(read?.whole).toBe(whole)
      }
    }
  })

  test('that is damaged in its middle is not read', () => {
    const text = `${headText({ ...HEAD, begins: true })}what is this\n${headText({ ...HEAD, start: 0 })}${entryText(A, 30)}`
    expect(readJournal(text)).toBeUndefined()
  })
})

describe('a journal that grows', () => {
  let folder: string
  let now: Date
  let journal: Journal
  let file: AppendedFile
  const path = () => join(folder, 'orders.csv.journal')
  const may = async () => {}
  const openAgain = async () => {
    await journal.close()
    journal = await openJournal(path(), may, () => now, ROLL_BYTES)
  }
  const suspect = (id: string, createdAt = now.toISOString()) => ({ id, attempt: 2, createdAt })

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'longshore-journal-'))
    now = new Date()
    file = await AppendedFile.open(join(folder, 'orders.csv'), may)
    journal = await openJournal(path(), may, () => now, ROLL_BYTES)
    await journal.begin(file)
  })

  afterEach(async () => {
    await journal.close()
    await file.close()
    await rm(folder, { recursive: true })
  })

  /** Notes lines until another journal is begun; gives their ids. */
  async function fill(): Promise<string[]> {
    const before = (await readdir(folder)).length
    const ids: string[] = []
    while ((await readdir(folder)).length === before) {
      const lines = Array.from({ length: 100 }, () => ({ id: uuidv7(), end: file.size }))
      await journal.note(file, file.size, lines)
      ids.push(...lines.map(({ id }) => id))
    }
    return ids
  }

  test('is put aside, and its tasks are known as before, at once and after a restart', async () => {
    const [first, second, third] = [await fill(), await fill(), await fill()]
    expect((await readdir(folder)).sort()).toEqual([
      'orders.csv',
      'orders.csv.journal',
      'orders.csv.journal.1',
      'orders.csv.journal.2',
      'orders.csv.journal.3',
    ])
    expect((await stat(path())).size).toBeLessThan(1_000)
    const position = journal.position()
    const sample = [first, second, third].flatMap((ids) => [ids[0] as string, ids.at(-1) as string])
    const created = new Date(now.getTime() - 60_000).toISOString()
    const known = () => journal.known([...sample, uuidv7()].map((id) => suspect(id, created)))
    expect(await known()).toEqual(new Set(sample))
    await openAgain()
    expect(journal.position()).toEqual(position)
    expect(await known()).toEqual(new Set(sample))
  })

  test('is not searched for first attempts, nor for tasks that are younger than what is searched', async () => {
    const [old = ''] = await fill()
    await fill()
    now = new Date(now.getTime() + 3_600_000)
    await fill()
    await fill()
    await openAgain()
    expect(await journal.known([suspect(old), { ...suspect(old, '2026-01-01T00:00:00.000Z'), attempt: 1 }])).toEqual(
      new Set(),
    )
    expect(await journal.known([suspect(old, '2026-01-01T00:00:00.000Z')])).toEqual(new Set([old]))
  })

  test('forgets after 100 days', async () => {
    await fill()
    const aside = `${path()}.1`
    const old = now.getTime() / 1_000 - (KEPT_DAYS + 1) * 86_400
    await utimes(aside, old, old)
    await fill()
    expect(await readdir(folder)).not.toContain('orders.csv.journal.1')
  })

  test('is whole after a crash between the two renames', async () => {
    const [id = ''] = await fill()
    const position = journal.position()
    // As it is when the old journal has been put aside, and the new one has not taken its name yet.
    await rename(path(), `${path()}.new`)
    await openAgain()
    expect(journal.position()).toEqual(position)
    expect(await journal.known([suspect(id, new Date(now.getTime() - 60_000).toISOString())])).toEqual(new Set([id]))
    // A draft that a crash left beside the journal is none.
    await writeFile(`${path()}.new`, 'draft')
    await openAgain()
    expect(journal.position()).toEqual(position)
    expect(await readFile(`${path()}.new`).catch(() => undefined)).toBeUndefined()
  })
})
