import { type Command, Option } from 'commander'
import { pause, realClock } from '../../runtime/clock.ts'
import { printAnswer } from '../answer.ts'
import { allItems, type Client, openClient } from '../client.ts'
import { type ApiOptions, apiOptions, queryOf, withExamples } from '../command.ts'
import type { CliDeps } from '../deps.ts'
import { EXIT, Failure } from '../failure.ts'
import { oneLine, print, printJson, table } from '../output.ts'
import { changeCommand } from './source/change.ts'
import { createCommand } from './source/create.ts'
import {
  failureText,
  identityText,
  pollText,
  SOURCE,
  type Source,
  sourceDescription,
  sourcePath,
  sourceTable,
} from './source/view.ts'

interface Entry {
  path: string
  kind: string
  size: number | null
  modified: string | null
}

interface Tested {
  ok: boolean
  identity: Source['pinned']
  listing: { looked: number; files: Entry[] }
  preview: { path: string; records: unknown[]; rejects: { number: number; reason: string }[] } | null
  failure: { layer: string; reason: string; message: string } | null
}

export function sourceCommands(program: Command, deps: CliDeps): void {
  const source = withExamples(
    program
      .command('source')
      .description('List, make, change, test, poll and pause sources: file servers that are polled'),
    ['what is polled, and how it went', 'longshore source list'],
    ['why does nothing come?', 'longshore source test bank'],
  )
  const list = source
    .command('list')
    .description('List sources with their last poll')
    .action(async (options: ApiOptions) => {
      const client = await openClient(deps, options)
      const items = await allItems<Source>(client, '/sources')
      if (options.json) return printJson({ items, next: null })
      print(items.length === 0 ? 'No sources' : sourceTable(items))
    })
  withExamples(apiOptions(list), ['what is polled, and how it went', 'longshore source list'])

  const get = source
    .command('get')
    .description('Show a source, and what is less safe about it than it could be')
    .argument('<source>', SOURCE)
    .action(async (name: string, options: ApiOptions) => {
      const client = await openClient(deps, options)
      await printAnswer(client, options, ['GET', sourcePath(name)], sourceDescription)
    })
  withExamples(apiOptions(get), ['its server, its times, its last poll', 'longshore source get bank'])

  createCommand(source, deps)
  changeCommand(source, deps)
  testCommand(source, deps)
  browseCommand(source, deps)
  pollCommand(source, deps)
  pauseCommands(source, deps)
  trustCommand(source, deps)
  deleteCommand(source, deps)
}

function testCommand(source: Command, deps: CliDeps): void {
  const command = source
    .command('test')
    .description('Connect, list, and read the first records; nothing is imported')
    .argument('<source>', SOURCE)
    .action(async (name: string, options: ApiOptions) => {
      const client = await openClient(deps, options)
      const text = await client.text('POST', `${sourcePath(name)}/test`)
      const tested = JSON.parse(text) as Tested
      if (options.json) printJson(text)
      else tell(tested)
      if (tested.failure) throw new Failure(failureText(tested.failure))
    })
  withExamples(apiOptions(command), ['which layer fails?', 'longshore source test bank'])
}

function tell({ identity, listing, preview }: Tested): void {
  if (identity) print(`Answered: ${identityText(identity)}`)
  const { looked, files } = listing
  print(`Listed: ${looked} ${looked === 1 ? 'entry' : 'entries'}, to be taken:`)
  for (const { path, size } of files) print(`  ${oneLine(path, 200)}  ${size ?? '?'} bytes`)
  if (!preview) return
  print(`Read: ${oneLine(preview.path, 200)}`)
  for (const record of preview.records) print(`  ${oneLine(JSON.stringify(record), 400)}`)
  for (const { number, reason } of preview.rejects)
    print(`  record ${number} would be rejected: ${oneLine(reason, 200)}`)
}

