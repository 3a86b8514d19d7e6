import { readdirSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'

/** Files that the compiled binary carries inside, because nothing is installed beside it. */
export interface Assets {
  /** Postgres's programs as a tar archive compressed with zstd; `digest` tells one set of programs from another. */
  readonly postgres: { readonly digest: string; readonly archive: string }
  /** A file by its name; rejects when it is not there. */
  read(name: string): Promise<Uint8Array>
}

const POSTGRES = /^postgres-([0-9a-f]{16})\.tar\.zst$/

/** The files in `folder`, as scripts/build.ts lays them there; undefined where there is no such folder: run from source. */
export function openAssets(folder: URL): Assets | undefined {
  const archive = namesIn(folder).find((name) => POSTGRES.test(name))
  const digest = archive && POSTGRES.exec(archive)?.[1]
  if (!archive || !digest) return undefined
  return {
    postgres: { digest, archive: fileURLToPath(new URL(archive, folder)) },
    read: (name) => readFile(new URL(name, folder)),
  }
}

function namesIn(folder: URL): string[] {
  try {
    return readdirSync(folder)
  } catch {
    return []
  }
}
