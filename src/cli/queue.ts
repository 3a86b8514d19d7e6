import { type Command, Option } from 'commander'
import type { Queue } from '../store/queues.ts'
import { allItems, type Client, openClient, Refusal } from './client.ts'
import { type ApiOptions, apiOptions, collect, queryOf, wholeNumber, withExamples } from './command.ts'
import type { CliDeps } from './deps.ts'
import { EXIT, Failure } from './failure.ts'
import { facts, note, oneLine, paint, paintStatus, print, printJson, shortDuration, table } from './output.ts'

type Shown = Queue & { depth: Record<string, number>; oldestWaitingMs: number | null; rate: number }
type Backoff = Queue['retry']['backoff']

const NAME = 'the name of a queue'

export function queueCommands(program: Command, deps: CliDeps): void {
  const queue = withExamples(
    program.command('queue').description('List, change, pause and purge queues'),
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
      const text = await client.text('GET', pathOf(name))
      if (options.json) return printJson(text)
      print(description(JSON.parse(text) as Shown))
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
        const text = await client.text('POST', `${pathOf(name)}/${action}`)
        if (options.json) return printJson(text)
        print(`The queue "${name}" ${action === 'pause' ? 'is paused' : 'goes on'}`)
      })
    withExamples(apiOptions(command), [`${action} a queue on every node`, `longshore queue ${action} emails`])
  }

  const purge = queue
    .command('purge')
    .description('Cancel every task of a queue that waits; running ones go on, and cancelled ones can be replayed')
    .argument('<name>', NAME)
    .option('--yes', 'do it; without, it only says how many tasks wait')
    .action(async (name: string, options: ApiOptions & { yes?: true }) => {
      const client = await openClient(deps, options)
      if (!options.yes) {
        const { depth } = await client.call<Shown>('GET', pathOf(name))
        const waiting = (depth.pending ?? 0) + (depth.queued ?? 0) + (depth.retrying ?? 0)
        throw new Failure(`${waiting} tasks of "${name}" wait and would be cancelled; --yes does it`, EXIT.usage)
      }
      const { cancelled } = await client.call<{ cancelled: number }>('POST', `${pathOf(name)}/purge`, { confirm: name })
      if (options.json) return printJson({ cancelled })
      print(`Cancelled ${cancelled} tasks`)
    })
  withExamples(apiOptions(purge), ['cancel what waits', 'longshore queue purge emails --yes'])
}

interface SetOptions extends ApiOptions {
  maxAttempts?: number
  backoff?: Backoff['kind']
  base?: string
  factor?: string
  max?: string
  jitter?: string
  delays?: string[]
  keepSucceeded?: string
  keepCancelled?: string
  keepDead?: string
  type?: string
}

function setCommand(queue: Command, deps: CliDeps): void {
  const command = queue
    .command('set')
    .description('Make a queue, or change the policies that are named; the others stay')
    .argument('<name>', NAME)
    .addOption(wholeNumber('--max-attempts <count>', 'failures after which a task is dead', 1, 1_000))
    .addOption(
      new Option('--backoff <kind>', 'how the waits between attempts grow').choices([
        ...['exponential', 'linear', 'fixed', 'delays'],
      ]),
    )
    .option('--base <duration>', 'the first wait, such as 1s')
    .option('--factor <number>', 'exponential: each wait is that many times the one before')
    .option('--max <duration>', 'the longest wait')
    .option('--jitter <share>', 'the share of a wait that is random, 0 to 1')
    .option('--delays <durations>', 'delays: the waits themselves, separated by commas', collect)
    .option('--keep-succeeded <duration>', 'how long tasks that succeeded are kept, such as 7d')
    .option('--keep-cancelled <duration>', 'how long cancelled ones are kept')
    .option('--keep-dead <duration>', 'how long dead letters are kept')
    .addOption(new Option('--type <type>', 'how RabbitMQ keeps it').choices(['quorum', 'classic']))
    .action(async (name: string, options: SetOptions) => {
      const client = await openClient(deps, options)
      const before = await existing(client, name)
      const text = await client.text('PUT', pathOf(name), JSON.stringify(policyOf(options, before)))
      if (options.json) return printJson(text)
      print(description(JSON.parse(text) as Shown))
      if (!before && (await hasNoConsumer(client, name))) {
        note(`Nothing consumes "${name}" yet: make a consumer with POST /api/v1/consumers`)
      }
    })
  withExamples(
    apiOptions(command),
    ['five attempts, half a minute apart', 'longshore queue set emails --max-attempts 5 --backoff fixed --base 30s'],
    ['keep dead letters for a year', 'longshore queue set emails --keep-dead 365d'],
  )
}

