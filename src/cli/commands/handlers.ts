import { Worker } from 'node:worker_threads'
import type { Command } from 'commander'
import { pause, realClock } from '../../runtime/clock.ts'
import { messageOf } from '../../runtime/errors.ts'
import type { HandlerCheck, HandlerFile, HandlerFinding } from '../../task/attempt/thread-messages.ts'
import { jsonOption, withExamples } from '../command.ts'
import type { CliDeps } from '../deps.ts'
import { EXIT, Failure } from '../failure.ts'
import { paint, print, printJson } from '../output.ts'

/** A file that takes longer than this to load would hold up every task that names it. */
const LOAD_MS = 10_000

export interface CheckedHandler {
  file: string
  ok: boolean
  problem?: string
}

export function handlersCommands(program: Command, deps: CliDeps): void {
  const handlers = withExamples(program.command('handlers').description('Look at your own functions in HANDLERS_DIR'), [
    'does every file load?',
    'longshore handlers check',
  ])
  const check = handlers
    .command('check')
    .description('Load every handler in a thread of its own and say what is wrong; exit code 1 when something is')
    .option('--dir <folder>', 'this folder instead of HANDLERS_DIR')
    .action(async ({ dir, json }: { dir?: string; json?: true }) => {
      const { settings } = await deps.load(dir === undefined ? {} : { HANDLERS_DIR: dir })
      const found = await checkHandlers(settings.handlersDir, deps.threadUrl)
      const bad = found.filter(({ ok }) => !ok).length
      if (json) printJson({ dir: settings.handlersDir, handlers: found })
      else if (found.length === 0) print(`There are no handlers in ${settings.handlersDir}`)
      else print(found.map(lineOf).join('\n'))
      if (bad > 0) throw new Failure(`${bad} of ${found.length} files cannot be used as handlers`)
    })
  withExamples(jsonOption(check), ['before a deployment', 'longshore handlers check --dir ./handlers'])
}

function lineOf({ file, ok, problem }: CheckedHandler): string {
  return ok ? `${paint('green', 'ok')}     ${file}` : `${paint('red', 'fault')}  ${file}: ${problem}`
}

/** Every handler file of a folder, each loaded in a thread of its own, as tasks load them. */
export async function checkHandlers(handlersDir: string, threadUrl: URL): Promise<CheckedHandler[]> {
  let files: HandlerFile[]
  try {
    files = await inThread<HandlerFile[]>(threadUrl, { handlersDir })
  } catch (error) {
    throw new Failure(`Cannot read the handlers' folder ${handlersDir}: ${messageOf(error)}`, EXIT.failed, {
      cause: error,
    })
  }
  const checked: CheckedHandler[] = []
  for (const file of files) {
    if ('problem' in file) checked.push({ ok: false, ...file })
    else {
      const { problem } = await inThread<HandlerFinding>(threadUrl, { handlersDir, handler: file.name }).catch(
        (error: unknown) => ({ problem: messageOf(error) }),
      )
      checked.push({ file: file.file, ok: problem === undefined, ...(problem !== undefined && { problem }) })
    }
  }
  return checked
}

/** The one message of a thread; rejects when it ends without one or takes too long. */
async function inThread<T>(threadUrl: URL, check: HandlerCheck): Promise<T> {
  // What a handler prints while it loads is not our output.
  const thread = new Worker(threadUrl, { workerData: check, stdout: true, stderr: true })
  const done = new AbortController()
  try {
    return await Promise.race([
      new Promise<T>((resolve, reject) => {
        thread.once('message', resolve)
        thread.once('error', reject)
        thread.once('exit', (code) => reject(new Error(`it ended its thread while it was loaded (exit code ${code})`)))
      }),
      pause(realClock, LOAD_MS, done.signal).then<never>(() => {
        throw new Error(`it does not load within ${LOAD_MS / 1_000} s`)
      }),
    ])
  } finally {
    done.abort()
    await thread.terminate()
  }
}
