import { existsSync } from 'node:fs'
import { cp, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createZstdDecompress } from 'node:zlib'
import { unpackTar } from 'modern-tar/fs'
import type { Home } from './home.ts'
import { findPostmaster } from './postmaster.ts'

/** Postgres's programs in one file: tar, compressed with zstd. */
export interface PackedPrograms {
  /** Tells one set of programs from another. */
  readonly digest: string
  /** Path of the file. */
  readonly archive: string
}

/** The folder in `home` with the programs of `packed`, unpacked there once. */
export function unpackPrograms(home: Home, { digest, archive }: PackedPrograms): Promise<string> {
  return keep(home, digest, async (draft) => {
    // Unpacked as a stream, because 60 MB at once would stay with the process; read at once, because the files inside a
    // compiled binary can be read, but not opened.
    await pipeline(Readable.from([await readFile(archive)]), createZstdDecompress(), unpackTar(draft))
  })
}

/** A copy in `home` of the programs in `native`, for a database's user who cannot get there. */
export async function copyPrograms(home: Home, native: string): Promise<string> {
  // The package's version is in no file name, but a changed program has another time or size.
  const { mtimeMs, size } = await stat(join(native, 'bin', 'postgres'))
  return keep(home, `${Math.floor(mtimeMs)}-${size}`, (draft) => cp(native, draft, { recursive: true }))
}

/** `home`/programs-<version>, made by `fill` when it is missing: whole and on the disk, or not there at all. */
async function keep(home: Home, version: string, fill: (draft: string) => Promise<unknown>): Promise<string> {
  const folder = join(home.path, `programs-${version}`)
  if (existsSync(folder)) return folder
  // A server that outlived its longshore still loads from the folder that it was started from.
  const inUse = (await findPostmaster(join(home.path, 'data'))) !== undefined
  for (const name of await readdir(home.path)) {
    const isOld = name.startsWith('programs-') && (name.endsWith('.draft') || !inUse)
    if (isOld) await rm(join(home.path, name), { recursive: true, force: true })
  }
  const draft = `${folder}.draft`
  await fill(draft)
  await sync(draft)
  await rename(draft, folder)
  return folder
}

/** Half-written programs under their final name would not start, and nobody would write them again. */
async function sync(folder: string): Promise<void> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true })
  const files = entries.filter((entry) => entry.isFile())
  await Promise.all(
    files.map(async ({ parentPath, name }) => {
      const file = await open(join(parentPath, name))
      await file.sync().finally(() => file.close())
    }),
  )
}
