import { execFile } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { chown, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { freePort } from './free-port.ts'
import { type NodeFolder, signalProcessesIn } from './node-process.ts'

const run = promisify(execFile)
const DEBIAN = '/usr/lib/postgresql'

/** The programs of the newest Postgres that Debian's packages have installed; undefined when there is none. */
export function serverPrograms(): string | undefined {
  if (!existsSync(DEBIAN)) return undefined
  const [newest] = readdirSync(DEBIAN).sort((a, b) => Number(b) - Number(a))
  const bin = newest === undefined ? undefined : join(DEBIAN, newest, 'bin')
  return bin && existsSync(join(bin, 'initdb')) ? bin : undefined
}

/** A Postgres server that a test may harm. */
export interface PostgresServer {
  /** Database `postgres`, as its superuser. */
  readonly url: string
  start(): Promise<void>
  /** As a crash: no goodbye, nothing written. */
  stopAtOnce(): Promise<void>
  /** Stops and continues every process of the server; connections stay open and silent. */
  freeze(): void
  thaw(): void
}

/** Makes and starts a server in `folder` on a free port of loopback; it ends with the folder. */
export async function startPostgresServer(folder: NodeFolder): Promise<PostgresServer> {
  const programs = serverPrograms()
  if (!programs) throw new Error(`There is no Postgres under ${DEBIAN}: install the package postgresql`)
  const home = join(folder.path, 'server')
  const data = join(home, 'data')
  const user = process.getuid?.() === 0 ? await databaseUser() : undefined
  await mkdir(home, { mode: 0o755 })
  if (user) await chown(home, user.uid, user.gid)
  // The folder as working directory: whatever runs there ends with it.
  const call = (program: string, args: string[]) => run(join(programs, program), args, { cwd: home, ...user })
  await call('initdb', ['-D', data, '-U', 'postgres', '--auth', 'trust', '-E', 'UTF8', '--locale', 'C', '--no-sync'])
  const port = await freePort()
  const settings = [
    `listen_addresses = '127.0.0.1'`,
    `port = ${port}`,
    `unix_socket_directories = ''`,
    'shared_buffers = 32MB',
    // What is killed here is processes, not the machine.
    'fsync = off',
  ]
  await writeFile(join(data, 'postgresql.auto.conf'), `${settings.join('\n')}\n`)

  const server: PostgresServer = {
    url: `postgres://postgres@127.0.0.1:${port}/postgres`,
    start: async () => void (await call('pg_ctl', ['start', '-w', '-t', '120', '-D', data, '-l', join(home, 'log')])),
    stopAtOnce: async () => void (await call('pg_ctl', ['stop', '-w', '-m', 'immediate', '-D', data])),
    freeze() {
      // First the one that makes the others.
      process.kill(Number(readFileSync(join(data, 'postmaster.pid'), 'utf8').split('\n')[0]), 'SIGSTOP')
      signalProcessesIn(data, 'SIGSTOP')
    },
    thaw: () => void signalProcessesIn(data, 'SIGCONT'),
  }
  await server.start()
  return server
}

/** initdb and postgres refuse root. */
async function databaseUser(): Promise<{ uid: number; gid: number }> {
  const id = async (flag: string) => Number((await run('id', [flag, 'postgres'])).stdout)
  return { uid: await id('-u'), gid: await id('-g') }
}
