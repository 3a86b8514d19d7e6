import type { Command } from 'commander'
import { messageOf } from '../../runtime/errors.ts'
import { withExamples } from '../command.ts'
import type { CliDeps, Overrides } from '../deps.ts'
import { EXIT } from '../failure.ts'
import { runUntilStopped } from '../run-until-stopped.ts'

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

function start({ load }: CliDeps, overrides: Overrides): Promise<void> {
  return runUntilStopped({
    load: () => load(overrides),
    logLevel: ({ settings }) => settings.logLevel,
    start: (installation, log, signal) => installation.start(log, signal),
    told: ({ url }) => (url === undefined ? 'Longshore works' : `Longshore listens on ${url}`),
    async verdict(error) {
      const { databaseProblem } = await import('../../store/database/database.ts')
      if (databaseProblem(error)?.code !== 'database-unavailable') {
        return { why: messageOf(error), exitCode: EXIT.failed }
      }
      const why = `the database does not let us in: ${messageOf(error)} (is DATABASE_URL right?)`
      return { why, exitCode: EXIT.unreachable }
    },
  })
}
