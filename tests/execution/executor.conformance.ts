import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Answerer } from '../../src/execution/answers.ts'
import { createLog } from '../../src/runtime/log.ts'
import type { Asker, Question } from '../../src/task/attempt/question.ts'
import type { ThreadSettings } from '../../src/task/attempt/thread-messages.ts'
import type { Execution, Executor, Report } from '../../src/task/executor.ts'
import { LIMITS } from '../../src/task/limits.ts'
import { until } from '../support/until.ts'

export const silent = createLog('silent')

/** A thread's settings with handlers from `handlersDir`, files into a folder beside it, and no tables. */
export function threadSettings(handlersDir: string, over: Partial<ThreadSettings> = {}): ThreadSettings {
  return { handlersDir, egress: { allow: [], allowPrivate: true }, outDir: `${handlersDir}.out`, tables: null, ...over }
}

/** Answers nothing: for targets that ask nothing. */
export const NO_ANSWERS: Pick<Answerer, 'answer' | 'gone'> = {
  answer: (_holder, _asker, { kind }) => Promise.reject(new Error(`Nobody answers "${kind}" here`)),
  gone() {},
}

let made = 0

/** An attempt of a new task; by default at a noop. */
export function anExecution(over: Partial<Execution> = {}): Execution {
  made++
  return {
    id: `00000000-0000-7000-8000-${String(made).padStart(12, '0')}`,
    queue: 'default',
    type: null,
    attempt: 1,
    payload: '{}',
    target: { type: 'noop' },
    timeoutMs: 30_000,
    priority: 0,
    createdAt: '2026-01-02T03:04:05.006Z',
    parentId: null,
    origin: 'api',
    alone: false,
    ...over,
  }
}

/** An attempt at the handler `name`. */
export function callOf(name: string, over: Partial<Execution> = {}): Execution {
  return anExecution({ target: { type: 'handler', name }, ...over })
}

/** A folder with handlers; each value is the text of `<name>.ts`. */
export async function handlersWith(files: Record<string, string>): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'longshore-handlers-'))
  for (const [name, text] of Object.entries(files)) await writeFile(join(dir, `${name}.ts`), text)
  return dir
}

const HANDLERS = {
  echo: 'export default async (payload, { task }) => ({ payload, task })',
  nothing: 'export default () => {}',
  throws: 'export default async () => { throw new Error("the till is closed") }',
  text: 'export default () => { throw "just text" }',
  void: 'export default () => { throw undefined }',
  hostile: 'export default () => { throw { toString() { throw 1 }, toJSON() { throw 2 } } }',
  large: 'export default (payload) => "x".repeat(payload)',
  bigint: 'export default () => 1n',
  odd: 'export default () => ["a\\0b", "\\ud800", "\\\\u0000", "\\u{1f600}"]',
  waits: `export default (_, { signal, log }) => new Promise((resolve, reject) => {
    log('started')
    signal.addEventListener('abort', () => reject(signal.reason))
  })`,
  late: `export default (_, { signal, log }) => new Promise((resolve) => {
    log('started')
    signal.addEventListener('abort', () => resolve(signal.reason.name))
  })`,
  tells: `export default async (payload, { log, progress }) => {
    for (let i = 1; i <= payload; i++) { log('line ' + i); progress({ done: i, total: payload, message: 'at ' + i }) }
  }`,
  rambles: `export default async (_, { log, progress }) => {
    log('x'.repeat(5000)); log('a\\0b\\ud800'); log({ a: 1 }); progress('half'); progress({ done: 0 / 0 })
  }`,
}

/** An attempt to publish under a routing key. */
export function publishing(routingKey: string, over: Partial<Execution> = {}): Execution {
  return anExecution({ target: { type: 'publish', routingKey }, ...over })
}