function browseCommand(source: Command, deps: CliDeps): void {
  const command = source
    .command('browse')
    .description('List a directory of the server as it is now')
    .argument('<source>', SOURCE)
    .argument('[path]', 'the directory; the polled one by default')
    .action(async (name: string, path: string | undefined, options: ApiOptions) => {
      const client = await openClient(deps, options)
      const text = await client.text('GET', `${sourcePath(name)}/browse${queryOf({ path })}`)
      if (options.json) return printJson(text)
      const { items, more } = JSON.parse(text) as { items: Entry[]; more: boolean }
      print(
        table<Entry>(
          [
            { head: 'KIND', cell: ({ kind }) => kind },
            { head: 'BYTES', cell: ({ size }) => size ?? '-', right: true },
            { head: 'MODIFIED', cell: ({ modified }) => oneLine(modified ?? '-', 30) },
            { head: 'PATH', cell: ({ path: at }) => oneLine(at, 400) },
          ],
          items,
        ),
      )
      if (more) print('There are more')
    })
  withExamples(apiOptions(command), ['what lies there', 'longshore source browse bank /outgoing'])
}

const LOOK_MS = 250

function pollCommand(source: Command, deps: CliDeps): void {
  const command = source
    .command('poll')
    .description('Poll a source now, and wait for what it comes to')
    .argument('<source>', SOURCE)
    .addOption(new Option('--no-wait', 'only ask for it'))
    .action(async (name: string, { wait, ...options }: ApiOptions & { wait: boolean }) => {
      const client = await openClient(deps, options)
      const before = await client.call<Source>('GET', sourcePath(name))
      const text = await client.text('POST', `${sourcePath(name)}/poll`)
      if (!wait) return options.json ? printJson(text) : print('It will be polled')
      const after = await polled(client, before)
      if (options.json) printJson(after)
      else if (after.poll) print(pollText(after.poll))
      if (after.poll?.error) throw new Failure(`Cannot poll "${after.name}"`)
    })
  withExamples(
    apiOptions(command),
    ['now', 'longshore source poll bank'],
    ['and do not wait', 'longshore source poll bank --no-wait'],
  )
}

async function polled(client: Client, { id, polledAt }: Source): Promise<Source> {
  for (;;) {
    const now = await client.call<Source>('GET', sourcePath(id))
    if (now.polledAt !== polledAt || now.status !== 'active') return now
    await pause(realClock, LOOK_MS)
  }
}

function pauseCommands(source: Command, deps: CliDeps): void {
  for (const action of ['pause', 'resume'] as const) {
    const command = source
      .command(action)
      .description(action === 'pause' ? 'Poll a source no more; imports go on' : 'Poll it again, at once')
      .argument('<source>', SOURCE)
      .action(async (name: string, options: ApiOptions) => {
        const client = await openClient(deps, options)
        const done = action === 'pause' ? 'is paused' : 'goes on'
        const view = () => `The source "${name}" ${done}`
        await printAnswer(client, options, ['POST', `${sourcePath(name)}/${action}`], view)
      })
    withExamples(apiOptions(command), [`${action} it on every node`, `longshore source ${action} bank`])
  }
}

function trustCommand(source: Command, deps: CliDeps): void {
  const command = source
    .command('trust')
    .description('Take a changed host key or certificate for right, after you have compared its fingerprint')
    .argument('<source>', SOURCE)
    .argument('<fingerprint>', 'the one that longshore source get shows in the alert')
    .action(async (name: string, fingerprint: string, options: ApiOptions) => {
      const client = await openClient(deps, options)
      const body = JSON.stringify({ fingerprint })
      const view = () => `The source "${name}" is polled again`
      await printAnswer(client, options, ['POST', `${sourcePath(name)}/trust`, body], view)
    })
  withExamples(apiOptions(command), [
    'the operator has said it by telephone',
    'longshore source trust bank SHA256:Xo4vC8w9xCq0d3iJ7cFvM1n2b5a6s7d8f9g0h1j2k3A',
  ])
}

function deleteCommand(source: Command, deps: CliDeps): void {
  const command = source
    .command('delete')
    .description('Delete a source and what is known of its files; tasks of records stay')
    .argument('<source>', SOURCE)
    .option('--yes', 'do it; without, it only says what would be deleted')
    .action(async (name: string, { yes, ...options }: ApiOptions & { yes?: true }) => {
      const client = await openClient(deps, options)
      if (!yes) {
        await client.call('GET', sourcePath(name))
        const what = `The source "${name}" would be deleted, and would import all its files again if it were made anew`
        throw new Failure(`${what}; --yes does it`, EXIT.usage)
      }
      await client.text('DELETE', sourcePath(name))
      if (options.json) return printJson({ deleted: name })
      print(`The source "${name}" is deleted`)
    })
  withExamples(apiOptions(command), ['a server that is not used any more', 'longshore source delete bank --yes'])
}
