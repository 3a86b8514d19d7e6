import { CommanderError } from 'commander'
import type { CliDeps } from './deps.ts'
import { EXIT, verdictOf } from './failure.ts'
import { createProgram } from './program.ts'

/** Runs one command of the command line and sets the exit code: 0, 1 failed, 2 usage, 3 unreachable. */
export async function run(args: string[], deps: CliDeps): Promise<void> {
  // `longshore task list | head`: the reader has seen enough.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(0)
    throw error
  })
  try {
    await createProgram(deps).parseAsync(args, { from: 'user' })
  } catch (error) {
    if (error instanceof CommanderError) {
      // Help and version that were asked for end in 0; commander has told the rest already.
      process.exitCode = error.exitCode === 0 ? 0 : EXIT.usage
      return
    }
    const { message, exitCode } = verdictOf(error)
    process.stderr.write(`${message}\n`)
    process.exitCode = exitCode
  }
}
