import { type Command, Option } from 'commander'
import { MISSED, OVERLAPS } from '../../task/schedule.ts'
import { printAnswer } from '../answer.ts'
import { allItems, openClient } from '../client.ts'
import { type ApiOptions, apiOptions, jsonText, withExamples } from '../command.ts'
import type { CliDeps } from '../deps.ts'
import { facts, oneLine, paint, paintStatus, print, printJson, shortTime, table } from '../output.ts'

interface Schedule {
  name: string
  cron: string
  timezone: string
  overlap: string
  missed: string
  jitter: string
  paused: boolean
  nextFireAt: string | null
  lastFire: { fireAt: string; outcome: string } | null
  error: string | null
}

const NAME = 'the name of a schedule'

export function scheduleCommands(program: Command, deps: CliDeps): void {
  const schedule = withExamples(
    program.command('schedule').description('List, set, run and pause schedules'),
    ['when everything fires next', 'longshore schedule list'],
    ['once, now', 'longshore schedule run nightly-report'],
  )
  listCommand(schedule, deps)
  setCommand(schedule, deps)

  const run = schedule
    .command('run')
    .description('Submit the task of a schedule now; its next fires stay as they are')
    .argument('<name>', NAME)
    .action(async (name: string, options: ApiOptions) => {
      const client = await openClient(deps, options)
      const view = ({ taskId }: { taskId: string }) => taskId
      await printAnswer(client, options, ['POST', `${pathOf(name)}/run`], view)
    })
  withExamples(apiOptions(run), [
    'and wait for its end',
    'longshore task watch "$(longshore schedule run nightly-report)"',
  ])

  for (const action of ['pause', 'resume'] as const) {
    const command = schedule
      .command(action)
      .description(action === 'pause' ? 'Let a schedule fire no more' : 'Let it fire again, from the next time on')
      .argument('<name>', NAME)
      .action(async (name: string, options: ApiOptions) => {
        const client = await openClient(deps, options)
        const view = ({ nextFireAt }: Schedule) =>
          action === 'pause' ? `"${name}" is paused` : `"${name}" fires next at ${shortTime(nextFireAt)}`
        await printAnswer(client, options, ['POST', `${pathOf(name)}/${action}`], view)
      })
    withExamples(apiOptions(command), [`${action} it on every node`, `longshore schedule ${action} nightly-report`])
  }
}

function listCommand(schedule: Command, deps: CliDeps): void {
  const command = schedule
    .command('list')
    .description("List schedules, or Longshore's own periodic work")
    .option('--system', "the node's own periodic work instead")
    .action(async (options: ApiOptions & { system?: true }) => {
      const client = await openClient(deps, options)
      if (options.system) return printAnswer(client, options, ['GET', '/schedules?system=true'], workTable)
      const items = await allItems<Schedule>(client, '/schedules')
      if (options.json) return printJson({ items, next: null })
      print(items.length === 0 ? 'No schedules' : scheduleTable(items))
    })
  withExamples(
    apiOptions(command),
    ['when everything fires next', 'longshore schedule list'],
    ['dispatch, retention and the like', 'longshore schedule list --system'],
  )
}

function scheduleTable(schedules: Schedule[]): string {
  return table<Schedule>(
    [
      { head: 'SCHEDULE', cell: ({ name }) => oneLine(name, 40) },
      { head: 'CRON', cell: ({ cron }) => oneLine(cron, 40) },
      { head: 'ZONE', cell: ({ timezone }) => oneLine(timezone, 30) },
      {
        head: 'NEXT',
        cell: ({ paused, nextFireAt }) => (paused ? paintStatus('paused') : shortTime(nextFireAt) || '-'),
      },
      { head: 'LAST', cell: ({ lastFire }) => shortTime(lastFire?.fireAt) || '-' },
      {
        head: 'OUTCOME',
        cell: ({ lastFire, error }) => (error ? paint('red', oneLine(error)) : (lastFire?.outcome ?? '-')),
      },
    ],
    schedules,
  )
}

interface PeriodicWork {
  name: string
  description: string
  every: string
  runs: number
  lastRunAt: string | null
  lastError: string | null
}

function workTable({ items }: { items: PeriodicWork[] }): string {
  return table<PeriodicWork>(
    [
      { head: 'WORK', cell: ({ name }) => name },
      { head: 'EVERY', cell: ({ every }) => every },
      { head: 'RUNS', cell: ({ runs }) => runs, right: true },
      { head: 'LAST', cell: ({ lastRunAt }) => shortTime(lastRunAt) || '-' },
      { head: 'WHAT', cell: ({ description, lastError }) => oneLine(lastError ?? description) },
    ],
    items,
  )
}

interface SetOptions extends ApiOptions {
  cron: string
  timezone?: string
  task: string
  overlap?: string
  missed?: string
  jitter?: string
  paused?: true
}

function setCommand(schedule: Command, deps: CliDeps): void {
  const command = schedule
    .command('set')
    .description('Make a schedule, or replace its whole rule; whether it is paused stays')
    .argument('<name>', NAME)
    .requiredOption('-c, --cron <expression>', 'when: minute, hour, day, month, day of week; or @daily and the like')
    .requiredOption('--task <json>', 'what each fire submits, as POST /api/v1/tasks takes it', jsonText)
    .option('-z, --timezone <zone>', 'the zone of these times, such as Europe/Berlin (default: UTC)')
    .addOption(new Option('--overlap <rule>', 'when the task before still runs').choices(OVERLAPS))
    .addOption(new Option('--missed <rule>', 'fires at which no node ran').choices(MISSED))
    .option('--jitter <duration>', 'put each fire off by up to this long')
    .option('--paused', 'make it paused')
    .action(async (name: string, options: SetOptions) => {
      const client = await openClient(deps, options)
      const { cron, timezone, task, overlap, missed, jitter, paused } = options
      const rest = JSON.stringify({ cron, timezone, overlap, missed, jitter, paused }).slice(1, -1)
      // The task's text stays as it was given.
      await printAnswer(client, options, ['PUT', pathOf(name), `{${rest},"task":${task}}`], description)
    })
  withExamples(apiOptions(command), [
    'every night at half past two in Berlin',
    `longshore schedule set nightly-report -c '30 2 * * *' -z Europe/Berlin --task '{"target":{"type":"handler","name":"report"},"payload":{}}'`,
  ])
}

function description({ name, cron, timezone, overlap, missed, jitter, paused, nextFireAt }: Schedule): string {
  return facts([
    ['schedule', name],
    ['cron', `${cron} (${timezone})`],
    ['next', paused ? paintStatus('paused') : shortTime(nextFireAt)],
    ['overlap', overlap],
    ['missed', missed],
    ['jitter', jitter],
  ])
}

function pathOf(name: string): string {
  return `/schedules/${encodeURIComponent(name)}`
}
