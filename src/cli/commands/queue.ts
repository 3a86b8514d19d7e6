import type { Command } from 'commander'
import { printAnswer } from '../answer.ts'
import { openClient } from '../client.ts'
import { type ApiOptions, apiOptions, withExamples } from '../command.ts'
import type { CliDeps } from '../deps.ts'
import { print, printJson } from '../output.ts'
import { setCommand } from './queue/set.ts'
import { deleteCommand, purgeCommand, resendCommand } from './queue/upkeep.ts'
import { allQueues, description, NAME, pathOf, queueTable } from './queue/view.ts'

export function queueCommands(program: Command, deps: CliDeps): void {
  const queue = withExamples(
    program.command('queue').description('List, change, pause, purge and delete queues'),
    ['what waits where', 'longshore queue list'],
    ['stop a queue for a while', 'longshore queue pause emails'],
  )
  const list = queue
    .command('list')
    .description('List queues with what waits in them')
    .action(async (options: ApiOptions) => {
      const client = await openClient(deps, options)
      const queues = await allQueues(client)
      if (options.json) return printJson({ items: queues, next: null })
      print(queueTable(queues))
    })
  withExamples(apiOptions(list), ['what waits where', 'longshore queue list'])

  const get = queue
    .command('get')
    .description('Show a queue with its policies')
    .argument('<name>', NAME)
    .action(async (name: string, options: ApiOptions) => {
      const client = await openClient(deps, options)
      await printAnswer(client, options, ['GET', pathOf(name)], description)
    })
  withExamples(apiOptions(get), ['its retries and retention', 'longshore queue get emails'])

  setCommand(queue, deps)
  for (const action of ['pause', 'resume'] as const) {
    const command = queue
      .command(action)
      .description(action === 'pause' ? 'Start no task of a queue any more; running ones end' : 'Start its tasks again')
      .argument('<name>', NAME)
      .action(async (name: string, options: ApiOptions) => {
        const client = await openClient(deps, options)
        const done = action === 'pause' ? 'is paused' : 'goes on'
        const view = () => `The queue "${name}" ${done}`
        await printAnswer(client, options, ['POST', `${pathOf(name)}/${action}`], view)
      })
    withExamples(apiOptions(command), [`${action} a queue on every node`, `longshore queue ${action} emails`])
  }

  purgeCommand(queue, deps)
  resendCommand(queue, deps)
  deleteCommand(queue, deps)
}
