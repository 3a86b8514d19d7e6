import { afterEach, describe, expect, test } from 'bun:test'
import { existsSync } from 'node:fs'
import { mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { createThreadPool } from '../../../src/execution/threads/pool.ts'
import { type Clock, realClock } from '../../../src/runtime/clock.ts'
import type { Executor } from '../../../src/task/executor.ts'
import { until } from '../../support/until.ts'
import { anExecution, callOf, handlersWith, silent, testExecutor, threadSettings } from '../executor.conformance.ts'
import { aPool, endPools, resultOf, THREAD, THREAD_ID } from '../pool-under-test.ts'

testExecutor('the thread pool', ({ handlersDir, onReport, answers }) =>
  createThreadPool({
    threads: 2,
    threadUrl: THREAD,
    workerData: threadSettings(handlersDir),
    clock: realClock,
    log: silent,
    onReport,
    answers,
  }),
)

const WAITS = `export default (_, { signal, log }) => new Promise((resolve, reject) => {
  log('started')
  signal.addEventListener('abort', () => reject(signal.reason))
})`
const LOOPS = 'export default () => { for (;;) {} }'
const LOOPS_LATER = `export default async (_, { log }) => {
  log('started')
  await new Promise((resolve) => setTimeout(resolve, 1_500))
  for (;;) {}
}`
const IGNORES = "export default (_, { log }) => { log('started'); return new Promise(() => {}) }"
const EXITS = 'export default (_, { log }) => { log("last words"); process.exit(3) }'
const REJECTS = `export default (_, { log }) => {
  log('started')
  Promise.reject(new Error('nobody caught this'))
  return new Promise(() => {})
}`

afterEach(endPools)

/** How many threads the operating system sees in this process; 0 where it does not say. */
const osThreads = async (): Promise<number> =>
  existsSync('/proc/self/task') ? (await readdir('/proc/self/task')).length : 0

describe('the thread pool makes threads', () => {
  test('none while there is no work, then as many as are busy, up to its limit', async () => {
    const { pool } = await aPool({}, { threads: 2 })
    expect(pool.stats()).toMatchObject({ threads: 0, spawned: 0 })
    await pool.run(anExecution())
    await pool.run(anExecution())
    expect(pool.stats()).toMatchObject({ threads: 1, spawned: 1 })
    const target = { type: 'noop', delay: '50ms' } as const
    await Promise.all(Array.from({ length: 10 }, () => pool.run(anExecution({ target }))))
    expect(pool.stats()).toMatchObject({ threads: 2, spawned: 2 })
  })

  test('and gives a task to the one with the least to do', async () => {
    const { pool, started } = await aPool({ id: THREAD_ID, waits: WAITS }, { threads: 2 })
    const busy = callOf('waits')
    const { outcome } = await started(busy)
    const first = await resultOf(pool.run(callOf('id')))
    expect(await resultOf(pool.run(callOf('id')))).toBe(first)
    pool.cancel(busy.id)
    expect(await outcome).toEqual({ kind: 'cancelled' })
  })

  test('and waits for one whose file takes long to load', async () => {
    const file = join(await handlersWith({}), 'thread.ts')
    await writeFile(
      file,
      `for (const end = Date.now() + 1_500; Date.now() < end; ) {}
      await import(${JSON.stringify(THREAD.href)})`,
    )
    const { pool } = await aPool({}, { threadUrl: pathToFileURL(file) })
    expect(await pool.run(anExecution())).toEqual({ kind: 'succeeded' })
    expect(pool.stats()).toMatchObject({ spawned: 1, crashed: 0 })
    await rm(join(file, '..'), { recursive: true })
  })

  test('with a wait between them, when their file is broken, and works when it is mended', async () => {
    const file = join(await handlersWith({}), 'thread.ts')
    await writeFile(file, 'throw new Error("this file is broken")')
    const { pool } = await aPool({}, { threadUrl: pathToFileURL(file) })
    const outcome = await pool.run(anExecution())
    expect(outcome).toEqual({ kind: 'lost', started: false, error: expect.stringContaining('this file is broken') })
    const begun = performance.now()
    for (let run = 0; run < 3; run++) await pool.run(anExecution())
    expect(performance.now() - begun).toBeGreaterThan(600)
    expect(pool.stats().spawned).toBe(4)
    await writeFile(file, `await import(${JSON.stringify(THREAD.href)})`)
    expect(await pool.run(anExecution())).toEqual({ kind: 'succeeded' })
    await rm(join(file, '..'), { recursive: true })
  })
})

describe('the thread pool ends a thread', () => {
  test('whose handler loops: it timed out, its neighbours are lost and say truthfully whether they had started', async () => {
    const { pool, started } = await aPool({ loops: LOOPS, waits: WAITS }, { graceMs: 1_500 })
    const neighbour = await started(callOf('waits'))
    // Its deadline passes only while the loop holds the thread: that is not its fault.
    const hindered = await started(callOf('waits', { timeoutMs: 2_600 }))
    const looping = pool.run(callOf('loops', { timeoutMs: 2_100 }))
    await until(() => pool.stats().stuck === 1, { what: 'the loop' })
    const unread = pool.run(anExecution())
    expect(await looping).toEqual({
      kind: 'failed',
      retryable: true,
      error: 'timed out after 2100ms; its thread was ended because it did not stop within 1500ms more',
    })
    const why = /^its thread was ended because task [0-9a-f-]{36} of queue default ran past its timeout$/
    expect(await neighbour.outcome).toEqual({ kind: 'lost', started: true, error: expect.stringMatching(why) })
    expect(await hindered.outcome).toMatchObject({ kind: 'lost', started: true })
    expect(await unread).toEqual({ kind: 'lost', started: false, error: expect.stringMatching(why) })
    expect(await pool.run(anExecution())).toEqual({ kind: 'succeeded' })
    expect(pool.stats()).toMatchObject({ spawned: 2, crashed: 0 })
  })

  test('whose handler loops after an await', async () => {
    const { started } = await aPool({ loops: LOOPS_LATER, waits: WAITS })
    const neighbour = await started(callOf('waits'))
    const looping = await started(callOf('loops', { timeoutMs: 2_500 }))
    expect(await looping.outcome).toMatchObject({
      kind: 'failed',
      retryable: true,
      error: expect.stringMatching(/^timed out/),
    })
    expect(await neighbour.outcome).toMatchObject({ kind: 'lost', started: true })
  })

  test('for the loop in it, not for the neighbours that it kept from ending', async () => {
    const { pool, started } = await aPool({ loops: LOOPS, waits: WAITS }, { graceMs: 4_000 })
    const hindered = await started(callOf('waits', { timeoutMs: 3_000 }))
    const looping = pool.run(callOf('loops', { timeoutMs: 1_000 }))
    expect(await looping).toMatchObject({ kind: 'failed', error: expect.stringMatching(/^timed out after 1s/) })
    expect(await hindered.outcome).toMatchObject({ kind: 'lost', started: true })
  })

  test('when a task ignores its signal, and calls only tasks past their own deadline timed out', async () => {
    const { pool, started } = await aPool({ ignores: IGNORES, waits: WAITS })
    const neighbour = await started(callOf('waits'))
    const ignoring = await started(callOf('ignores', { timeoutMs: 1_000 }))
    expect(await ignoring.outcome).toMatchObject({ kind: 'failed', retryable: true })
    expect(await neighbour.outcome).toMatchObject({ kind: 'lost', started: true })
    expect(await pool.run(anExecution())).toEqual({ kind: 'succeeded' })
  })

  test('when a cancelled task ignores its signal until its timeout', async () => {
    const { pool, started } = await aPool({ ignores: IGNORES })
    const execution = callOf('ignores', { timeoutMs: 1_500 })
    const { outcome } = await started(execution)
    pool.cancel(execution.id)
    expect(await outcome).toMatchObject({ kind: 'cancelled', error: expect.stringMatching(/^timed out after 1500ms/) })
  })

  test('that stands still because of what an earlier task left behind', async () => {
    const leaves = `import { writeFileSync } from 'node:fs'
      export default (mark) => { setTimeout(() => { writeFileSync(mark, ''); for (;;) {} }, 0) }`
    const { pool, dir } = await aPool({ leaves })
    const mark = join(dir, 'looping.txt')
    await pool.run(callOf('leaves', { payload: JSON.stringify(mark) }))
    await until(() => existsSync(mark), { what: 'the loop' })
    const error = 'its thread stood still before the task was started'
    expect(await pool.run(anExecution())).toEqual({ kind: 'lost', started: false, error })
    expect(await pool.run(anExecution())).toEqual({ kind: 'succeeded' })
  })

  test('but none for time in which the whole process slept', async () => {
    let sleptMs = 0
    const clock: Clock = { now: () => realClock.now() + sleptMs, after: realClock.after }
    const { pool, started } = await aPool({ waits: WAITS }, { clock })
    const execution = callOf('waits')
    const { outcome } = await started(execution)
    const begun = realClock.now()
    // The deadline is set by the first look after the start.
    await until(() => realClock.now() > begun + 600)
    sleptMs = 3_600_000
    await until(() => realClock.now() > begun + 1_500)
    pool.cancel(execution.id)
    expect(await outcome).toEqual({ kind: 'cancelled' })
    expect(pool.stats()).toMatchObject({ spawned: 1, crashed: 0 })
  })

  test('and goes on without it, when it is inside a system call that cannot be ended', async () => {
    const sleeps = `import { execSync } from 'node:child_process'
      export default () => execSync('sleep 8')`
    const { pool } = await aPool({ sleeps })
    const begun = performance.now()
    const outcome = await pool.run(callOf('sleeps', { timeoutMs: 100 }))
    expect(outcome).toMatchObject({ kind: 'failed', retryable: true, error: expect.stringMatching(/^timed out/) })
    expect(performance.now() - begun).toBeLessThan(7_000)
    expect(await pool.run(anExecution())).toEqual({ kind: 'succeeded' })
  })

  test('and gives new tasks to the others while one stands still', async () => {
    const { pool } = await aPool({ loops: LOOPS }, { threads: 2, graceMs: 5_000 })
    const looping = pool.run(callOf('loops', { timeoutMs: 1_000 }))
    await until(() => pool.stats().stuck === 1, { what: 'a thread that stands still' })
    const target = { type: 'noop', delay: '20ms' } as const
    const outcomes = await Promise.all(Array.from({ length: 20 }, () => pool.run(anExecution({ target }))))
    for (const outcome of outcomes) expect(outcome).toEqual({ kind: 'succeeded' })
    expect(pool.stats()).toMatchObject({ threads: 2, stuck: 1, running: 1 })
    expect(await looping).toMatchObject({ kind: 'failed' })
  })
})

describe('the thread pool survives', () => {
  test('process.exit in a handler: the tasks of its thread are lost, the next one runs', async () => {
    const { pool, started, reports } = await aPool({ exits: EXITS, waits: WAITS })
    const neighbour = await started(callOf('waits'))
    const error = 'its thread exited with code 3 (was process.exit called?)'
    expect(await pool.run(callOf('exits'))).toEqual({ kind: 'lost', started: true, error })
    expect(await neighbour.outcome).toEqual({ kind: 'lost', started: true, error })
    expect(reports.flatMap(({ lines }) => lines)).toContain('last words')
    expect(await pool.run(anExecution())).toEqual({ kind: 'succeeded' })
    expect(pool.stats()).toMatchObject({ spawned: 2, crashed: 1 })
  })

  test('an unhandled rejection, and names it', async () => {
    const { pool } = await aPool({ rejects: REJECTS })
    const error = 'its thread crashed: nobody caught this'
    expect(await pool.run(callOf('rejects'))).toEqual({ kind: 'lost', started: true, error })
    expect(await pool.run(anExecution())).toEqual({ kind: 'succeeded' })
  })

  test('a crash in the turn in which another task ended, and knows that it ended', async () => {
    const { pool } = await aPool({ exits: EXITS, quick: 'export default () => "done"' })
    await pool.run(callOf('quick'))
    const [quick, exits] = await Promise.all([pool.run(callOf('quick')), pool.run(callOf('exits'))])
    expect(quick).toEqual({ kind: 'succeeded', result: '"done"' })
    expect(exits).toMatchObject({ kind: 'lost', started: true })
  })

  test('200 crashes without a leak of threads or memory', async () => {
    const { pool } = await aPool({ exits: EXITS, rejects: REJECTS })
    const crash = async (times: number) => {
      for (let run = 0; run < times; run++) {
        const outcome = await pool.run(callOf(run % 2 === 0 ? 'exits' : 'rejects'))
        expect(outcome).toMatchObject({ kind: 'lost', started: true })
      }
    }
    await crash(20)
    const before = { bytes: process.memoryUsage.rss(), threads: await osThreads() }
    await crash(180)
    expect(pool.stats()).toMatchObject({ threads: 0, running: 0, spawned: 200, crashed: 200 })
    expect((process.memoryUsage.rss() - before.bytes) / 2 ** 20).toBeLessThan(100)
    await until(async () => (await osThreads()) < before.threads + 10, { what: 'the end of the threads' })
  }, 180_000)
})

describe('the thread pool gives a task that runs alone', () => {
  test('a thread of its own, which ends with it', async () => {
    const { pool } = await aPool({ id: THREAD_ID, exits: EXITS, waits: WAITS })
    const neighbour = callOf('waits')
    const waiting = pool.run(neighbour)
    expect(await pool.run(callOf('exits', { alone: true }))).toMatchObject({ kind: 'lost', started: true })
    const ids = new Set(await Promise.all([1, 2, 3].map(() => resultOf(pool.run(callOf('id', { alone: true }))))))
    ids.add(await resultOf(pool.run(callOf('id'))))
    expect(ids.size).toBe(4)
    await until(() => pool.stats().alone === 0, { what: 'the end of the extra threads' })
    pool.cancel(neighbour.id)
    expect(await waiting).toEqual({ kind: 'cancelled' })
  })

  test('in at most two extra threads at a time; the others wait and can be cancelled', async () => {
    const { pool } = await aPool({ waits: WAITS })
    const executions = Array.from({ length: 5 }, () => callOf('waits', { alone: true }))
    const runs = executions.map((execution) => pool.run(execution))
    expect(pool.stats()).toMatchObject({ threads: 0, alone: 2, waiting: 3 })
    for (const { id } of executions) pool.cancel(id)
    for (const run of runs) expect(await run).toEqual({ kind: 'cancelled' })
  })
})

describe('the thread pool follows the handlers', () => {
  const version = (n: number) => `export default () => ${n}`

  async function untilResult(pool: Executor, name: string, result: unknown): Promise<void> {
    await until(async () => {
      const outcome = await pool.run(callOf(name))
      return outcome.kind === 'succeeded' && outcome.result === JSON.stringify(result)
    })
  }

  test('when one is changed: new tasks run the new code, old ones finish theirs', async () => {
    const { pool, dir, started } = await aPool({ code: version(1), waits: WAITS })
    const old = callOf('waits')
    const { outcome } = await started(old)
    expect(await resultOf(pool.run(callOf('code')))).toBe(1)
    await writeFile(join(dir, 'code.ts'), version(2))
    await untilResult(pool, 'code', 2)
    expect(pool.stats()).toMatchObject({ threads: 1, retiring: 1 })
    pool.cancel(old.id)
    expect(await outcome).toEqual({ kind: 'cancelled' })
    await until(() => pool.stats().retiring === 0, { what: 'the end of the old thread' })
  })

  test('when a file that one imports from a subfolder is changed', async () => {
    const { pool, dir } = await aPool({})
    await mkdir(join(dir, 'lib'))
    await writeFile(join(dir, 'lib', 'n.ts'), 'export const n = 1')
    await writeFile(join(dir, 'code.ts'), 'import { n } from "./lib/n.ts"; export default () => n')
    await untilResult(pool, 'code', 1)
    await until(async () => {
      await writeFile(join(dir, 'lib', 'n.ts'), 'export const n = 2')
      const outcome = await pool.run(callOf('code'))
      return outcome.kind === 'succeeded' && outcome.result === '2'
    })
  })

  test('when a broken one is mended', async () => {
    const { pool, dir } = await aPool({ code: 'export default ( => 1' })
    expect(await pool.run(callOf('code'))).toMatchObject({
      kind: 'failed',
      retryable: true,
      error: expect.stringMatching(/^Cannot load .*code\.ts: /),
    })
    await writeFile(join(dir, 'code.ts'), version(3))
    await untilResult(pool, 'code', 3)
  })

  test('when their folder appears later, and is replaced', async () => {
    const { pool, dir } = await aPool({})
    await rm(dir, { recursive: true })
    expect(await pool.run(callOf('code'))).toMatchObject({ kind: 'failed', retryable: false })
    await mkdir(dir)
    await writeFile(join(dir, 'code.ts'), version(1))
    await untilResult(pool, 'code', 1)
    const next = await handlersWith({ code: version(2) })
    await rename(dir, `${dir}.old`)
    await rename(next, dir)
    await untilResult(pool, 'code', 2)
    await rm(`${dir}.old`, { recursive: true })
  })

  test('but keeps threads that hold none of their code, and those of files that are no code', async () => {
    const { pool, dir } = await aPool({ code: version(1) })
    await resultOf(pool.run(callOf('code')))
    await writeFile(join(dir, 'notes.txt'), 'a handler wrote this')
    await writeFile(join(dir, 'other.ts'), version(1))
    await until(async () => {
      await pool.run(anExecution())
      return pool.stats().spawned === 2
    })
    await writeFile(join(dir, 'other.ts'), version(2))
    await untilResult(pool, 'other', 2)
    expect(pool.stats().spawned).toBe(2)
  })
})
