import { type ChildProcess, spawn } from 'node:child_process'
import { createConnection, createServer, type Server } from 'node:net'
import { until } from './until.ts'

/** A server that a test has started. */
export interface ServerProcess {
  /** What it has printed so far. */
  readonly words: string
  /** Kills it and every process that it made, and waits for its end. */
  kill(): Promise<void>
}

/** Starts `program` as the head of a process group of its own, and waits until `port` of 127.0.0.1 takes connections. */
export async function startServer(program: string, args: string[], port: number, cwd: string): Promise<ServerProcess> {
  // Killed with us: a group of its own does not get the signals that end a test run.
  const command = ['--pdeathsig', 'KILL', '--', program, ...args]
  const child = spawn('setpriv', command, { cwd, detached: true, stdio: ['ignore', 'pipe', 'pipe'] })
  let words = ''
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk) => (words = (words + chunk).slice(-8_000)))
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  const server: ServerProcess = {
    get words() {
      return words
    },
    async kill() {
      killGroup(child)
      await exited
    },
  }
  try {
    await until(
      () => {
        if (child.exitCode !== null || child.signalCode !== null) throw new Error(`${program} has ended: ${words}`)
        return accepts(port)
      },
      { what: `${program} to listen on port ${port}` },
    )
  } catch (error) {
    await server.kill()
    throw error
  } finally {
    reserved.get(port)?.close()
    reserved.delete(port)
  }
  return server
}

function killGroup(child: ChildProcess): void {
  if (child.pid === undefined) return
  try {
    process.kill(-child.pid, 'SIGKILL')
  } catch {
    // The group is gone.
  }
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection({ port, host: '127.0.0.1' })
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
    socket.once('connect', () => socket.destroy())
  })
}

/** Ports that one server may have. Rows of them do not overlap, so that a row whose first port is taken is taken. */
const ROW = 64
/** Below the range that the system gives to clients. */
const ROWS = { from: 10_000, count: 300 }
/** By the first port: what keeps a row, for all processes, until its server listens. */
const reserved = new Map<number, Server>()

/**
 * So many ports in a row, `ROW` at most, that are free on 127.0.0.1 and 127.0.0.2; gives the first, on which `startServer`
 * is to be called next.
 */
export async function freePorts(count: number): Promise<number> {
  for (let tries = 0; tries < 100; tries++) {
    const first = ROWS.from + ROW * Math.floor(Math.random() * ROWS.count)
    const reservation = await listenOn(first, '127.0.0.3')
    if (!reservation) continue
    const ports = Array.from({ length: count }, (_, index) => first + index)
    const free = await Promise.all(
      ports.flatMap((port) => ['127.0.0.1', '127.0.0.2'].map((host) => isFree(port, host))),
    )
    if (free.every(Boolean)) {
      reserved.set(first, reservation)
      return first
    }
    reservation.close()
  }
  throw new Error(`There are no ${count} free ports in a row`)
}

async function isFree(port: number, host: string): Promise<boolean> {
  const probe = await listenOn(port, host)
  if (probe) await new Promise((resolve) => probe.close(resolve))
  return probe !== undefined
}

/** Undefined when somebody else does. */
function listenOn(port: number, host: string): Promise<Server | undefined> {
  return new Promise((resolve) => {
    const server = createServer().once('error', () => resolve(undefined))
    server.listen(port, host, () => resolve(server))
  })
}