/** What every executor promises. `make` gets a folder of handlers, where reports go, and who answers. */
export function testExecutor(
  name: string,
  make: (deps: {
    handlersDir: string
    onReport: (reports: Report[]) => void
    answers: Pick<Answerer, 'answer' | 'gone'>
  }) => Executor,
): void {
  describe(`${name}, as every executor,`, () => {
    let handlersDir: string
    let executor: Executor
    let events: (Report | string)[]
    let asked: { asker: Asker; question: Question }[]
    let answer: Answerer['answer']

    beforeEach(async () => {
      handlersDir = await handlersWith(HANDLERS)
      events = []
      asked = []
      answer = NO_ANSWERS.answer
      executor = make({
        handlersDir,
        onReport: (reports) => events.push(...reports),
        answers: {
          ...NO_ANSWERS,
          answer(holder, asker, question) {
            asked.push({ asker, question })
            return answer(holder, asker, question)
          },
        },
      })
    })

    afterEach(async () => {
      await executor.close()
      await rm(handlersDir, { recursive: true })
    })

    const reports = () => events.filter((event) => typeof event !== 'string')
    const isTold = (line: string) => () => reports().some((report) => report.lines.includes(line))

    test('runs a noop', async () => {
      expect(await executor.run(anExecution())).toEqual({ kind: 'succeeded' })
    })

    test('runs many tasks at a time and gives each its own outcome', async () => {
      const runs = Array.from({ length: 500 }, (_, n) => executor.run(callOf('echo', { payload: String(n) })))
      const outcomes = await Promise.all(runs)
      const payloads = outcomes.map((outcome) =>
        outcome.kind === 'succeeded' ? JSON.parse(outcome.result ?? '').payload : outcome,
      )
      expect(payloads).toEqual(Array.from({ length: 500 }, (_, n) => n))
    })

    test('runs long tasks side by side in one thread', async () => {
      const begun = performance.now()
      const target = { type: 'noop', delay: '300ms' } as const
      await Promise.all(Array.from({ length: 50 }, () => executor.run(anExecution({ target }))))
      // One after another they take 15 s, in two threads 7.5 s.
      expect(performance.now() - begun).toBeLessThan(6_000)
    })

    test('hands a handler its payload and its task, and takes its result', async () => {
      const parentId = '00000000-0000-7000-8000-00000000ffff'
      const execution = callOf('echo', {
        payload: '{"b":1,"a":[null,1.5]}',
        type: 'order',
        attempt: 3,
        priority: 7,
        parentId,
      })
      const outcome = await executor.run(execution)
      expect(outcome.kind).toBe('succeeded')
      expect(outcome).toHaveProperty('result')
      expect(JSON.parse('result' in outcome ? (outcome.result ?? '') : '')).toEqual({
        payload: { b: 1, a: [null, 1.5] },
        task: {
          id: execution.id,
          queue: 'default',
          type: 'order',
          attempt: 3,
          createdAt: '2026-01-02T03:04:05.006Z',
          parentId,
          origin: 'api',
          priority: 7,
          traceparent: null,
        },
      })
    })

    test('takes a handler that returns nothing for null', async () => {
      expect(await executor.run(callOf('nothing'))).toEqual({ kind: 'succeeded', result: 'null' })
    })

    test('names what a handler throws and where, whatever it throws', async () => {
      expect(await executor.run(callOf('throws'))).toEqual({
        kind: 'failed',
        retryable: true,
        error: expect.stringMatching(/^the till is closed \(throws\.ts:1:\d+\)$/),
      })
      expect(await executor.run(callOf('text'))).toEqual({ kind: 'failed', retryable: true, error: 'just text' })
      expect(await executor.run(callOf('void'))).toEqual({
        kind: 'failed',
        retryable: true,
        error: 'the handler threw undefined',
      })
      expect(await executor.run(callOf('hostile'))).toMatchObject({ kind: 'failed', retryable: true })
    })

    test('fails a result that is too large or no JSON for good, because the work was done', async () => {
      expect(await executor.run(callOf('large', { payload: String(LIMITS.resultBytes - 2) }))).toMatchObject({
        kind: 'succeeded',
      })
      expect(await executor.run(callOf('large', { payload: String(LIMITS.resultBytes - 1) }))).toEqual({
        kind: 'failed',
        retryable: false,
        error: expect.stringMatching(/^The result has 65537 bytes; at most 65536 are kept/),
      })
      expect(await executor.run(callOf('bigint'))).toMatchObject({
        kind: 'failed',
        retryable: false,
        error: expect.stringMatching(/^The result cannot be written as JSON: /),
      })
    })

    test('cleans a result of what Postgres does not take, and of nothing else', async () => {
      const outcome = await executor.run(callOf('odd'))
      expect(outcome).toEqual({ kind: 'succeeded', result: '["a\\ufffdb","\\ufffd","\\\\u0000","\u{1f600}"]' })
    })

    test('aborts a task at its timeout and says after how long', async () => {
      const outcome = await executor.run(callOf('waits', { timeoutMs: 150 }))
      expect(outcome).toEqual({ kind: 'failed', retryable: true, error: 'timed out after 150ms' })
      const noop = await executor.run(anExecution({ target: { type: 'noop', delay: '1h' }, timeoutMs: 100 }))
      expect(noop).toEqual({ kind: 'failed', retryable: true, error: 'timed out after 100ms' })
    })

    test('times each task by its own timeout', async () => {
      // In threads of their own, one of which may be up later than the other.
      const long = executor.run(callOf('waits', { timeoutMs: 2_500 }))
      const short = executor.run(callOf('waits', { timeoutMs: 100 }))
      expect(await Promise.race([long, short])).toMatchObject({ error: 'timed out after 100ms' })
      expect(await long).toMatchObject({ error: 'timed out after 2500ms' })
    })

    test('takes a success that comes after the timeout, for its work is done', async () => {
      expect(await executor.run(callOf('late', { timeoutMs: 1_500 }))).toEqual({
        kind: 'succeeded',
        result: '"TimeoutError"',
      })
    })

    test('cancels a running task by its signal, and no other', async () => {
      const execution = callOf('waits')
      const other = executor.run(anExecution({ target: { type: 'noop', delay: '300ms' } }))
      const run = executor.run(execution)
      await until(isTold('started'), { what: 'the start' })
      executor.cancel(execution.id)
      executor.cancel('00000000-0000-7000-8000-00000000dead')
      expect(await run).toEqual({ kind: 'cancelled' })
      expect(await other).toEqual({ kind: 'succeeded' })
    })

    test('keeps a success that a cancelled task still reached', async () => {
      const execution = callOf('late')
      const run = executor.run(execution)
      await until(isTold('started'), { what: 'the start' })
      executor.cancel(execution.id)
      expect(await run).toEqual({ kind: 'succeeded', result: '"AbortError"' })
    })

    test('reports progress and lines before the outcome, in order and bounded', async () => {
      const execution = callOf('tells', { payload: '3', attempt: 2 })
      await executor.run(execution).then(() => events.push('outcome'))
      expect(events.at(-1)).toBe('outcome')
      expect(reports().flatMap((report) => report.lines)).toEqual(['line 1', 'line 2', 'line 3'])
      expect(reports().at(-1)).toMatchObject({
        id: execution.id,
        attempt: 2,
        progress: { done: 3, total: 3, message: 'at 3' },
      })

      events = []
      await executor.run(callOf('tells', { payload: '1000' }))
      for (const { lines } of reports()) expect(lines.length).toBeLessThanOrEqual(LIMITS.logLines)
      expect(reports().at(-1)?.lines.at(-1)).toBe('line 1000')
      expect(reports()[0]?.lines[0]).toBe('[901 lines dropped]')
    })

    test('reports while a task runs', async () => {
      const execution = callOf('waits')
      const run = executor.run(execution)
      await until(isTold('started'), { what: 'a report before the outcome' })
      executor.cancel(execution.id)
      await run
    })

    test('makes odd lines legible and says that odd progress was ignored', async () => {
      await executor.run(callOf('rambles'))
      const lines = reports().flatMap((report) => report.lines)
      expect(lines[0]).toHaveLength(LIMITS.logLineBytes)
      expect(lines[0]).toEndWith('x [cut]')
      expect(lines.slice(1, 3)).toEqual(['a\uFFFDb\uFFFD', '{"a":1}'])
      expect(lines.slice(3).map((line) => line.slice(0, 16))).toEqual(['progress ignored', 'progress ignored'])
    })

    test('asks for an attempt, and brings it the answer', async () => {
      answer = async () => 'confirmed'
      const execution = publishing('mails', { attempt: 3, payload: '{"n": 1.10}' })
      expect(await executor.run(execution)).toEqual({ kind: 'succeeded' })
      expect(asked).toEqual([
        {
          asker: { id: execution.id, attempt: 3 },
          question: expect.objectContaining({ kind: 'publish', routingKey: 'mails', body: '{"n": 1.10}' }),
        },
      ])
    })

    test('brings each of many answers to the attempt that asked, in whatever order they come', async () => {
      const open: (() => void)[] = []
      answer = (_holder, _asker, question) =>
        new Promise((resolve) => {
          const even = question.kind === 'publish' && Number(question.routingKey) % 2 === 0
          open.push(() => resolve(even ? 'confirmed' : 'unroutable'))
          if (open.length === 500) for (const give of open.reverse()) give()
        })
      const runs = Array.from({ length: 500 }, (_, n) => executor.run(publishing(String(n))))
      const kinds = (await Promise.all(runs)).map(({ kind }) => kind)
      expect(kinds).toEqual(Array.from({ length: 500 }, (_, n) => (n % 2 === 0 ? 'succeeded' : 'failed')))
    })

    test('tells a target that there is no answer', async () => {
      const error = 'Cannot publish: Nobody answers "publish" here'
      expect(await executor.run(publishing('mails'))).toEqual({ kind: 'failed', retryable: true, error })
    })

    test('ends an attempt that is aborted while its question is open', async () => {
      answer = () => new Promise(() => {})
      const timedOut = executor.run(publishing('mails', { timeoutMs: 100 }))
      expect(await timedOut).toEqual({ kind: 'failed', retryable: true, error: 'timed out after 100ms' })
      const execution = publishing('mails')
      const cancelled = executor.run(execution)
      await until(() => asked.some(({ asker }) => asker?.id === execution.id), { what: 'the question' })
      executor.cancel(execution.id)
      expect(await cancelled).toEqual({ kind: 'cancelled' })
    })

    test('gives what still runs at its close as lost, and starts nothing after it', async () => {
      const run = executor.run(callOf('waits'))
      await until(isTold('started'), { what: 'the start' })
      await executor.close()
      expect(await run).toMatchObject({ kind: 'lost', started: true })
      expect(await executor.run(anExecution())).toMatchObject({ kind: 'lost', started: false })
    })
  })
}
