import { type Command, Option } from 'commander'
import { PURGES } from '../../../task/topology/queue.ts'
import { printAnswer } from '../../answer.ts'
import { openClient } from '../../client.ts'
import { type ApiOptions, apiOptions, queryOf, withExamples } from '../../command.ts'
import type { CliDeps } from '../../deps.ts'
import { EXIT, Failure } from '../../failure.ts'
import { print, printJson } from '../../output.ts'
import { NAME, pathOf, type Shown } from './view.ts'

interface PurgeOptions extends ApiOptions {
  yes?: true
  queued: string
}

export function purgeCommand(queue: Command, deps: CliDeps): void {
  const command = queue
    .command('purge')
    .description(
      'Cancel every task of a queue that no worker has yet; running ones go on, and cancelled ones can be replayed',
    )
    .argument('<name>', NAME)
    .option('--yes', 'do it; without, it only says how many tasks wait')
    .addOption(
      new Option('--queued <end>', 'return: only empty the queue at RabbitMQ, and let its tasks wait in Postgres again')
        .choices([...PURGES])
        .default('cancel'),
    )
    .action(async (name: string, { queued, ...options }: PurgeOptions) => {
      const client = await openClient(deps, options)
      if (!options.yes) {
        const { depth } = await client.call<Shown>('GET', pathOf(name))
        const waiting = queued === 'return' ? 0 : (depth.pending ?? 0) + (depth.retrying ?? 0)
        const what = `${waiting + (depth.queued ?? 0)} tasks of "${name}"`
        const end = queued === 'return' ? 'are at RabbitMQ and would be returned' : 'wait and would be cancelled'
        throw new Failure(`${what} ${end}; --yes does it`, EXIT.usage)
      }
      const body = JSON.stringify({ confirm: name, queued })
      const view = ({ cancelled, returned }: { cancelled: number; returned: number }) =>
        queued === 'return' ? `Returned ${returned} tasks` : `Cancelled ${cancelled} tasks`
      await printAnswer(client, options, ['POST', `${pathOf(name)}/purge`, body], view)
    })
  withExamples(
    apiOptions(command),
    ['cancel what waits', 'longshore queue purge emails --yes'],
    ['empty RabbitMQ, and keep the tasks', 'longshore queue purge emails --queued return --yes'],
  )
}

export function resendCommand(queue: Command, deps: CliDeps): void {
  const command = queue
    .command('resend')
    .description('Send again what RabbitMQ should hold, when somebody took it from there')
    .argument('<name>', NAME)
    .action(async (name: string, options: ApiOptions) => {
      const client = await openClient(deps, options)
      const view = ({ returned }: { returned: number }) => `Sends ${returned} tasks again`
      await printAnswer(client, options, ['POST', `${pathOf(name)}/resend`], view)
    })
  withExamples(apiOptions(command), ['after a purge by other means', 'longshore queue resend emails'])
}

export function deleteCommand(queue: Command, deps: CliDeps): void {
  const command = queue
    .command('delete')
    .description('Delete a queue that has neither consumers nor live tasks, here and at RabbitMQ')
    .argument('<name>', NAME)
    .option('--with-tasks', 'cancel its tasks first; while some still run it fails, and can be called again')
    .option('--with-consumers', 'delete its consumers, too')
    .action(async (name: string, options: ApiOptions & { withTasks?: true; withConsumers?: true }) => {
      const client = await openClient(deps, options)
      const { withTasks, withConsumers } = options
      const confirm = withTasks || withConsumers ? name : undefined
      const guards = { ifEmpty: String(!withTasks), ifUnused: String(!withConsumers) }
      await client.text('DELETE', `${pathOf(name)}${queryOf({ confirm, ...guards })}`)
      if (options.json) return printJson({ deleted: name })
      print(`The queue "${name}" is deleted`)
    })
  withExamples(
    apiOptions(command),
    ['a queue that is not used any more', 'longshore queue delete emails'],
    ['with all that belongs to it', 'longshore queue delete emails --with-tasks --with-consumers'],
  )
}
