import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Command } from 'commander'
import { pause, realClock } from '../../runtime/clock.ts'
import { messageOf } from '../../runtime/errors.ts'
import { createLog } from '../../runtime/log.ts'
import { type Client, clientFor } from '../client.ts'
import { jsonOption, wholeNumber, withExamples } from '../command.ts'
import type { CliDeps, Overrides } from '../deps.ts'
import { Failure } from '../failure.ts'
import { paint, print, printJson } from '../output.ts'
import { prepareDemo, REPORT_HANDLER, startUnsteadyApi, submitTraffic } from './demo/traffic.ts'
import { allQueues, queueTable } from './queue/view.ts'
import type { Task } from './task/watch.ts'
import { taskTable } from './task.ts'

export function demoCommand(program: Command, deps: CliDeps): void {
  const command = program
    .command('demo')
    .description('Watch a node at work in a temporary folder: traffic, failures, retries, schedules; Ctrl-C ends it')
    .addOption(wholeNumber('-s, --seconds <count>', 'end by itself after so many seconds', 1, 86_400))
    .action((options: { seconds?: number; json?: true }) => demo(deps, options))
  withExamples(
    jsonOption(command),
    ['until Ctrl-C', 'longshore demo'],
    ['for twenty seconds', 'longshore demo --seconds 20'],
  )
}

/** Nothing of the user's own installation may be touched: settings that name it count as not given. */
function settingsIn(folder: string): Overrides {
  return {
    ...{
      DATABASE_URL: '',
      AMQP_URL: '',
      LONGSHORE_ADMIN_KEY: '',
      LONGSHORE_ROLES: '',
      LONGSHORE_URL: '',
      LONGSHORE_KEY: '',
    },
    ...{ DATA_DIR: join(folder, 'data'), HANDLERS_DIR: join(folder, 'handlers') },
    ...{ HOST: '127.0.0.1', PORT: '0', MIGRATE: 'on', SHUTDOWN_TIMEOUT: '3s', TARGET_ALLOW: '127.0.0.1' },
  }
}

interface Accounts {
  accepted: number
  succeeded: number
  dead: number
  live: number
  unaccounted: number
}

async function demo(deps: CliDeps, { seconds, json }: { seconds?: number; json?: true }): Promise<void> {
  const stop = new AbortController()
  const onSignal = () => {
    if (stop.signal.aborted) process.exit(1)
    stop.abort()
  }
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, onSignal)
  const folder = await mkdtemp(join(tmpdir(), 'longshore-demo-'))
  let cancelTimer = () => {}
  const onRunning = () => {
    if (seconds !== undefined) cancelTimer = realClock.after(seconds * 1_000, () => stop.abort())
  }
  const api = await startUnsteadyApi()
  try {
    // As root the database runs as another user, who must pass.
    await chmod(folder, 0o711)
    await mkdir(join(folder, 'handlers'))
    await writeFile(join(folder, 'handlers', 'report.mjs'), REPORT_HANDLER)
    const accounts = await runNode(deps, folder, api.url, stop, onRunning, json)
    if (!accounts) return
    if (json) printJson(accounts)
    else print(closing(accounts))
    if (accounts.unaccounted !== 0) throw new Failure(`${accounts.unaccounted} tasks are unaccounted for: a bug`)
  } finally {
    cancelTimer()
    await api.close()
    await rm(folder, { recursive: true, force: true })
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.removeListener(signal, onSignal)
  }
}

/** Runs the node and its traffic until `stop`; gives the accounts at the end, undefined when it was stopped before it ran. */
async function runNode(
  deps: CliDeps,
  folder: string,
  apiUrl: string,
  stop: AbortController,
  onRunning: () => void,
  json: true | undefined,
): Promise<Accounts | undefined> {
  const installation = await deps.load(settingsIn(folder))
  if (!json) print(`Starts a node in ${folder} ...`)
  let node: Awaited<ReturnType<typeof installation.start>>
  try {
    node = await installation.start(createLog('silent'), stop.signal)
  } catch (error) {
    if (stop.signal.aborted) return undefined
    throw error
  }
  try {
    const url = node.url ?? ''
    const key = (await readFile(join(folder, 'data', 'admin.key'), 'utf8')).trim()
    const client = clientFor(url, key)
    if (!json) print(`It listens on ${url}; its documentation is at ${url}/docs, its key is ${key}`)
    await prepareDemo(client, apiUrl)
    onRunning()
    let failure: unknown
    const failed = (error: unknown) => {
      failure ??= error
      stop.abort()
    }
    await Promise.all([
      submitTraffic(client, stop.signal).catch(failed),
      (json ? Promise.resolve() : show(client, stop.signal)).catch(failed),
    ])
    if (failure) throw new Failure(`The demo broke off: ${messageOf(failure)}`)
    return await client.call<Accounts>('GET', '/accounting')
  } finally {
    if (!json) print('Ends the work in hand ...')
    await node.stop()
  }
}

const LIVE_MS = 500
const PLAIN_MS = 2_000

/** The queues (their figures are up to five seconds old) and the tasks of this moment; on a terminal it renews itself. */
async function show(client: Client, signal: AbortSignal): Promise<void> {
  const { stdout } = process
  let lines = 0
  while (!signal.aborted) {
    const queues = (await allQueues(client)).filter(({ name }) => name !== 'default')
    const latest = await client.call<{ items: Task[] }>('GET', '/tasks?limit=6')
    const failing = await client.call<{ items: Task[] }>('GET', '/tasks?status=retrying,dead&limit=6')
    const parts = [
      queueTable(queues),
      'The latest tasks',
      taskTable(latest.items),
      'Failing tasks',
      taskTable(failing.items),
    ]
    const text = parts.join('\n\n')
    if (stdout.isTTY && lines > 0) stdout.write(`\u001b[${lines}A\u001b[0J`)
    print(`\n${text}`)
    lines = text.split('\n').length + 1
    await pause(realClock, stdout.isTTY ? LIVE_MS : PLAIN_MS, signal)
  }
}

function closing({ accepted, succeeded, dead, live, unaccounted }: Accounts): string {
  return paint(
    'bold',
    `${accepted} tasks accepted, ${succeeded} succeeded, ${dead} dead letters, ${live} live, ${unaccounted} unaccounted for`,
  )
}
