import type { Command } from 'commander'
import { withExamples } from '../command.ts'
import type { CliDeps, Overrides, Settings } from '../deps.ts'
import { EXIT, Failure } from '../failure.ts'
import { runUntilStopped } from '../run-until-stopped.ts'

/** The flags of `worker` and the variables that they count before. The key is no flag: others could read it. */
const FLAGS = {
  server: ['--server <url>', 'where the server’s API is', 'LONGSHORE_URL'],
  amqpUrl: ['--amqp-url <url>', 'the RabbitMQ of the server', 'AMQP_URL'],
  queues: ['--queues <names>', 'take tasks of these queues only, separated by commas', 'WORKER_QUEUES'],
  handlersDir: ['--handlers-dir <folder>', 'the folder with your own functions', 'HANDLERS_DIR'],
  workerThreads: ['--worker-threads <count>', 'how many threads run targets', 'WORKER_THREADS'],
  port: ['--port <number>', 'tell its health on this port; without it nowhere', 'PORT'],
  host: ['--host <address>', 'the address for that', 'HOST'],
  logLevel: ['--log-level <level>', 'the least severity that is logged', 'LOG_LEVEL'],
  shutdownTimeout: ['--shutdown-timeout <duration>', 'how long a stop waits for running tasks', 'SHUTDOWN_TIMEOUT'],
} as const

export function workerCommand(program: Command, deps: CliDeps): void {
  const command = program
    .command('worker')
    .description(
      'Start a worker without a database: it takes tasks from RabbitMQ and tells the server over HTTP how they ended. LONGSHORE_KEY is a key with the scope work.',
    )
  for (const [flags, description, variable] of Object.values(FLAGS)) {
    command.option(flags, `${description} (${variable})`)
  }
  command.action((options: Partial<Record<keyof typeof FLAGS, string>>) =>
    work(
      deps,
      Object.fromEntries(Object.entries(FLAGS).map(([key, [, , name]]) => [name, options[key as keyof typeof FLAGS]])),
    ),
  )
  withExamples(
    command,
    ['make a key for it, where the server runs', 'longshore keys create "worker" --scope work'],
    ['beside a server', 'longshore worker --server https://longshore.example.com'],
    ['for some queues only', 'longshore worker --server https://longshore.example.com --queues emails,reports'],
    ['with its health on a port, for a supervisor', 'longshore worker --port 8081'],
  )
}

function work({ load }: CliDeps, overrides: Overrides): Promise<void> {
  return runUntilStopped({
    load: async () => {
      const installation = await load(overrides)
      return { installation, place: placeOf(installation.settings) }
    },
    logLevel: ({ installation }) => installation.settings.logLevel,
    start: ({ installation, place }, log, signal) => installation.startWorker(place, log, signal),
    told: ({ url }, { place }) =>
      `The worker works for ${place.url}${url === undefined ? '' : `; its health is at ${url}`}`,
  })
}

/** Where the server is, and the key; a Failure names everything that is missing. */
function placeOf({ apiUrl, apiKey, amqpUrl }: Settings): { url: string; key: string } {
  const missing = [
    ...(apiUrl === undefined ? ['Say where the server is: --server, or LONGSHORE_URL'] : []),
    ...(apiKey === undefined ? ['Set LONGSHORE_KEY to a key with the scope "work"'] : []),
    ...(amqpUrl === undefined ? ['Say where the server’s RabbitMQ is: --amqp-url, or AMQP_URL'] : []),
  ]
  if (apiUrl === undefined || apiKey === undefined || amqpUrl === undefined) {
    throw new Failure(`The worker cannot start:\n${missing.map((line) => `- ${line}`).join('\n')}`, EXIT.usage)
  }
  return { url: apiUrl, key: apiKey.reveal() }
}
