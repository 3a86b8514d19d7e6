import { type Command, Option } from 'commander'
import { EXCHANGE_TYPES } from '../../task/topology/topology.ts'
import { printAnswer } from '../answer.ts'
import { allItems, openClient } from '../client.ts'
import { type ApiOptions, apiOptions, queryOf, withExamples } from '../command.ts'
import type { CliDeps } from '../deps.ts'
import { facts, oneLine, paint, print, printJson, table } from '../output.ts'

/** An exchange as the API shows it. */
interface Shown {
  name: string
  type: string
  state: 'ready' | 'conflict'
  conflict: string | null
  bindings: { queue: string; routingKey: string }[]
}

const NAME = 'the name of an exchange'

export function exchangeCommands(program: Command, deps: CliDeps): void {
  const exchange = withExamples(
    program.command('exchange').description('List, make, bind and delete exchanges'),
    ['which queues get what', 'longshore exchange list'],
    ['give every order to two queues', 'longshore exchange set orders --type fanout'],
  )
  const list = exchange
    .command('list')
    .description('List exchanges with the queues that are bound to them')
    .action(async (options: ApiOptions) => {
      const client = await openClient(deps, options)
      const exchanges = await allItems<Shown>(client, '/exchanges')
      if (options.json) return printJson({ items: exchanges, next: null })
      print(exchangeTable(exchanges))
    })
  withExamples(apiOptions(list), ['which queues get what', 'longshore exchange list'])

  const get = exchange
    .command('get')
    .description('Show an exchange with its bindings')
    .argument('<name>', NAME)
    .action(async (name: string, options: ApiOptions) => {
      const client = await openClient(deps, options)
      await printAnswer(client, options, ['GET', pathOf(name)], description)
    })
  withExamples(apiOptions(get), ['its bindings', 'longshore exchange get orders'])

  const set = exchange
    .command('set')
    .description('Make an exchange; the type of one that exists cannot be changed')
    .argument('<name>', NAME)
    .addOption(
      new Option('--type <type>', 'how it chooses among its bindings')
        .choices([...EXCHANGE_TYPES])
        .makeOptionMandatory(),
    )
    .action(async (name: string, { type, ...options }: ApiOptions & { type: string }) => {
      const client = await openClient(deps, options)
      await printAnswer(client, options, ['PUT', pathOf(name), JSON.stringify({ type })], description)
    })
  withExamples(apiOptions(set), ['choose by patterns of the routing key', 'longshore exchange set orders --type topic'])

  deleteCommand(exchange, deps)
  for (const action of ['bind', 'unbind'] as const) bindingCommand(exchange, deps, action)
}

function deleteCommand(exchange: Command, deps: CliDeps): void {
  const command = exchange
    .command('delete')
    .description('Delete an exchange that has no bindings, here and at RabbitMQ; queues stay')
    .argument('<name>', NAME)
    .option('--with-bindings', 'take its bindings away, too')
    .action(async (name: string, options: ApiOptions & { withBindings?: true }) => {
      const client = await openClient(deps, options)
      const confirm = options.withBindings ? name : undefined
      await client.text('DELETE', `${pathOf(name)}${queryOf({ confirm })}`)
      if (options.json) return printJson({ deleted: name })
      print(`The exchange "${name}" is deleted`)
    })
  withExamples(apiOptions(command), ['with its bindings', 'longshore exchange delete orders --with-bindings'])
}

const BINDING = {
  bind: {
    method: 'PUT',
    description: 'Give a queue what is published to an exchange with a routing key that fits',
    done: 'gets what is published to',
    example: ['all new orders in Europe', 'longshore exchange bind orders emails --key orders.eu.new'],
  },
  unbind: {
    method: 'DELETE',
    description: 'Take a binding away; what the queue has stays',
    done: 'gets nothing more by this binding from',
    example: ['no longer', 'longshore exchange unbind orders emails --key orders.eu.new'],
  },
} as const

function bindingCommand(exchange: Command, deps: CliDeps, action: keyof typeof BINDING): void {
  const { method, description, done, example } = BINDING[action]
  const command = exchange
    .command(action)
    .description(description)
    .argument('<exchange>', NAME)
    .argument('<queue>', 'the name of a queue')
    .option(
      '--key <key>',
      'the routing key; of a topic exchange a pattern, with * for one word and # for any number',
      '',
    )
    .action(async (name: string, queue: string, { key, ...options }: ApiOptions & { key: string }) => {
      const client = await openClient(deps, options)
      const binding = { queue, routingKey: key }
      await client.text(method, `${pathOf(name)}/bindings`, JSON.stringify(binding))
      if (options.json) return printJson(binding)
      print(`The queue "${queue}" ${done} "${name}"${key === '' ? '' : ` with "${key}"`}`)
    })
  withExamples(apiOptions(command), example)
}

function exchangeTable(exchanges: readonly Shown[]): string {
  return table<Shown>(
    [
      { head: 'EXCHANGE', cell: ({ name }) => oneLine(name, 40) },
      { head: 'TYPE', cell: ({ type }) => type },
      { head: '', cell: ({ state }) => (state === 'conflict' ? paint('red', 'conflict') : '') },
      { head: 'QUEUES', cell: ({ bindings }) => oneLine(bindings.map(wordsOf).join(', '), 200) },
    ],
    exchanges,
  )
}

function description({ name, type, conflict, bindings }: Shown): string {
  return facts([
    ['exchange', name],
    ['type', type],
    ['conflict', conflict === null ? undefined : paint('red', oneLine(conflict, 400))],
    ['bindings', bindings.length === 0 ? 'none' : bindings.map(wordsOf).join(', ')],
  ])
}

function wordsOf({ queue, routingKey }: Shown['bindings'][number]): string {
  return routingKey === '' ? queue : `${queue} (${routingKey})`
}

function pathOf(name: string): string {
  return `/exchanges/${encodeURIComponent(name)}`
}