/** The policy with what the options name changed; fields that nobody named are left to the API's defaults. */
function policyOf(options: SetOptions, before: Shown | undefined): object {
  const { maxAttempts, type } = options
  const backoff = backoffOf(options, before?.retry.backoff)
  const attempts = maxAttempts ?? before?.retry.maxAttempts
  const keep = { succeeded: options.keepSucceeded, cancelled: options.keepCancelled, dead: options.keepDead }
  const retention = { ...before?.retention, ...JSON.parse(JSON.stringify(keep)) }
  const kind = type ?? before?.type
  return {
    ...(kind && { type: kind }),
    ...((attempts !== undefined || backoff) && {
      retry: { maxAttempts: attempts ?? 10, backoff: backoff ?? { kind: 'exponential', base: '1s', max: '1h' } },
    }),
    ...(Object.keys(retention).length > 0 && { retention }),
  }
}

function backoffOf(options: SetOptions, before: Backoff | undefined): object | undefined {
  const { backoff, base, max, delays } = options
  const given = {
    base,
    max,
    delays,
    factor: numberOf('--factor', options.factor),
    jitter: numberOf('--jitter', options.jitter),
  }
  const named = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))
  if (backoff === undefined && Object.keys(named).length === 0) return before
  // Of another kind the old waits mean nothing.
  if (backoff !== undefined && backoff !== before?.kind) {
    return { kind: backoff, ...(backoff !== 'delays' && base === undefined && { base: '1s' }), ...named }
  }
  return { ...(before ?? { kind: 'exponential', base: '1s' }), ...named }
}

function numberOf(flag: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  const value = Number(text)
  if (text.trim() !== '' && Number.isFinite(value)) return value
  throw new Failure(`${flag} must be a number, not ${text}`, EXIT.usage)
}

async function existing(client: Client, name: string): Promise<Shown | undefined> {
  try {
    return await client.call<Shown>('GET', pathOf(name))
  } catch (error) {
    if (error instanceof Refusal && error.status === 404) return undefined
    throw error
  }
}

async function hasNoConsumer(client: Client, queue: string): Promise<boolean> {
  const { items } = await client.call<{ items: unknown[] }>('GET', `/consumers${queryOf({ queue, limit: 1 })}`)
  return items.length === 0
}

export function allQueues(client: Client): Promise<Shown[]> {
  return allItems(client, '/queues')
}

/** Queues with their figures. */
export function queueTable(queues: readonly Shown[]): string {
  const depth = (head: string, status: string) => ({
    head,
    cell: (queue: Shown) => queue.depth[status] ?? 0,
    right: true as const,
  })
  return table<Shown>(
    [
      { head: 'QUEUE', cell: ({ name }) => oneLine(name, 40) },
      depth('PENDING', 'pending'),
      depth('QUEUED', 'queued'),
      depth('RUNNING', 'running'),
      depth('RETRYING', 'retrying'),
      { head: 'DEAD', cell: ({ depth }) => (depth.dead ? paint('red', String(depth.dead)) : '0'), right: true },
      { head: 'PER SECOND', cell: ({ rate }) => rate.toFixed(1), right: true },
      {
        head: 'OLDEST',
        cell: ({ oldestWaitingMs }) => (oldestWaitingMs === null ? '-' : shortDuration(oldestWaitingMs)),
        right: true,
      },
      { head: '', cell: ({ paused }) => (paused ? paintStatus('paused') : '') },
    ],
    queues,
  )
}

function description(queue: Shown): string {
  const { name, type, paused, retry, retention, depth } = queue
  return facts([
    ['queue', name],
    ['state', paused ? paintStatus('paused') : 'open'],
    ['type', type],
    ['attempts', String(retry.maxAttempts)],
    ['backoff', `${retry.backoff.kind}: ${wordsOf(withoutKind(retry.backoff))}`],
    ['kept', wordsOf(retention)],
    ['tasks', wordsOf(depth)],
  ])
}

function withoutKind({ kind: _, ...waits }: Backoff): object {
  return waits
}

function wordsOf(values: object): string {
  return Object.entries(values)
    .map(([name, value]) => `${name} ${Array.isArray(value) ? value.join(' ') : value}`)
    .join(', ')
}

function pathOf(name: string): string {
  return `/queues/${encodeURIComponent(name)}`
}
