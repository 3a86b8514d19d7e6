import { execFile, spawn } from 'node:child_process'
import { closeSync, existsSync, openSync, readFileSync, realpathSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { freePort } from './free-port.ts'
import { processesIn, signalProcessesIn } from './node-process.ts'
import { until } from './until.ts'

const run = promisify(execFile)
const DEBIAN = '/usr/lib/rabbitmq/bin'
const KEEPER = join(import.meta.dir, 'rabbitmq-keeper.ts')
const START_MS = 150_000

/** Where RabbitMQ's programs are; undefined when there are none. Debian's in the PATH would change the user: not those. */
export function rabbitMqPrograms(): string | undefined {
  if (existsSync(join(DEBIAN, 'rabbitmq-server'))) return DEBIAN
  const found = Bun.which('rabbitmq-server')
  return found ? dirname(realpathSync(found)) : undefined
}

export interface RabbitMqOptions {
  /** By default a new one; what is in it, is used. */
  folder?: string
  /** PEM files; the server then listens for amqps as well. */
  tls?: { ca: string; cert: string; key: string }
  /** More lines of rabbitmq.conf. */
  settings?: string[]
}

/** A RabbitMQ that a test may harm. */
export interface RabbitMqServer extends AsyncDisposable {
  /** User guest, vhost `/`. */
  readonly amqpUrl: string
  /** The same with TLS, for the name localhost; only with `tls`. */
  readonly amqpsUrl: string
  readonly managementUrl: string
  readonly host: string
  readonly port: number
  readonly folder: string
  /** Resolves when clients and the management API are served; nothing happens when they are. */
  start(): Promise<void>
  /** As a crash: no goodbye, nothing written. */
  kill(): Promise<void>
  /** In order: clients are told. */
  stop(): Promise<void>
  /**
   * Resolves when it has the queues that it was told to have on its disk: RabbitMQ 3.10 takes up to two seconds. Killed before,
   * it does not know a quorum queue, or has no leader for it ever again.
   */
  queuesOnDisk(): Promise<void>
  /** Kills and starts it, without its data. */
  wipe(): Promise<void>
  /** What `rabbitmqctl` prints; rejects when it fails. Takes a second or two. */
  rabbitmqctl(...args: string[]): Promise<string>
}

/**
 * Makes and starts a RabbitMQ of the test's own, on free ports of loopback, with users and data of its own. It ends with
 * this process, however that ends, or with its disposal.
 */
export async function startRabbitMqServer(options: RabbitMqOptions = {}): Promise<RabbitMqServer> {
  const server = await prepareRabbitMqServer(options)
  await server.start()
  return server
}

/** As `startRabbitMqServer`, but does not start it yet. */
export async function prepareRabbitMqServer(options: RabbitMqOptions = {}): Promise<RabbitMqServer> {
  const programs = rabbitMqPrograms()
  if (!programs) throw new Error('There is no RabbitMQ: install the package rabbitmq-server')
  const folder = options.folder ?? (await mkdtemp(join(tmpdir(), 'longshore-rabbitmq-')))
  await mkdir(folder, { recursive: true })
  const [port, tlsPort, managementPort, distPort, epmdPort] = await Promise.all(Array.from({ length: 5 }, freePort))
  const settings = [
    `listeners.tcp.1 = 127.0.0.1:${port}`,
    'management.tcp.ip = 127.0.0.1',
    `management.tcp.port = ${managementPort}`,
    'log.console = false',
    // A developer's disk may be fuller than its default likes.
    'disk_free_limit.absolute = 50MB',
    ...(options.tls
      ? [
          `listeners.ssl.1 = 127.0.0.1:${tlsPort}`,
          `ssl_options.cacertfile = ${options.tls.ca}`,
          `ssl_options.certfile = ${options.tls.cert}`,
          `ssl_options.keyfile = ${options.tls.key}`,
        ]
      : []),
    ...(options.settings ?? []),
  ]
  await writeFile(join(folder, 'rabbitmq.conf'), `${settings.join('\n')}\n`)
  await writeFile(join(folder, 'enabled_plugins'), '[rabbitmq_management].\n')
  const env = {
    PATH: process.env.PATH,
    LANG: 'C.UTF-8',
    HOME: folder,
    RABBITMQ_NODENAME: `test-${port}@localhost`,
    RABBITMQ_MNESIA_BASE: join(folder, 'data'),
    RABBITMQ_LOG_BASE: join(folder, 'log'),
    RABBITMQ_CONFIG_FILE: join(folder, 'rabbitmq.conf'),
    RABBITMQ_CONF_ENV_FILE: join(folder, 'none'),
    RABBITMQ_ENABLED_PLUGINS_FILE: join(folder, 'enabled_plugins'),
    RABBITMQ_DIST_PORT: String(distPort),
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: '-kernel inet_dist_use_interface {127,0,0,1}',
    ERL_EPMD_PORT: String(epmdPort),
    ERL_EPMD_ADDRESS: '127.0.0.1',
  }
  /**
   * With the folder as working directory: whatever runs there ends with it. Through a shell that ends at once, because
   * `bun test --isolate` kills the child processes of a file.
   */
  const launch = (program: string, args: string[]) => {
    const output = openSync(join(folder, 'output'), 'a')
    const stdio: ('ignore' | number)[] = ['ignore', output, output]
    spawn('sh', ['-c', '"$@" &', 'sh', program, ...args], { cwd: folder, env, stdio, detached: true }).unref()
    closeSync(output)
  }
  const managementUrl = `http://guest:guest@127.0.0.1:${managementPort}`
  const answers = () => answersAt(`http://127.0.0.1:${managementPort}/api/health/checks/port-listener/${port}`)
  const brokers = () => processesIn(folder).filter(isBroker)
  const ended = () => until(() => brokers().length === 0, { timeoutMs: 60_000, what: 'the end of RabbitMQ' })

  launch(process.execPath, [KEEPER, folder, String(process.pid)])

  const server: RabbitMqServer = {
    amqpUrl: `amqp://guest:guest@127.0.0.1:${port}`,
    amqpsUrl: `amqps://guest:guest@localhost:${tlsPort}`,
    managementUrl,
    host: '127.0.0.1',
    port: port as number,
    folder,
    async start() {
      // Its own name server, so that it shares nothing with others; the one that is there is kept.
      launch('epmd', ['-port', String(epmdPort), '-address', '127.0.0.1'])
      if (brokers().length === 0) launch(join(programs, 'rabbitmq-server'), [])
      await until(answers, { timeoutMs: START_MS, what: `RabbitMQ at port ${port}` }).catch(async (cause: unknown) => {
        throw new Error(await readFile(join(folder, 'output'), 'utf8'), { cause })
      })
    },
    async kill() {
      for (const pid of brokers()) process.kill(pid, 'SIGKILL')
      await ended()
    },
    async stop() {
      for (const pid of brokers()) process.kill(pid, 'SIGTERM')
      await ended()
    },
    async queuesOnDisk() {
      await server.rabbitmqctl('eval', 'mnesia:sync_log(), [dets:sync(Table) || Table <- dets:all()], ok.')
    },
    async wipe() {
      await server.kill()
      await rm(join(folder, 'data'), { recursive: true, force: true })
      await server.start()
    },
    async rabbitmqctl(...args) {
      return (await run(join(programs, 'rabbitmqctl'), args, { cwd: folder, env })).stdout
    },
    async [Symbol.asyncDispose]() {
      await endRabbitMqServer(folder)
    },
  }
  return server
}

/** A virtual machine that runs RabbitMQ, and not one of its tools. */
function isBroker(pid: number): boolean {
  try {
    const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')
    return /\/beam(\.smp)?$/.test(words[0] ?? '') && words.join(' ').includes('-s rabbit boot')
  } catch {
    return false
  }
}

async function answersAt(url: string): Promise<boolean> {
  const headers = { authorization: `Basic ${btoa('guest:guest')}` }
  const response = await fetch(url, { headers, signal: AbortSignal.timeout(2_000) }).catch(() => undefined)
  return response?.ok ?? false
}

/** Ends whatever runs in `folder` at once, and removes it. */
export async function endRabbitMqServer(folder: string): Promise<void> {
  await until(() => signalProcessesIn(folder, 'SIGKILL') === 0, { what: `the end of every process in ${folder}` })
  await rm(folder, { recursive: true, force: true })
}
