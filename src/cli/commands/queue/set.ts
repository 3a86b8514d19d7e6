import { type Command, InvalidArgumentError, Option } from 'commander'
import { DISPATCH_ORDERS, SETTLEMENTS } from '../../../task/topology/queue.ts'
import { type Client, openClient, Refusal } from '../../client.ts'
import { type ApiOptions, apiOptions, collect, queryOf, wholeNumber, withExamples } from '../../command.ts'
import type { CliDeps } from '../../deps.ts'
import { EXIT, Failure } from '../../failure.ts'
import { note, print, printJson } from '../../output.ts'
import { type Backoff, description, NAME, pathOf, type Shown } from './view.ts'

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
  maxPriority?: number | 'none'
  window?: number | 'auto'
  settlement?: string
  deadLetter?: 'yes' | 'no'
  order?: string
  reportWithin?: string
}

/** `queue set`: makes a queue, or changes what is named. */
export function setCommand(queue: Command, deps: CliDeps): void {
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
    .addOption(
      numberOr(
        'none',
        '--max-priority <priority>',
        'priorities that RabbitMQ keeps apart, 1 to 9 (a classic queue); or',
        9,
      ),
    )
    .addOption(numberOr('auto', '--window <count>', 'how many tasks RabbitMQ holds at most; or', 1_000_000))
    .addOption(
      new Option('--settlement <kind>', 'outcome: consumers tell the end; confirm: done when RabbitMQ has it').choices([
        ...SETTLEMENTS,
      ]),
    )
    .addOption(new Option('--dead-letter <keep>', 'keep what a foreign consumer rejects').choices(['yes', 'no']))
    .addOption(new Option('--order <order>', 'which of the tasks that are due go first').choices([...DISPATCH_ORDERS]))
    .option('--report-within <duration>', 'send again what no foreign consumer reported of for so long; or none')
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
    ['for a consumer of your own at RabbitMQ', 'longshore queue set orders --window 500 --report-within 10m'],
  )
}

/** The policy with what the options name changed; fields that nobody named are left to the API's defaults. */
function policyOf(options: SetOptions, before: Shown | undefined): object {
  const { maxAttempts } = options
  const backoff = backoffOf(options, before?.retry.backoff)
  const attempts = maxAttempts ?? before?.retry.maxAttempts
  const keep = { succeeded: options.keepSucceeded, cancelled: options.keepCancelled, dead: options.keepDead }
  const retention = { ...before?.retention, ...JSON.parse(JSON.stringify(keep)) }
  return {
    ...brokerPolicyOf(options, before),
    ...((attempts !== undefined || backoff) && {
      retry: { maxAttempts: attempts ?? 10, backoff: backoff ?? { kind: 'exponential', base: '1s', max: '1h' } },
    }),
    ...(Object.keys(retention).length > 0 && { retention }),
  }
}

/** How RabbitMQ keeps the queue, and who settles its tasks. */
function brokerPolicyOf(options: SetOptions, before: Shown | undefined): object {
  const maxPriority = given(options.maxPriority, 'none', before?.maxPriority)
  const named = {
    // With priorities the type is not for choosing; without them any more, the usual one comes back.
    type: options.type ?? (options.maxPriority === undefined ? before?.type : undefined),
    maxPriority,
    window: given(options.window, 'auto', before?.window),
    settlement: options.settlement ?? before?.settlement,
    deadLetter: options.deadLetter === undefined ? before?.deadLetter : options.deadLetter === 'yes',
    order: options.order ?? before?.order,
    reportWithin: given(options.reportWithin, 'none', before?.reportWithin),
  }
  return Object.fromEntries(Object.entries(named).filter(([, value]) => value !== undefined))
}

/** What the option says; `nothing` is the word for the API's default. */
function given<T>(option: T | undefined, nothing: string, before: T | null | undefined): T | undefined {
  if (option === undefined) return before ?? undefined
  return option === nothing ? undefined : option
}

/** An option that takes a whole number from 1 to `max`, or a word for none. */
function numberOr(word: string, flags: string, description: string, max: number): Option {
  return new Option(flags, `${description} ${word}`).argParser((text) => {
    if (text === word) return word
    const value = /^\d{1,12}$/.test(text) ? Number(text) : Number.NaN
    if (value >= 1 && value <= max) return value
    throw new InvalidArgumentError(`It must be a whole number from 1 to ${max}, or ${word}.`)
  })
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
