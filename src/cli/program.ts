import { Command } from 'commander'
import { VERSION_AND_COMMIT } from '../runtime/version.ts'
import { benchCommands } from './bench.ts'
import { withExamples } from './command.ts'
import { completionCommand } from './completion.ts'
import { dbCommands } from './db.ts'
import { demoCommand } from './demo.ts'
import type { CliDeps } from './deps.ts'
import { doctorCommand } from './doctor.ts'
import { handlersCommands } from './handlers.ts'
import { healthCommand } from './health.ts'
import { keysCommands } from './keys.ts'
import { migrateCommands } from './migrate.ts'
import { queueCommands } from './queue.ts'
import { scheduleCommands } from './schedule.ts'
import { startCommand } from './start.ts'
import { taskCommands } from './task.ts'

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
  taskCommands(program, deps)
  queueCommands(program, deps)
  scheduleCommands(program, deps)
  keysCommands(program, deps)
  migrateCommands(program, deps)
  dbCommands(program, deps)
  handlersCommands(program, deps)
  doctorCommand(program, deps)
  healthCommand(program, deps)
  benchCommands(program, deps)
  demoCommand(program, deps)
  completionCommand(program)
  return program
}
