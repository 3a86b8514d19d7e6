import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { chown, open, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Binaries } from './binaries.ts'
import { absent, type Home } from './home.ts'
import { DISK_FULL, EmbeddedPostgresRefusal } from './refusal.ts'

export const SUPERUSER = 'longshore'
export const DATABASE = 'longshore'

/** The cluster's files on disk. */
export interface Cluster {
  readonly dataDir: string
  readonly password: string
}

const run = promisify(execFile)

/** The cluster in `home`, made by initdb if there is none; a cluster of another major version is refused. */
export async function openCluster(home: Home, binaries: Binaries): Promise<Cluster> {
  const dataDir = join(home.path, 'data')
  const version = await readFile(join(dataDir, 'PG_VERSION'), 'utf8').catch(absent)
  if (version === undefined) {
    const password = (await readPassword(home)) ?? (await makePassword(home))
    await initialise(home, binaries, dataDir)
    return { dataDir, password }
  }
  if (version.trim() !== String(binaries.major)) {
    throw new EmbeddedPostgresRefusal(
      'other-major',
      `${dataDir} was made by Postgres ${version.trim()} and this longshore brings Postgres ${binaries.major}: ` +
        `dump it with the longshore that made it running (pg_dump over its socket), move ${dataDir} away, start this one, and restore (psql).`,
    )
  }
  const password = await readPassword(home)
  if (password === undefined) {
    throw new EmbeddedPostgresRefusal('failed', `${passwordFile(home)} is missing: restore it from a backup.`)
  }
  return { dataDir, password }
}

export async function readPassword(home: Pick<Home, 'path'>): Promise<string | undefined> {
  return (await readFile(passwordFile(home), 'utf8').catch(absent))?.trim()
}

function passwordFile(home: Pick<Home, 'path'>): string {
  return join(home.path, 'password')
}

async function makePassword(home: Home): Promise<string> {
  const password = randomBytes(24).toString('base64url')
  const draft = `${passwordFile(home)}.draft`
  await writeFile(draft, `${password}\n`, { mode: 0o600, flush: true })
  // initdb reads it as the database's user.
  if (home.user) await chown(draft, home.user.uid, home.user.gid)
  await rename(draft, passwordFile(home))
  return password
}

/** Into a draft folder first: a killed initdb leaves no half cluster under the real name. */
async function initialise(home: Home, binaries: Binaries, dataDir: string): Promise<void> {
  for (const name of await readdir(home.path)) {
    if (name.startsWith('data-draft-')) await rm(join(home.path, name), { recursive: true, force: true })
  }
  const draft = join(home.path, `data-draft-${randomBytes(4).toString('hex')}`)
  const options = [
    ...['--pgdata', draft, '--username', SUPERUSER, '--pwfile', passwordFile(home), '--auth', 'scram-sha-256'],
    // Sorted by code point everywhere, whatever the machine's locales and their versions.
    ...['--encoding', 'UTF8', '--locale-provider', 'builtin', '--builtin-locale', 'C.UTF-8', '--locale', 'C'],
    ...['--data-checksums', '--no-instructions'],
  ]
  try {
    await run(binaries.initdb, options, { cwd: home.path, env: binaries.env, ...home.user })
  } catch (error) {
    await rm(draft, { recursive: true, force: true })
    throw initdbFailure(home, error)
  }
  await rename(draft, dataDir)
  const folder = await open(home.path)
  await folder.sync().finally(() => folder.close())
}

function initdbFailure(home: Home, error: unknown): EmbeddedPostgresRefusal {
  const { stdout = '', stderr = '', message } = error as { stdout?: string; stderr?: string; message: string }
  const output = `${stdout}\n${stderr}`
  if (DISK_FULL.test(output)) {
    return new EmbeddedPostgresRefusal(
      'no-space',
      `There is no space for the database in ${home.path}: free at least 200 MB, or choose another DATA_DIR.`,
      { cause: error },
    )
  }
  const reasons = stderr.split('\n').filter((line) => /error|fatal|cannot|could not/i.test(line))
  return new EmbeddedPostgresRefusal(
    'failed',
    `initdb could not make the database in ${home.path}: ${reasons.join('; ') || stderr.trim() || message}`,
    { cause: error },
  )
}
