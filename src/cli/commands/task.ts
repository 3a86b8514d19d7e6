import type { Command } from 'commander'
import { STATUSES } from '../../task/status.ts'
import { printAnswer } from '../answer.ts'
import { type Client, openClient } from '../client.ts'
import { type ApiOptions, apiOptions, collect, jsonText, queryOf, wholeNumber, withExamples } from '../command.ts'
import type { CliDeps } from '../deps.ts'
import { EXIT, Failure } from '../failure.ts'
import { facts, note, oneLine, paint, paintStatus, print, printJson, shortTime, table } from '../output.ts'
import { actOnTasks, type BulkOptions } from './task/bulk.ts'
import { submitCommand } from './task/submit.ts'
import { type Task, watchTask } from './task/watch.ts'

const ID = 'the id of a task'

export function taskCommands(program: Command, deps: CliDeps): void {
  const task = withExamples(
    program.command('task').description('Submit, read, follow, cancel, mend and replay tasks'),
    ['the newest dead letters', 'longshore task list --status dead'],
    ['run all of them again', 'longshore task replay --status dead --queue emails'],
  )
  submitCommand(task, deps)
  getCommand(task, deps)
  listCommand(task, deps)
  watchCommand(task, deps)
  bulkCommand(task, deps, 'cancel')
  bulkCommand(task, deps, 'replay')
  mendCommand(task, deps)
}

function mendCommand(task: Command, deps: CliDeps): void {
  const command = task
    .command('mend')
    .description('Replace the payload of a dead or cancelled task; replay it then')
    .argument('<id>', ID)
    .requiredOption('-p, --payload <json>', 'the payload that a replay delivers', jsonText)
    .action(async (id: string, options: ApiOptions & { payload: string }) => {
      const client = await openClient(deps, options)
      const body = `{"payload":${options.payload}}`
      await printAnswer(client, options, ['PATCH', `/tasks/${encodeURIComponent(id)}`, body], story)
    })
  withExamples(apiOptions(command), [
    'a field that was missing',
    `longshore task mend 019b7a3e-5c00-7000-8000-000000000001 --payload '{"invoice":1042}'`,
  ])
}

function getCommand(task: Command, deps: CliDeps): void {
  const command = task
    .command('get')
    .description('Show a task with its story: attempts, logs, and what it waits for')
    .argument('<id>', ID)
    .action(async (id: string, options: ApiOptions) => {
      const client = await openClient(deps, options)
      await printAnswer(client, options, ['GET', `/tasks/${encodeURIComponent(id)}`], story)
    })
  withExamples(
    apiOptions(command),
    ['what happened to it', 'longshore task get 019b7a3e-5c00-7000-8000-000000000001'],
    ['only its result', 'longshore task get 019b7a3e-5c00-7000-8000-000000000001 --json | jq .result'],
  )
}

interface ListOptions extends ApiOptions {
  status?: string[]
  queue?: string
  type?: string
  parent?: string
  payload?: string
  limit: number
  after?: string
}

function listCommand(task: Command, deps: CliDeps): void {
  const command = task
    .command('list')
    .description('List tasks, the newest first')
    .option('-s, --status <status>', `only these, separated by commas: ${STATUSES.join(', ')}`, collect)
    .option('-q, --queue <queue>', 'only of this queue')
    .option('-t, --type <type>', 'only of this type')
    .option('--parent <id>', 'only the children of this task')
    .option('--payload <json>', 'only with a payload that contains this JSON', jsonText)
    .addOption(wholeNumber('-n, --limit <count>', 'how many', 1, 500).default(50))
    .option('--after <place>', 'go on behind an earlier list')
    .action(async (options: ListOptions) => {
      const client = await openClient(deps, options)
      const { status, queue, type, parent, payload, limit, after } = options
      const query = queryOf({ status: status?.join(','), queue, type, parentId: parent, payload, limit, after })
      const text = await client.text('GET', `/tasks${query}`)
      if (options.json) return printJson(text)
      const page = JSON.parse(text) as { items: Task[]; next: string | null }
      print(page.items.length === 0 ? 'No such tasks' : taskTable(page.items))
      if (page.next !== null) note(`There are more: --after ${page.next}`)
    })
  withExamples(
    apiOptions(command),
    ['what failed for good', 'longshore task list --status dead --limit 20'],
    ['the tasks of one invoice', `longshore task list --payload '{"invoice":1042}'`],
  )
}

/** Tasks, one a line. */
export function taskTable(tasks: Task[]): string {
  return table<Task>(
    [
      { head: 'ID', cell: ({ id }) => id },
      { head: 'STATUS', cell: ({ status }) => paintStatus(status) },
      { head: 'QUEUE', cell: ({ queue }) => oneLine(queue, 30) },
      { head: 'TYPE', cell: ({ type }) => oneLine(type ?? '-', 30) },
      { head: 'ATTEMPT', cell: ({ attempt }) => attempt, right: true },
      { head: 'CREATED', cell: ({ createdAt }) => shortTime(createdAt) },
      { head: 'WHY', cell: ({ waitingFor, error }) => oneLine(waitingFor?.detail ?? error ?? '') },
    ],
    tasks,
  )
}

