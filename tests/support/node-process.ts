import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { chmod, mkdir, mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import { until } from './until.ts'

/** One line of a node's log. */
export interface LogLine {
  level: string
  event?: string
  msg?: string
  [field: string]: unknown
}

/** What the API answered; `body` is the parsed JSON, undefined when there was none. */
export interface Answer<T = unknown> {
  status: number
  headers: Headers
  body: T
}

export interface NodeOptions {
  /** Settings beside PORT=0, DATA_DIR and HANDLERS_DIR (both in the folder). */
  env?: Record<string, string>
  /** Told that the node has ended, before anything else about it. */
  onExit?(): void
  /** What it is run as; `start` by default. */
  run?: 'start' | 'worker'
  /** The program and its arguments before that; by default this Bun and src/main.ts. */
  command?: readonly string[]
}

/** What `attachNode` cannot see of a process. */
export interface NodePlaces {
  /** On this machine, not as the process sees them. */
  dataDir: string
  handlersDir: string
  /** By default the one in `dataDir`. */
  adminKey?: string | undefined
  /** By default to the process itself. */
  signal?: ((name: NodeJS.Signals) => void) | undefined
  onExit?: (() => void) | undefined
}

/** A longshore process of its own. */
export interface NodeProcess {
  readonly pid: number
  readonly dataDir: string
  readonly handlersDir: string
  /** Its log so far. */
  readonly log: readonly LogLine[]
  /** Its exit code, or the signal that ended it. */
  readonly exited: Promise<number | string>
  /** Where the API listens; rejects with the node's last words when it ends before it listens. */
  readonly listening: Promise<string>
  /** The log lines of one event. */
  logged(event: string): LogLine[]
  /** Calls the API with JSON and gives whatever it answers; rejects when there is no answer. */
  request<T>(method: string, path: string, body?: unknown): Promise<Answer<T>>
  /** As `request`, but gives the body, and rejects when the answer is not 2xx. */
  call<T>(method: string, path: string, body?: unknown): Promise<T>
  /** Headers of a call with the admin key. */
  headers(): Record<string, string>
  signal(name: NodeJS.Signals): void
  /** SIGTERM, then waits for its end; rejects when its exit code is not 0. */
  stop(): Promise<void>
  /** SIGKILL to the node alone: its embedded Postgres lives on as an orphan. */
  kill(): Promise<void>
}

/** A folder for one or more nodes; its end kills every process that works in it, and removes it. */
export interface NodeFolder extends AsyncDisposable {
  readonly path: string
}

const MAIN = join(import.meta.dir, '../../src/main.ts')
const LAST_WORDS = 20

/** A new folder that the database's user may pass through. */
export async function nodeFolder(): Promise<NodeFolder> {
  const path = await mkdtemp('/var/tmp/longshore-node-')
  await chmod(path, 0o755)
  await mkdir(join(path, 'handlers'))
  return {
    path,
    async [Symbol.asyncDispose]() {
      // A process that is just being started may escape the first look.
      await until(() => killProcessesIn(path) === 0, { what: `the end of every process in ${path}` })
      await rm(path, { recursive: true, force: true })
    },
  }
}

/** The processes whose working directory is `folder` or lies in it: nodes, and the servers of their clusters. */
export function processesIn(folder: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      const cwd = workingDirectory(pid)
      return cwd === folder || cwd.startsWith(`${folder}/`)
    })
    .map(Number)
}

/** Sends a signal to every process in `folder`; gives how many there were. */
export function signalProcessesIn(folder: string, signal: NodeJS.Signals): number {
  const pids = processesIn(folder)
  for (const pid of pids) {
    try {
      process.kill(pid, signal)
    } catch {
      // It ended meanwhile.
    }
  }
  return pids.length
}

/** Kills every process of the embedded Postgres of `dataDir`, as a power cut would; resolves when none is left. */
export async function killPostgres(dataDir: string): Promise<void> {
  const cluster = join(dataDir, 'postgres')
  await until(() => killProcessesIn(cluster) === 0, { what: `the end of the Postgres in ${cluster}` })
}

function killProcessesIn(folder: string): number {
  return signalProcessesIn(folder, 'SIGKILL')
}

