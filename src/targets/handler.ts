import { basename } from 'node:path'
import { pathToFileURL } from 'node:url'
import { parseDuration } from '../runtime/duration.ts'
import type { RunTarget, TargetContext } from '../task/attempt/attempt.ts'
import { describe } from '../task/attempt/report.ts'
import type { Execution, Progress } from '../task/executor.ts'
import { LIMITS } from '../task/limits.ts'
import { failed, type Outcome } from '../task/outcome.ts'
import { findHandler, HANDLER_ENDINGS } from './handlers-dir.ts'

/** What a handler is told about its task. */
export type HandlerTask = Pick<
  Execution,
  'id' | 'queue' | 'type' | 'attempt' | 'createdAt' | 'parentId' | 'origin' | 'priority'
> & {
  /** W3C trace context of this attempt: send it on as the header `traceparent`. */
  traceparent: string | null
}

/** A handler's second argument. */
export interface HandlerContext {
  task: HandlerTask
  /** Aborts when the attempt times out or is cancelled; a handler that ignores it for 5 s more loses its thread. */
  readonly signal: AbortSignal
  log(line: string): void
  progress(progress: Progress): void
}

/** The default export of a file in HANDLERS_DIR. */
export type Handler = (payload: unknown, context: HandlerContext) => unknown

interface Loaded {
  file: string
  handler: Handler
}

/**
 * Calls user functions: the default export of `<dir>/<name>.ts`, `.js` or `.mjs`.
 *
 * - What it returns (or resolves to) is the task's result, as JSON; undefined is null.
 * - `return { snooze: '5m' }`, with no other property, runs the task again after that time; no failure is spent.
 * - What it throws is a failure that is tried again. A thrown error with `retryable: false` fails for good;
 *   one with `retryAfter: '5m'` is tried again after that time instead of the queue's backoff.
 *
 * A file is loaded once per thread. An unknown name fails for good; a file that cannot be loaded is tried again,
 * because it may be mended.
 */
export function createHandlerTarget({ dir }: { dir: string | null }): RunTarget {
  const loaded = new Map<string, Promise<Loaded | Outcome>>()

  async function load(name: string): Promise<Loaded | Outcome> {
    if (dir === null) return failed(`There is no handler "${name}": HANDLERS_DIR is not set`, false)
    let file: string | undefined
    try {
      file = findHandler(dir, name)
    } catch (error) {
      return failed(`Cannot read the handlers' folder ${dir}: ${describe(error)}`, true)
    }
    if (file === undefined) {
      const files = HANDLER_ENDINGS.map((ending) => name + ending).join(', ')
      return failed(
        `There is no handler "${name}" in ${dir} (looked for ${files}; links out of the folder do not count)`,
        false,
      )
    }
    try {
      const module = (await import(pathToFileURL(file).href)) as { default?: unknown }
      if (typeof module.default === 'function') return { file, handler: module.default as Handler }
      return failed(`${file} has no function as its default export`, true)
    } catch (error) {
      return failed(`Cannot load ${file}: ${describeThrown(error, file)}`, true)
    }
  }

  return async (execution, context) => {
    const { target } = execution
    if (target.type !== 'handler') throw new TypeError(`The handler target was given a target of type ${target.type}`)
    let loading = loaded.get(target.name)
    if (!loading) {
      loading = load(target.name)
      loaded.set(target.name, loading)
    }
    const found = await loading
    if ('kind' in found) {
      loaded.delete(target.name)
      return found
    }
    // A handler that listens for an abort that has been misses it.
    if (context.signal.aborted) return failed('aborted before the handler was called', true)
    try {
      return outcomeOf(await callHandler(found, execution, context))
    } catch (thrown) {
      return failureOf(thrown, found.file)
    }
  }
}

function callHandler({ handler }: Loaded, execution: Execution, context: TargetContext): unknown {
  const { id, queue, type, attempt, createdAt, parentId, origin, priority, traceparent = null } = execution
  const call = () =>
    handler(JSON.parse(execution.payload), {
      task: { id, queue, type, attempt, createdAt, parentId, origin, priority, traceparent },
      signal: context.signal,
      log: (line) => context.log(line),
      progress: (progress) => context.progress(progress),
    })
  return context.call ? context.call(call) : call()
}

function outcomeOf(returned: unknown): Outcome {
  const delayMs = snoozeOf(returned)
  if (delayMs !== undefined) return { kind: 'snoozed', delayMs }
  try {
    const text = returned === undefined ? 'null' : JSON.stringify(returned)
    if (text === undefined) return failed(`The result cannot be written as JSON: it is a ${typeof returned}`, false)
    return { kind: 'succeeded', result: storable(text) }
  } catch (error) {
    return failed(`The result cannot be written as JSON: ${describe(error)}`, false)
  }
}

/** The wait in milliseconds when `returned` is exactly `{ snooze: <duration> }`. */
function snoozeOf(returned: unknown): number | undefined {
  if (typeof returned !== 'object' || returned === null) return undefined
  const { snooze } = returned as { snooze?: unknown }
  if (typeof snooze !== 'string' || Object.keys(returned).length !== 1) return undefined
  const delayMs = parseDuration(snooze)
  return delayMs === undefined ? undefined : Math.min(delayMs, LIMITS.dueAheadMs)
}

/** JSON text that Postgres takes: escapes of NUL and of lone surrogates (the only ones that JSON.stringify writes) become U+FFFD. */
function storable(json: string): string {
  if (!json.includes('\\u')) return json
  return json.replace(/\\(u0000|ud[89a-f][0-9a-f]{2}|.)/g, (sequence, what: string) =>
    what === 'u0000' || what.startsWith('ud') ? '\\ufffd' : sequence,
  )
}

function failureOf(thrown: unknown, file: string): Outcome {
  const error = describeThrown(thrown, file)
  const { retryable, retryAfter } = propertiesOf(thrown)
  if (retryable === false) return failed(error, false)
  if (retryAfter === undefined || retryAfter === null) return failed(error, true)
  const retryAfterMs = typeof retryAfter === 'string' ? parseDuration(retryAfter) : undefined
  if (retryAfterMs !== undefined) return { kind: 'failed', retryable: true, error, retryAfterMs }
  return failed(`${error} (its retryAfter ${describe(retryAfter)} is no duration such as "30s" and was ignored)`, true)
}

function propertiesOf(thrown: unknown): { retryable?: unknown; retryAfter?: unknown } {
  if (typeof thrown !== 'object' || thrown === null) return {}
  try {
    const { retryable, retryAfter } = thrown as { retryable?: unknown; retryAfter?: unknown }
    return { retryable, retryAfter }
  } catch {
    return {}
  }
}

/** `TypeError: x is not a function (orders.ts:12:5)`: the message, and where in the handler's file, without a stack. */
export function describeThrown(thrown: unknown, file: string): string {
  if (thrown === undefined || thrown === null) return `the handler threw ${thrown}`
  const text = thrown instanceof Error && thrown.name === 'Error' ? describe(thrown.message) : describe(thrown)
  const message = text === '' ? 'an error without a message' : text
  const place = placeIn(thrown, file)
  return place === undefined ? message : `${message} (${place})`
}

function placeIn(thrown: unknown, file: string): string | undefined {
  if (!(thrown instanceof Error) || typeof thrown.stack !== 'string') return undefined
  const line = thrown.stack.split('\n').find((frame) => frame.includes(file))
  const place = line?.slice(line.indexOf(file) + file.length).match(/^:\d+(:\d+)?/)
  return place ? basename(file) + place[0] : undefined
}
