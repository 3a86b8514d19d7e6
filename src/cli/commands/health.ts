import type { Command } from 'commander'
import { messageOf } from '../../runtime/errors.ts'
import { urlOf } from '../client.ts'
import { withExamples } from '../command.ts'
import type { CliDeps, Settings } from '../deps.ts'
import { EXIT, Failure } from '../failure.ts'
import { print } from '../output.ts'

/** Longer than the node gives its own checks, so that its answer arrives. */
const PATIENCE_MS = 4_000

/** Adds `health`: what a container engine or a supervisor asks, without curl and without a key. */
export function healthCommand(program: Command, deps: CliDeps): void {
  const command = program
    .command('health')
    .description(
      'ask the node of this configuration (HOST, PORT) whether it is ready: exit code 0 (also degraded), 1 (not ready), 3 (no answer)',
    )
    .action(async () => {
      const { settings } = await deps.load()
      print(await readiness(settings))
    })
  withExamples(command, ['wait for a node in a script', 'until longshore health; do sleep 1; done'])
}

/** `ready`, or `degraded` and by what; throws a Failure that names the failed checks, or that nobody answers. */
async function readiness(settings: Settings): Promise<string> {
  const url = `${urlOf(settings)}/health/ready`
  let answer: { status?: unknown; checks?: { name: string; ok: boolean; detail: string }[] }
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(PATIENCE_MS) })
    answer = (await response.json()) as typeof answer
  } catch (cause) {
    throw new Failure(`Nobody answers at ${url}: ${messageOf(cause)}`, EXIT.unreachable, { cause })
  }
  if (answer.status === 'ready') return 'ready'
  const failed = (answer.checks ?? []).filter((check) => !check.ok).map(({ name, detail }) => `${name}: ${detail}`)
  if (answer.status === 'degraded') return `degraded: ${failed.join('; ')}`
  throw new Failure(`Not ready: ${failed.join('; ') || `${url} is not a Longshore`}`, EXIT.failed)
}