function workingDirectory(pid: string): string {
  try {
    return readlinkSync(`/proc/${pid}/cwd`)
  } catch {
    return ''
  }
}

/** Starts `longshore start` in `folder` and does not wait for it. */
export function spawnNode(
  folder: Pick<NodeFolder, 'path'>,
  { env = {}, onExit, run = 'start', command = [process.execPath, MAIN] }: NodeOptions = {},
): NodeProcess {
  const dataDir = env.DATA_DIR ?? join(folder.path, 'data')
  const handlersDir = env.HANDLERS_DIR ?? join(folder.path, 'handlers')
  const [program = '', ...args] = command
  const child = spawn(program, [...args, run], {
    cwd: folder.path,
    env: {
      PATH: process.env.PATH,
      HOME: process.env.HOME,
      NODE_ENV: 'production',
      PORT: '0',
      DATA_DIR: dataDir,
      HANDLERS_DIR: handlersDir,
      ...env,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  return attachNode(child, { dataDir, handlersDir, adminKey: env.LONGSHORE_ADMIN_KEY, onExit })
}

/** A process that somebody has started as a node. */
export function attachNode(
  child: ChildProcessByStdio<null, Readable, Readable>,
  { dataDir, handlersDir, adminKey, onExit, signal = (name) => void child.kill(name) }: NodePlaces,
): NodeProcess {
  const log: LogLine[] = []
  const words: string[] = []
  const said = Promise.withResolvers<string>()
  // Nobody may ever ask: a node that is killed while it starts never listens.
  said.promise.catch(() => {})
  let url = ''

  createInterface({ input: child.stderr }).on('line', (line) => words.push(line))
  createInterface({ input: child.stdout }).on('line', (line) => {
    words.push(line)
    if (words.length > LAST_WORDS) words.shift()
    const entry = parseLine(line)
    if (!entry) return
    log.push(entry)
    if (entry.event !== 'listening') return
    url = String(entry.url)
    said.resolve(url)
  })
  const exited = new Promise<number | string>((resolve) => {
    child.once('exit', (code, signal) => {
      onExit?.()
      resolve(code ?? signal ?? 'unknown')
    })
  })
  const closed = new Promise((resolve) => child.once('close', resolve))
  void closed.then(() => said.reject(new Error(`The node ended before it listened:\n${words.join('\n')}`)))

  let key: string | undefined
  function headers(): Record<string, string> {
    key ??= adminKey ?? readFileSync(join(dataDir, 'admin.key'), 'utf8').trim()
    return { authorization: `Bearer ${key}`, 'content-type': 'application/json' }
  }
  async function request<T>(method: string, path: string, body?: unknown): Promise<Answer<T>> {
    const response = await fetch(`${url}/api/v1${path}`, {
      method,
      headers: headers(),
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    const text = await response.text()
    return {
      status: response.status,
      headers: response.headers,
      body: (text === '' ? undefined : JSON.parse(text)) as T,
    }
  }
  const node: NodeProcess = {
    pid: child.pid ?? -1,
    dataDir,
    handlersDir,
    log,
    exited,
    listening: said.promise,
    logged: (event) => log.filter((line) => line.event === event),
    request,
    async call<T>(method: string, path: string, body?: unknown) {
      const answer = await request<T>(method, path, body)
      if (answer.status < 200 || answer.status > 299) {
        throw new Error(`${method} ${path} answered ${answer.status}: ${JSON.stringify(answer.body)}`)
      }
      return answer.body
    },
    headers,
    signal,
    async stop() {
      signal('SIGTERM')
      const code = await exited
      await closed
      if (code !== 0) throw new Error(`The node ended with ${code}:\n${words.join('\n')}`)
    },
    async kill() {
      signal('SIGKILL')
      await exited
    },
  }
  return node
}

/** Starts a node in `folder` and waits until it listens. */
export async function startNode(folder: Pick<NodeFolder, 'path'>, options: NodeOptions = {}): Promise<NodeProcess> {
  const node = spawnNode(folder, options)
  await node.listening
  return node
}

function parseLine(line: string): LogLine | undefined {
  try {
    return JSON.parse(line) as LogLine
  } catch {
    return undefined
  }
}
