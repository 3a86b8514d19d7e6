import { randomBytes } from 'node:crypto'
import { chmod, chown, lstat, mkdir, readFile, readlink, realpath, stat, symlink } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { EmbeddedPostgresRefusal } from './refusal.ts'

/** An unprivileged user for the database when we run as root: Postgres refuses root. */
export interface DatabaseUser {
  readonly uid: number
  readonly gid: number
}

/** Where the cluster and what belongs to it live, and as whom Postgres runs (undefined: as ourselves). */
export interface Home {
  readonly path: string
  readonly user: DatabaseUser | undefined
}

/** Where the cluster lives when the database's user cannot enter DATA_DIR. */
const ELSEWHERE = '/var/lib/longshore'

/**
 * `dataDir`/postgres, made if missing and owned by the database's user. As root with a folder above that this user
 * cannot enter, it is a symbolic link to a folder of its own in /var/lib/longshore.
 */
export async function openHome(dataDir: string): Promise<Home> {
  const path = join(dataDir, 'postgres')
  const user = await databaseUser(path)
  const found = await lstat(path).catch(absent)
  if (found?.isSymbolicLink()) {
    const target = await readlink(path)
    if (!(await stat(path).catch(absent))) {
      throw new EmbeddedPostgresRefusal(
        'failed',
        `${path} leads to ${target}, which is gone: bring that folder back, or remove the link to start with an empty database.`,
      )
    }
    return { path: target, user }
  }
  if (!user || (await canEnter(user, await realpath(dataDir)))) {
    await makeFolder(path, user)
    return { path, user }
  }
  if (found) {
    throw new EmbeddedPostgresRefusal(
      'failed',
      `The user of ${path} (uid ${user.uid}) can no longer enter every folder above it: ` +
        `give the others' execute permission back (chmod o+x) to the folders above.`,
    )
  }
  await mkdir(ELSEWHERE, { recursive: true, mode: 0o755 })
  const elsewhere = join(ELSEWHERE, randomBytes(8).toString('hex'))
  await makeFolder(elsewhere, user)
  await symlink(elsewhere, path)
  return { path: elsewhere, user }
}

/** Makes `path` with mode 0700 for the database's user; an existing one gets that owner and mode. */
export async function makeFolder(path: string, user: DatabaseUser | undefined): Promise<void> {
  await mkdir(path, { recursive: true, mode: 0o700 })
  await chmod(path, 0o700)
  if (user) await chown(path, user.uid, user.gid)
}

/** True when `user` may pass through `folder` and every folder above it (ACLs are not looked at). */
export async function canEnter(user: DatabaseUser, folder: string): Promise<boolean> {
  for (let path = folder; ; path = dirname(path)) {
    const { mode, uid, gid } = await stat(path)
    const executeBit = uid === user.uid ? 0o100 : gid === user.gid ? 0o010 : 0o001
    if ((mode & executeBit) === 0) return false
    if (path === dirname(path)) return true
  }
}

async function databaseUser(home: string): Promise<DatabaseUser | undefined> {
  if (process.getuid?.() !== 0) return undefined
  // A cluster keeps its owner, also when another candidate is installed later.
  const existing = await stat(home).catch(absent)
  if (existing && existing.uid !== 0) return { uid: existing.uid, gid: existing.gid }
  const passwd = await readFile('/etc/passwd', 'utf8').catch(() => '')
  for (const name of ['postgres', 'nobody']) {
    const fields = passwd
      .split('\n')
      .find((line) => line.startsWith(`${name}:`))
      ?.split(':')
    const uid = Number(fields?.[2])
    const gid = Number(fields?.[3])
    if (uid > 0 && gid > 0) return { uid, gid }
  }
  throw new EmbeddedPostgresRefusal(
    'no-user',
    'Postgres does not run as root, and neither "postgres" nor "nobody" is in /etc/passwd: ' +
      'start longshore as another user, or set DATABASE_URL.',
  )
}

/** For `catch`: undefined for a file that is not there. */
export function absent(error: NodeJS.ErrnoException): undefined {
  if (error.code === 'ENOENT') return undefined
  throw error
}
