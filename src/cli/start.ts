import type { Command } from 'commander'
import { messageOf } from '../runtime/errors.ts'
import { openLog } from '../runtime/log.ts'
import { withExamples } from './command.ts'
import type { CliDeps, Installation, Overrides } from './deps.ts'
import { EXIT, verdictOf } from './failure.ts'

/** The flags of `start` and the variables that they count before; every other setting has a variable only. */
const FLAGS = {
  host: ['--host <address>', 'the address to listen on', 'HOST'],
  port: ['--port <number>', 'the port to listen on; 0 takes a free one', 'PORT'],
  dataDir: ['--data-dir <folder>', 'the folder for what is kept on disk', 'DATA_DIR'],
  databaseUrl: ['--database-url <url>', 'the Postgres server to use', 'DATABASE_URL'],
  handlersDir: ['--handlers-dir <folder>', 'the folder with your own functions', 'HANDLERS_DIR'],
  roles: ['--roles <roles>', 'what this node does, separated by commas', 'LONGSHORE_ROLES'],
  workerThreads: ['--worker-threads <count>', 'how many threads run targets', 'WORKER_THREADS'],
  logLevel: ['--log-level <level>', 'the least severity that is logged', 'LOG_LEVEL'],
  shutdownTimeout: ['--shutdown-timeout <duration>', 'how long a stop waits for running tasks', 'SHUTDOWN_TIMEOUT'],
  migrate: ['--migrate <on|off>', 'bring the database to its schema at start', 'MIGRATE'],
} as const

export function startCommand(program: Command, deps: CliDeps): void {
  const command = program
    .command('start')
    .description('Start a node: with a Postgres of its own unless DATABASE_URL (or --database-url) names one')
  for (const [flags, description, variable] of Object.values(FLAGS)) {
    command.option(flags, `${description} (${variable})`)
  }
  command.action((options: Partial<Record<keyof typeof FLAGS, string>>) =>
    start(
      deps,
      Object.fromEntries(Object.entries(FLAGS).map(([key, [, , name]]) => [name, options[key as keyof typeof FLAGS]])),
    ),
  )
  withExamples(
    command,
    ['with nothing installed', 'longshore start'],
    ['another port and folder', 'longshore start --port 9000 --data-dir /var/lib/longshore'],
    [
      'one of several nodes on a Postgres',
      'longshore start --database-url postgres://longshore@db.example.com/longshore',
    ],
    ['a node that only works', 'longshore start --roles dispatcher,worker'],
  )
}

/**
 * Starts a node and ends it in order on SIGTERM or SIGINT: also while it starts, when nothing half-done is left. A second
 * signal ends the process at once.
 */
async function start({ load }: CliDeps, overrides: Overrides): Promise<void> {
  const asked = stopSignal()
  let installation: Installation
  try {
    installation = await load(overrides)
  } catch (error) {
    const { message, exitCode } = verdictOf(error)
    process.stderr.write(`${message}\n`)
    process.exit(exitCode)
  }
  const log = await openLog(installation.settings.logLevel)
  process.on('unhandledRejection', (error) => {
    log.fatal(
      { event: 'unhandled-rejection', error: messageOf(error) },
      'A bug: the process ends, its work is sent again',
    )
    process.exit(EXIT.failed)
  })
  try {
    const node = await installation.start(log, asked.signal)
    log.info({ event: 'listening', url: node.url }, node.url ? `Longshore listens on ${node.url}` : 'Longshore works')
    log.info({ event: 'stopping', signal: await asked.name }, 'Ends the work in hand')
    await node.stop()
    log.info({ event: 'stopped' })
    process.exit(0)
  } catch (error) {
    if (asked.signal.aborted) {
      log.info({ event: 'stopped', signal: await asked.name, reason: messageOf(error) }, 'Stopped while it started')
      process.exit(0)
    }
    const { databaseProblem } = await import('../store/database.ts')
    const away = databaseProblem(error)?.code === 'database-unavailable'
    const why = away
      ? `the database does not let us in: ${messageOf(error)} (is DATABASE_URL right?)`
      : messageOf(error)
    log.fatal({ event: 'start-failed', error: messageOf(error) }, `Cannot start: ${why}`)
    process.exit(away ? EXIT.unreachable : EXIT.failed)
  }
}

/** The first signal to stop, as its name and as an abort; the second one ends the process. */
function stopSignal(): { name: Promise<string>; signal: AbortSignal } {
  const controller = new AbortController()
  const name = new Promise<string>((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) {
      process.on(signal, () => {
        if (controller.signal.aborted) process.exit(EXIT.failed)
        resolve(signal)
        controller.abort()
      })
    }
  })
  return { name, signal: controller.signal }
}
