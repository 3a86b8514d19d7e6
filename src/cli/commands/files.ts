import type { Command } from 'commander'
import { isUuid } from '../../runtime/uuid.ts'
import { printAnswer } from '../answer.ts'
import { allItems, type Client, openClient } from '../client.ts'
import { type ApiOptions, apiOptions, queryOf, withExamples } from '../command.ts'
import type { CliDeps } from '../deps.ts'
import { Failure } from '../failure.ts'
import { note, oneLine, print, printJson, table } from '../output.ts'
import { fileDescription, fileTable, type StoredFile } from './files/view.ts'
import { watchFile } from './files/watch.ts'
import { SOURCE, sourcePath } from './source/view.ts'

const FILE = 'the id of a file, or its path: then the version that was seen last'

interface Page {
  items: StoredFile[]
  next: string | null
}

export function filesCommands(program: Command, deps: CliDeps): void {
  const files = withExamples(
    program.command('files').description('List, watch and steer the files of sources, and what was rejected of them'),
    ['what came from there', 'longshore files list bank'],
    ['how far is it?', 'longshore files watch bank'],
  )
  listCommand(files, deps)

  const get = files
    .command('get')
    .description('Show a file: content, counts, times')
    .argument('<source>', SOURCE)
    .argument('<file>', FILE)
    .action(async (source: string, file: string, options: ApiOptions) => {
      const client = await openClient(deps, options)
      await printAnswer(client, options, ['GET', await pathOf(client, source, file)], fileDescription)
    })
  withExamples(apiOptions(get), ['its counts and times', 'longshore files get bank /outgoing/transactions.csv'])

  const watch = files
    .command('watch')
    .description('Tell how an import goes on until all its records are done')
    .argument('<source>', SOURCE)
    .argument('[file]', `${FILE}; by default the file that was seen last`)
    .option('--timeout <duration>', 'give up waiting after this long')
    .action(async (source: string, file: string | undefined, options: ApiOptions & { timeout?: string }) => {
      const client = await openClient(deps, options)
      await watchFile(client, await pathOf(client, source, file), options)
    })
  withExamples(apiOptions(watch), ['with a progress bar', 'longshore files watch bank'])

  rejectsCommand(files, deps)
  actionCommands(files, deps)
}

function listCommand(files: Command, deps: CliDeps): void {
  const command = files
    .command('list')
    .description('List the files of a source, those first that were seen last')
    .argument('<source>', SOURCE)
    .option('-s, --status <status>', 'only in this: seen, ready, fetching, importing, done, failed, skipped')
    .option('-n, --limit <count>', 'how many at most', '50')
    .action(async (source: string, options: ApiOptions & { status?: string; limit: string }) => {
      const client = await openClient(deps, options)
      const { status, limit } = options
      const path = `${sourcePath(source)}/files${queryOf({ status, limit })}`
      const view = ({ items }: Page) => (items.length === 0 ? 'No files' : fileTable(items))
      await printAnswer(client, options, ['GET', path], view)
    })
  withExamples(
    apiOptions(command),
    ['what came from there', 'longshore files list bank'],
    ['what went wrong', 'longshore files list bank --status failed'],
  )
}

function rejectsCommand(files: Command, deps: CliDeps): void {
  const command = files
    .command('rejects')
    .description('List the records of a file that were refused, and why')
    .argument('<source>', SOURCE)
    .argument('<file>', FILE)
    .action(async (source: string, file: string, options: ApiOptions) => {
      const client = await openClient(deps, options)
      const items = await allItems<{ number: number; line: number; reason: string; raw: string }>(
        client,
        `${await pathOf(client, source, file)}/rejects`,
      )
      if (options.json) return printJson({ items, next: null })
      if (items.length === 0) return print('No record was refused')
      print(
        table<(typeof items)[number]>(
          [
            { head: 'RECORD', cell: ({ number }) => number, right: true },
            { head: 'LINE', cell: ({ line }) => line, right: true },
            { head: 'WHY', cell: ({ reason }) => oneLine(reason, 100) },
            { head: 'AS IT STANDS THERE', cell: ({ raw }) => oneLine(raw, 200) },
          ],
          items,
        ),
      )
    })
  withExamples(apiOptions(command), ['why', 'longshore files rejects bank /outgoing/transactions.csv'])
}

const ACTIONS = {
  pause: ['Read a file no further, or do not fetch it', 'is paused'],
  resume: ['Let it go on behind the last record that was committed', 'goes on'],
  cancel: ['Import a file no further, and cancel the tasks of its records', 'is cancelled'],
} as const

function actionCommands(files: Command, deps: CliDeps): void {
  for (const [action, [description, done]] of Object.entries(ACTIONS)) {
    const command = files
      .command(action)
      .description(description)
      .argument('<source>', SOURCE)
      .argument('<file>', FILE)
      .action(async (source: string, file: string, options: ApiOptions) => {
        const client = await openClient(deps, options)
        const at = `${await pathOf(client, source, file)}/${action}`
        const view = ({ path }: StoredFile) => `The file "${oneLine(path, 200)}" ${done}`
        await printAnswer(client, options, ['POST', at], view)
      })
    withExamples(apiOptions(command), [
      `${action} it`,
      `longshore files ${action} bank 019b7a3e-5c00-7000-8000-000000000020`,
    ])
  }

  const rerun = files
    .command('rerun')
    .description('Fetch and import a whole file once more, or run only again what failed of it')
    .argument('<source>', SOURCE)
    .argument('<file>', FILE)
    .option('--failed', 'only tasks that are dead or cancelled, and what its import did not read')
    .action(async (source: string, file: string, options: ApiOptions & { failed?: true }) => {
      const client = await openClient(deps, options)
      const body = JSON.stringify(options.failed ? { only: 'failed' } : {})
      const text = await client.text('POST', `${await pathOf(client, source, file)}/rerun`, body)
      if (options.json) return printJson(text)
      const { id } = JSON.parse(text) as StoredFile
      print(id)
      note(`Follow it: longshore files watch ${source} ${id}`)
    })
  withExamples(
    apiOptions(rerun),
    ['what failed, after the table was mended', 'longshore files rerun bank /outgoing/transactions.csv --failed'],
    ['all of it', 'longshore files rerun bank /outgoing/transactions.csv'],
  )
}

/** The API's path of a file; of the one seen last when none is named. */
async function pathOf(client: Client, source: string, file: string | undefined): Promise<string> {
  const files = `${sourcePath(source)}/files`
  if (file !== undefined && isUuid(file)) return `${files}/${file}`
  const { items } = await client.call<Page>('GET', `${files}${queryOf({ path: file, limit: 1 })}`)
  const [found] = items
  if (!found) {
    throw new Failure(`The source "${source}" has no file${file === undefined ? '' : ` "${oneLine(file, 200)}"`}`)
  }
  return `${files}/${found.id}`
}
