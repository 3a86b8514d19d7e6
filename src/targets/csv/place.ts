import { lstat, mkdir, realpath } from 'node:fs/promises'
import { basename, dirname, extname, join } from 'node:path'
import { syncFolder } from '../../runtime/sync-folder.ts'
import type { CsvTarget } from '../../task/target/target.ts'

/** Where a csv target's files lie. */
export interface Place {
  folder: string
  /** The file's name without its ending, and its ending with the dot. */
  stem: string
  ending: string
  journal: string
}

/**
 * Makes the folders of `path` below `outDir` and gives the place. `outDir` may be a link, nothing below it may: a link
 * could lead out. Rejects with a sentence.
 */
export async function openPlace(outDir: string, path: string): Promise<Place> {
  await mkdir(outDir, { recursive: true })
  let folder = await realpath(outDir)
  for (const part of dirname(path)
    .split('/')
    .filter((name) => name !== '.')) {
    const next = join(folder, part)
    await mkdir(next).then(
      () => syncFolder(folder),
      (error: NodeJS.ErrnoException) => {
        if (error.code !== 'EEXIST') throw error
      },
    )
    if (!(await lstat(next)).isDirectory()) throw new Error(`${next} is no folder, or a link, which is not followed`)
    folder = next
  }
  const ending = extname(path)
  return { folder, stem: basename(path, ending), ending, journal: join(folder, `${basename(path)}.journal`) }
}

/** One of the files that a target writes one after another. */
export interface Part {
  /** `2026-11-25`; null without rotation by day. */
  day: string | null
  /** 0 is the first, without a number in its name. */
  number: number
}

export function partName({ stem, ending }: Pick<Place, 'stem' | 'ending'>, { day, number }: Part): string {
  return `${stem}${day === null ? '' : `-${day}`}${number === 0 ? '' : `.${number}`}${ending}`
}

/** The part that has this name; undefined for other names. */
export function partOf({ stem, ending }: Pick<Place, 'stem' | 'ending'>, name: string): Part | undefined {
  if (!name.startsWith(stem) || !name.endsWith(ending)) return undefined
  const middle = name.slice(stem.length, name.length - ending.length)
  const match = /^(?:-(\d{4}-\d{2}-\d{2}))?(?:\.([1-9]\d{0,8}))?$/.exec(middle)
  return match ? { day: match[1] ?? null, number: Number(match[2] ?? 0) } : undefined
}

/** The day that a line written now belongs to. */
export function dayOf({ rotate }: CsvTarget, now: Date): string | null {
  return rotate?.every === 'day' ? now.toISOString().slice(0, 10) : null
}
