import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, openSync, readFileSync, realpathSync } from 'node:fs'
import { readFile, readlink, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Binaries } from './binaries.ts'
import type { Home } from './home.ts'
import { pidExists, processIdentity } from './process-identity.ts'
import { SOCKET_PORT } from './settings.ts'

/** A running postmaster: our child, or one that an earlier longshore left behind. */
export interface Postmaster {
  readonly pid: number
  /** Settles when the process is gone. */
  readonly gone: Promise<void>
  isGone(): boolean
  signal(name: NodeJS.Signals): void
}

/** How often a postmaster that is not our child is looked at. */
const LOOK_MS = 250
const REAPED_MS = 10_000

/** The server's own messages since its last start. */
function serverLog(home: Pick<Home, 'path'>): string {
  return join(home.path, 'postgres.log')
}

/** Starts a postmaster on `dataDir`, in a session of its own: Ctrl-C in a terminal is for longshore alone. */
export function spawnPostmaster(home: Home, binaries: Binaries, dataDir: string, configFile: string): Postmaster {
  // A file, not a pipe: the server may outlive us, and is then adopted.
  const output = openSync(serverLog(home), 'w', 0o600)
  let child: ChildProcess
  try {
    child = spawn(binaries.postgres, ['-D', dataDir, '-c', `config_file=${configFile}`], {
      cwd: home.path,
      env: binaries.env,
      stdio: ['ignore', output, output],
      detached: true,
      ...home.user,
    })
  } finally {
    closeSync(output)
  }
  let ended = false
  const gone = new Promise<void>((resolve) => {
    const end = () => {
      ended = true
      resolve()
    }
    child.once('exit', end)
    child.once('error', end)
  })
  return {
    pid: child.pid ?? -1,
    gone,
    isGone: () => ended,
    signal: (name) => {
      if (!ended) child.kill(name)
    },
  }
}

/**
 * Waits while the postmaster that `dataDir` names is dead but still in the system's table (its new parent, init, takes
 * a moment): Postgres would take it for alive.
 */
export async function untilReaped(dataDir: string): Promise<void> {
  const pid = Number((await readFile(join(dataDir, 'postmaster.pid'), 'utf8').catch(() => '')).split('\n')[0])
  const deadline = performance.now() + REAPED_MS
  while (pid > 0 && pidExists(pid) && processIdentity(pid) === undefined && performance.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

/**
 * Removes a killed server's lock files when the pid in them is another process's by now: pids start anew with every
 * container, and Postgres would take the stranger for a server of this cluster, for ever. Whether processes of that server
 * are left it still finds out by the memory that they share.
 */
export async function forgetStranger(dataDir: string, socketDir: string): Promise<void> {
  for (const file of [join(dataDir, 'postmaster.pid'), join(socketDir, `.s.PGSQL.${SOCKET_PORT}.lock`)]) {
    const pid = Number((await readFile(file, 'utf8').catch(() => '')).split('\n')[0])
    if (pid > 0 && processIdentity(pid) !== undefined && !(await worksIn(pid, dataDir))) await rm(file, { force: true })
  }
}

/** The living postmaster of `dataDir` that somebody else started, by its postmaster.pid; undefined when there is none. */
export async function findPostmaster(dataDir: string): Promise<(Postmaster & { socketDir: string }) | undefined> {
  const lines = (await readFile(join(dataDir, 'postmaster.pid'), 'utf8').catch(() => '')).split('\n')
  const pid = Number(lines[0])
  const socketDir = lines[4]?.trim()
  if (!(pid > 0) || !socketDir) return undefined
  const identity = processIdentity(pid)
  if (identity === undefined || !(await worksIn(pid, dataDir))) return undefined

  const isGone = () => processIdentity(pid) !== identity
  let gone: Promise<void> | undefined
  return {
    pid,
    socketDir,
    isGone,
    get gone() {
      gone ??= new Promise((resolve) => {
        const timer = setInterval(() => {
          if (!isGone()) return
          clearInterval(timer)
          resolve()
        }, LOOK_MS)
      })
      return gone
    },
    signal(name) {
      if (!isGone()) process.kill(pid, name)
    },
  }
}

/** A postmaster's working directory is its data directory; another process may have got a stale file's pid. */
async function worksIn(pid: number, dataDir: string): Promise<boolean> {
  if (process.platform !== 'linux') return true
  const cwd = await readlink(`/proc/${pid}/cwd`).catch(() => undefined)
  return cwd === realpathSync(dataDir)
}

/** The last lines that the server wrote, for an error message. */
export function lastWords(home: Pick<Home, 'path'>, lines = 5): string {
  try {
    const text = readFileSync(serverLog(home), 'utf8').trim().split('\n').slice(-lines)
    return text.map((line) => line.replace(/^.*?\] /, '')).join('; ')
  } catch {
    return ''
  }
}
