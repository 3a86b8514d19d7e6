import { readFile } from 'node:fs/promises'
import { text } from 'node:stream/consumers'
import { type Command, Option } from 'commander'
import { openClient } from '../../client.ts'
import { type ApiOptions, apiOptions, jsonText, wholeNumber, withExamples } from '../../command.ts'
import type { CliDeps } from '../../deps.ts'
import { EXIT, Failure } from '../../failure.ts'
import { print, printJson } from '../../output.ts'
import { submitFile } from './file.ts'
import { noteSubmitted, type Task, watchTask } from './watch.ts'

interface SubmitOptions extends ApiOptions {
  payload?: string
  http?: string
  handler?: string
  target?: string
  queue?: string
  exchange?: string
  routingKey?: string
  type?: string
  priority?: number
  delay?: string
  dueAt?: string
  maxAttempts?: number
  timeout?: string
  idempotencyKey?: string
  parent?: string
  wait?: true
  file?: string
  batchSize: number
  fromLine: number
}

export function submitCommand(task: Command, deps: CliDeps): void {
  const target = ['http', 'handler', 'target']
  const command = task
    .command('submit')
    .description('Submit a task, or many from a file')
    .option('-p, --payload <json>', 'the payload; @file reads it from a file, - from standard input (default: null)')
    .addOption(new Option('--http <url>', 'send the payload to this URL').conflicts(target.slice(1)))
    .addOption(new Option('--handler <name>', 'call this function in HANDLERS_DIR').conflicts(['http', 'target']))
    .addOption(new Option('--target <json>', 'any other target, as JSON').argParser(jsonText))
    .option('-q, --queue <queue>', 'the queue (default: default)')
    .addOption(
      new Option('-x, --exchange <exchange>', 'instead of a queue: the queues that are bound to it').conflicts('queue'),
    )
    .option('-k, --routing-key <key>', 'with --exchange: which of its bindings are meant')
    .option('-t, --type <type>', 'what kind of work it is')
    .addOption(wholeNumber('--priority <number>', '0 to 9, higher first', 0, 9))
    .option('--delay <duration>', 'not before this long from now, such as 15m')
    .option('--due-at <time>', 'not before this time (RFC 3339)')
    .addOption(wholeNumber('--max-attempts <count>', 'failures after which it is dead', 1, 1_000))
    .option('--timeout <duration>', 'the longest attempt, such as 30s')
    .option('--idempotency-key <key>', 'submitting the same key again gives the first task')
    .option('--parent <id>', 'make it a child of this task')
    .option('-w, --wait', 'follow it until it is final')
    .addOption(
      new Option('-f, --file <file>', 'submit every line of this NDJSON file (- is standard input)').conflicts([
        ...target,
        ...[
          'payload',
          'queue',
          'exchange',
          'routingKey',
          'type',
          'priority',
          'delay',
          'dueAt',
          'maxAttempts',
          'timeout',
          'idempotencyKey',
        ],
        ...['parent', 'wait'],
      ]),
    )
    .addOption(wholeNumber('--batch-size <count>', 'with --file: tasks a commit', 1, 10_000).default(1_000))
    .addOption(wholeNumber('--from-line <line>', 'with --file: begin here', 1, 1_000_000_000).default(1))
    .action(async (options: SubmitOptions) => {
      const client = await openClient(deps, options)
      if (options.file !== undefined) return submitFile(client, options.file, options)
      const answer = await client.text('POST', '/tasks', await submissionOf(options))
      const { id } = JSON.parse(answer) as Task
      if (options.wait) {
        if (!options.json) noteSubmitted(id)
        return watchTask(client, id, options.json ? { json: true } : {})
      }
      if (options.json) printJson(answer)
      else print(id)
    })
  withExamples(
    apiOptions(command),
    [
      'call an API in a quarter of an hour',
      `longshore task submit --http https://api.example.com/hook --payload '{"n":1}' --delay 15m`,
    ],
    [
      'call your own function and wait for its result',
      `longshore task submit --handler resize --payload @photo.json --wait`,
    ],
    [
      'for a queue whose consumer knows the target',
      `longshore task submit --queue emails --payload '{"to":"ada@example.com"}'`,
    ],
    [
      'for every queue that is bound to an exchange',
      `longshore task submit --exchange orders --routing-key orders.eu.new --payload '{"order":1042}' --wait`,
    ],
    ['many: each line is the body of POST /api/v1/tasks', 'longshore task submit --file tasks.ndjson'],
  )
}

/** The body of POST /tasks as JSON text: the payload stays as it was given. */
async function submissionOf(options: SubmitOptions): Promise<string> {
  const { http, handler, queue, exchange, routingKey, type, priority, delay, dueAt, maxAttempts, timeout } = options
  const { idempotencyKey, parent: parentId } = options
  const address = { queue, exchange, routingKey }
  const fields = { ...address, type, priority, delay, dueAt, maxAttempts, timeout, idempotencyKey, parentId }
  const target =
    http !== undefined
      ? JSON.stringify({ type: 'http', url: http })
      : handler !== undefined
        ? JSON.stringify({ type: 'handler', name: handler })
        : options.target
  const rest = JSON.stringify(fields).slice(1, -1)
  const members = [`"payload":${await payloadOf(options.payload)}`]
  if (target !== undefined) members.push(`"target":${target}`)
  if (rest !== '') members.push(rest)
  return `{${members.join(',')}}`
}

async function payloadOf(given = 'null'): Promise<string> {
  const payload = given === '-' ? text(process.stdin) : given.startsWith('@') ? readFile(given.slice(1), 'utf8') : given
  const json = await Promise.resolve(payload).catch((error: Error) => {
    throw new Failure(`Cannot read the payload: ${error.message}`)
  })
  try {
    JSON.parse(json)
    return json
  } catch {
    throw new Failure(`The payload must be JSON, such as '{"n":1}' (in quotes, because of the shell)`, EXIT.usage)
  }
}
