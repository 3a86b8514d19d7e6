import { randomBytes } from 'node:crypto'
import type { Command } from 'commander'
import { pause, realClock } from '../../runtime/clock.ts'
import { type Client, openClient } from '../client.ts'
import { type ApiOptions, apiOptions, queryOf, wholeNumber, withExamples } from '../command.ts'
import type { CliDeps } from '../deps.ts'
import { Failure } from '../failure.ts'
import { facts, note, print, printJson, progressBar, shortDuration } from '../output.ts'

interface BenchOptions extends ApiOptions {
  count: number
  callers: number
  batch: number
  concurrency: number
}

export function benchCommands(program: Command, deps: CliDeps): void {
  const bench = withExamples(program.command('bench').description('Measure this installation, over HTTP'), [
    'how fast is it here?',
    'longshore bench submit --count 20000 --batch 1000',
  ])
  const submit = bench
    .command('submit')
    .description('Submit a burst of tasks that do nothing to a queue of its own, wait for their end, remove them')
    .addOption(wholeNumber('-n, --count <count>', 'how many tasks', 1, 1_000_000).default(1_000))
    .addOption(wholeNumber('--callers <count>', 'how many requests at once', 1, 500).default(50))
    .addOption(wholeNumber('--batch <count>', 'tasks a request; 1 submits one by one', 1, 10_000).default(1))
    .addOption(wholeNumber('--concurrency <count>', 'how many run at once on each node', 1, 10_000).default(50))
    .action(async (options: BenchOptions) => {
      const client = await openClient(deps, options)
      const { submitMs, drainMs } = await measure(client, options)
      const rate = (ms: number) => Math.round(options.count / (ms / 1_000))
      const result = {
        ...{ count: options.count, callers: options.callers, batch: options.batch, concurrency: options.concurrency },
        ...{ submitSeconds: submitMs / 1_000, submittedPerSecond: rate(submitMs) },
        ...{ finishedSeconds: drainMs / 1_000, finishedPerSecond: rate(drainMs) },
      }
      if (options.json) return printJson(result)
      print(
        facts([
          [
            'tasks',
            `${options.count}, ${options.batch === 1 ? 'one by one' : `${options.batch} a request`}, ${options.callers} callers`,
          ],
          ['submitted', `${result.submittedPerSecond}/s, in ${shortDuration(submitMs)}`],
          ['finished', `${result.finishedPerSecond}/s, ${shortDuration(drainMs)} after the first submit`],
        ]),
      )
    })
  withExamples(
    apiOptions(submit),
    ['a thousand single submits', 'longshore bench submit --count 1000'],
    ['in bulk', 'longshore bench submit --count 50000 --batch 1000 --callers 4'],
  )
}

/** Times from the first submit: until all were accepted, and until all were final. */
async function measure(client: Client, options: BenchOptions): Promise<{ submitMs: number; drainMs: number }> {
  const queue = `bench-${randomBytes(4).toString('hex')}`
  const stop = new AbortController()
  const onSignal = () => stop.abort(new Failure('Stopped'))
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, onSignal)
  const consumer = await prepare(client, queue, options.concurrency)
  try {
    const startedAt = realClock.now()
    await submitAll(client, queue, options, stop.signal)
    const submitMs = realClock.now() - startedAt
    await untilDone(client, queue, stop.signal)
    return { submitMs, drainMs: realClock.now() - startedAt }
  } finally {
    await cleanUp(client, queue, consumer)
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.removeListener(signal, onSignal)
  }
}

async function prepare(client: Client, queue: string, concurrency: number): Promise<string> {
  await client.call('PUT', `/queues/${queue}`, { retention: { succeeded: '1h', cancelled: '1h', dead: '1h' } })
  const { id } = await client.call<{ id: string }>('POST', '/consumers', {
    queue,
    target: { type: 'noop' },
    concurrency,
  })
  return id
}

async function submitAll(client: Client, queue: string, options: BenchOptions, signal: AbortSignal): Promise<void> {
  const { count, callers, batch } = options
  const bar = progressBar(count)
  let next = 0
  let done = 0
  const call = async () => {
    while (next < count && !signal.aborted) {
      const size = Math.min(batch, count - next)
      const from = next
      next += size
      const tasks = Array.from({ length: size }, (_, i) => ({ queue, payload: { n: from + i } }))
      if (batch === 1) await client.call('POST', '/tasks', tasks[0])
      else await client.call('POST', '/tasks/batch', tasks)
      done += size
      bar.at(done, `${done} submitted`)
    }
  }
  try {
    await Promise.all(Array.from({ length: Math.min(callers, Math.ceil(count / batch)) }, call))
    signal.throwIfAborted()
  } finally {
    bar.end()
  }
}

const LOOK_MS = 50

async function untilDone(client: Client, queue: string, signal: AbortSignal): Promise<void> {
  const query = queryOf({ queue, status: 'pending,queued,running,retrying', limit: 1 })
  for (;;) {
    signal.throwIfAborted()
    const { items } = await client.call<{ items: unknown[] }>('GET', `/tasks${query}`)
    if (items.length === 0) return
    await pause(realClock, LOOK_MS, signal)
  }
}

/** Leaves nothing behind; what cannot be removed is named. */
async function cleanUp(client: Client, queue: string, consumer: string): Promise<void> {
  try {
    await client.call('POST', `/queues/${queue}/purge`, { confirm: queue })
    await untilDone(client, queue, AbortSignal.timeout(30_000))
    for (let after: string | null = ''; after !== null; ) {
      const answer: { next: string | null } = await client.call('POST', '/tasks/actions', {
        action: 'discard',
        filter: { queue },
        ...(after !== '' && { after }),
      })
      after = answer.next
    }
    await client.call('DELETE', `/consumers/${consumer}`)
    await client.call('DELETE', `/queues/${queue}`)
  } catch (error) {
    note(`The queue "${queue}" could not be removed: ${(error as Error).message}`)
  }
}
