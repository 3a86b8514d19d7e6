import { Command } from 'commander'
import { VERSION_AND_COMMIT } from '../runtime/version.ts'
import { withExamples } from './command.ts'
import { benchCommands } from './commands/bench.ts'
import { completionCommand } from './commands/completion.ts'
import { dbCommands } from './commands/db.ts'
import { demoCommand } from './commands/demo.ts'
import { doctorCommand } from './commands/doctor.ts'
import { exchangeCommands } from './commands/exchange.ts'
import { filesCommands } from './commands/files.ts'
import { handlersCommands } from './commands/handlers.ts'
import { healthCommand } from './commands/health.ts'
import { keysCommands } from './commands/keys.ts'
import { migrateCommands } from './commands/migrate.ts'
import { queueCommands } from './commands/queue.ts'
import { scheduleCommands } from './commands/schedule.ts'
import { secretsCommands } from './commands/secrets.ts'
import { sourceCommands } from './commands/source.ts'
import { startCommand } from './commands/start.ts'
import { taskCommands } from './commands/task.ts'
import { transferCommands } from './commands/transfer.ts'
import { workerCommand } from './commands/worker.ts'
import type { CliDeps } from './deps.ts'

const AFTER = `
Settings come from flags, then the environment, then .env; .env.example lists them all.
Exit codes: 0 done, 1 failed, 2 the command line or the configuration is wrong, 3 nobody answers.
`

/** Every command with its options, help and action; each loads what it needs when it runs. */
export function createProgram(deps: CliDeps): Command {
  const program = new Command('longshore')
    .description('Self-hosted service for work that must not get lost')
    .version(VERSION_AND_COMMIT, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print help')
    .helpCommand('help [command]', 'print help for a command')
    .showHelpAfterError('(--help says more)')
    .exitOverride()
  withExamples(
    program,
    ['start a node with nothing installed', 'longshore start'],
    [
      'submit a task and wait for its end',
      `longshore task submit --http https://api.example.com/hook --payload '{"n":1}' --wait`,
    ],
    ['find out what is wrong', 'longshore doctor'],
    ['see it at work', 'longshore demo --seconds 20'],
  ).addHelpText('after', AFTER)

  startCommand(program, deps)
  workerCommand(program, deps)
  taskCommands(program, deps)
  queueCommands(program, deps)
  exchangeCommands(program, deps)
  scheduleCommands(program, deps)
  sourceCommands(program, deps)
  filesCommands(program, deps)
  keysCommands(program, deps)
  secretsCommands(program, deps)
  migrateCommands(program, deps)
  transferCommands(program, deps)
  dbCommands(program, deps)
  handlersCommands(program, deps)
  doctorCommand(program, deps)
  healthCommand(program, deps)
  benchCommands(program, deps)
  demoCommand(program, deps)
  completionCommand(program)
  return program
}