function watchCommand(task: Command, deps: CliDeps): void {
  const command = task
    .command('watch')
    .description('Follow a task until it is final; exit code 1 when it did not succeed')
    .argument('<id>', ID)
    .option('--timeout <duration>', 'give up after this long, such as 30s or 5m')
    .action(async (id: string, options: ApiOptions & { timeout?: string }) => {
      const client = await openClient(deps, options)
      await watchTask(client, id, options)
    })
  withExamples(apiOptions(command), [
    'wait for it in a script',
    'longshore task watch 019b7a3e-5c00-7000-8000-000000000001 --timeout 5m && echo done',
  ])
}

const BULK = {
  cancel: {
    description: 'Cancel tasks: waiting ones at once, running ones are asked to stop',
    example: ['everything of a queue that is not final', 'longshore task cancel --queue emails --dry-run'],
  },
  replay: {
    description: 'Run dead or cancelled tasks again',
    example: [
      'the dead letters of a queue, ten a second',
      'longshore task replay --queue emails --status dead --rate 10',
    ],
  },
} as const

function bulkCommand(task: Command, deps: CliDeps, action: 'cancel' | 'replay'): void {
  const command = task
    .command(action)
    .description(`${BULK[action].description}; by id, or all that the filters name`)
    .argument('[ids...]', 'ids of tasks')
    .option('-s, --status <status>', 'all in these statuses, separated by commas', collect)
    .option('-q, --queue <queue>', 'all of this queue')
    .option('-t, --type <type>', 'all of this type')
    .option('--dry-run', 'only say what would be done')
  if (action === 'replay') {
    command
      .option('--to <queue>', 'send them to this queue instead of their own')
      .addOption(wholeNumber('--rate <count>', 'with filters: how many are due each second', 1, 10_000))
  }
  command.action(async (ids: string[], options: BulkOptions) => {
    const filtered = options.status ?? options.queue ?? options.type
    if (ids.length > 0 === (filtered !== undefined)) {
      throw new Failure(`Name the tasks by their ids, or by --status, --queue and --type, one or the other`, EXIT.usage)
    }
    if (ids.length > 0 && (options.dryRun || options.rate !== undefined)) {
      throw new Failure('--dry-run and --rate go with filters only', EXIT.usage)
    }
    const client = await openClient(deps, options)
    await (ids.length > 0 ? actOnIds(client, action, ids, options) : actOnTasks(client, action, options))
  })
  withExamples(
    apiOptions(command),
    ['one task', `longshore task ${action} 019b7a3e-5c00-7000-8000-000000000001`],
    BULK[action].example,
  )
}

/** Each on its own: one that cannot be done does not keep the others from it. */
async function actOnIds(client: Client, action: string, ids: string[], { json, to }: BulkOptions): Promise<void> {
  const body = to === undefined ? undefined : JSON.stringify({ queue: to })
  let failed = 0
  for (const id of ids) {
    try {
      const text = await client.text('POST', `/tasks/${encodeURIComponent(id)}/${action}`, body)
      const { status } = JSON.parse(text) as Task
      if (json) printJson(text)
      else
        print(`${id}  ${paintStatus(status)}${action === 'cancel' && status === 'running' ? ' (asked to stop)' : ''}`)
    } catch (error) {
      if (!(error instanceof Failure) || error.exitCode !== EXIT.failed) throw error
      note(error.message)
      failed++
    }
  }
  if (failed > 0) throw new Failure(`${failed} of ${ids.length} could not be done`)
}

function story(task: Task): string {
  const { status, waitingFor, children } = task
  const lines = [
    facts([
      ['id', task.id],
      ['status', paintStatus(status)],
      ['waits for', waitingFor ? `${oneLine(waitingFor.detail)} (${waitingFor.cause})` : undefined],
      ['queue', task.queue],
      ['type', task.type === null ? undefined : oneLine(task.type)],
      ['payload', oneLine(JSON.stringify(task.payload), 200)],
      ['target', task.target === null ? undefined : oneLine(JSON.stringify(task.target), 200)],
      ['priority', String(task.priority)],
      ['attempts', `${task.attempt} (${task.failures} of ${task.maxAttempts} failures)`],
      ['created', shortTime(task.createdAt)],
      ['due', shortTime(task.dueAt)],
      ['finished', shortTime(task.finishedAt)],
      ['parent', task.parentId ?? undefined],
      ['children', children ? oneLine(JSON.stringify(children)) : undefined],
      ['result', task.result === null ? undefined : oneLine(JSON.stringify(task.result), 200)],
      ['error', task.error === null ? undefined : paint('red', oneLine(task.error, 400))],
    ]),
  ]
  if (task.attempts && task.attempts.length > 0) {
    const attempts = table(
      [
        { head: 'ATTEMPT', cell: ({ number }) => number, right: true },
        { head: 'OUTCOME', cell: ({ outcome }) => outcome },
        { head: 'STARTED', cell: ({ startedAt }) => shortTime(startedAt) },
        { head: 'ENDED', cell: ({ finishedAt }) => shortTime(finishedAt) },
        { head: 'WHAT', cell: ({ error, response }) => oneLine(error ?? response?.status ?? '', 200) },
      ],
      task.attempts,
    )
    lines.push('', attempts)
  }
  if (task.logs && task.logs.length > 0) {
    lines.push('', paint('bold', 'LOG'), ...task.logs.map((line) => oneLine(line, 1_024)))
  }
  return lines.join('\n')
}
