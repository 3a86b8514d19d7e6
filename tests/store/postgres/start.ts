import { spawn } from 'node:child_process'
import { chmod, mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import pg from 'pg'
import { type ConnectionOptions, clientConfig } from '../../../src/store/database/database.ts'
import { processIdentity } from '../../../src/store/postgres/process-identity.ts'
import { until } from '../../support/until.ts'

/** A folder for a DATA_DIR that any user may pass through, and its removal. */
export async function temporaryFolder(prefix = '/var/tmp/longshore-embedded-') {
  const path = await mkdtemp(prefix)
  await chmod(path, 0o755)
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) }
}

export type Said =
  | { connection: ConnectionOptions; adopted: boolean; pid: number }
  | { reason: string | undefined; message: string }

/** A longshore in a process of its own that starts the embedded Postgres; `said` is its first line. */
export async function startParent(dataDir: string, options: { nativeDir?: string; uid?: number; gid?: number } = {}) {
  const { nativeDir, ...user } = options
  const args = [join(import.meta.dir, 'parent.ts'), dataDir, ...(nativeDir ? [nativeDir] : [])]
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'], ...user })
  const exited = new Promise<number | null>((resolve) => child.once('exit', resolve))
  const lines = createInterface({ input: child.stdout })
  const said = await new Promise<Said>((resolve, reject) => {
    lines.once('line', (line) => resolve(JSON.parse(line) as Said))
    lines.once('close', () => reject(new Error('The parent said nothing')))
  })
  return {
    said,
    exited,
    /** The answer of a start that went well. */
    ready() {
      if ('reason' in said) throw new Error(`The start was refused: ${said.message}`)
      return said as Extract<Said, { pid: number }>
    },
    async kill(signal: NodeJS.Signals = 'SIGKILL') {
      child.kill(signal)
      return await exited
    },
  }
}

/** One query on a connection of its own. */
export async function ask<T extends object>(connection: ConnectionOptions, text: string): Promise<T[]> {
  const client = new pg.Client(clientConfig(connection, 'longshore-test'))
  client.on('error', () => {})
  await client.connect()
  try {
    return (await client.query<T>(text)).rows
  } finally {
    await client.end()
  }
}

export function isRunning(pid: number): boolean {
  return processIdentity(pid) !== undefined
}

export async function untilGone(pid: number): Promise<void> {
  await until(() => !isRunning(pid), { what: `the end of process ${pid}` })
}

/** Every process whose command line names `folder`. */
export async function processesOn(folder: string): Promise<number[]> {
  const found: number[] = []
  for (const name of await readdir('/proc')) {
    const pid = Number(name)
    if (!(pid > 0) || pid === process.pid) continue
    const line = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
    if (line.includes(folder) && isRunning(pid)) found.push(pid)
  }
  return found
}
