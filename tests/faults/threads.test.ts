import { expect, test } from 'bun:test'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { install, makeQueue, reached, read, submit } from '../e2e/installation.ts'
import { ENGINES, type Engine } from '../support/database.ts'
import { until } from '../support/until.ts'

const NEIGHBOURS = 3

/** Runs until its attempt is aborted or its thread ends; the next attempt succeeds at once. */
const NEIGHBOUR = `export default async (_, { task, signal, log }) => {
  if (task.attempt > 1) return 'done'
  log('started')
  await new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
}`

interface Crime {
  name: string
  /** The guilty handler. */
  code: string
  /** What its task tells in the end. */
  error: RegExp
  /** What each of its attempts ended as. */
  outcomes: string[]
  /** Of its task; by default the consumer's. */
  timeout?: string
}

const TIMED_OUT = { error: /timed out after 1s; its thread was ended/, outcomes: ['failed'], timeout: '1s' }
const CRASHED = { outcomes: ['lost', 'lost', 'lost', 'lost', 'lost'] }
const CRIMES: Crime[] = [
  { name: 'loops without end', code: 'export default () => { for (;;) {} }', ...TIMED_OUT },
  { name: 'hangs and ignores its signal', code: 'export default () => new Promise(() => {})', ...TIMED_OUT },
  {
    name: 'calls process.exit',
    code: 'export default () => process.exit(3)',
    error: /lost 5 times in a row: .*process\.exit/,
    ...CRASHED,
  },
  {
    name: 'throws in a timer',
    code: `export default () => new Promise(() => setTimeout(() => { throw new Error('too late to catch') }, 50))`,
    error: /lost 5 times in a row: .*too late to catch/,
    ...CRASHED,
  },
]

for (const { name, code, error, outcomes, timeout } of CRIMES) {
  test.concurrent(`a handler that ${name} fails alone: its neighbours in the thread are lost without a failure and then succeed, and the node goes on`, async () => {
    await using home = await install(ENGINES.at(-1) as Engine)
    // Before the start: a change of the files would give the guilty one another thread.
    const handlers = { neighbour: NEIGHBOUR, guilty: code, innocent: 'export default () => "well"' }
    for (const [file, text] of Object.entries(handlers))
      await writeFile(join(home.path, 'handlers', `${file}.ts`), text)
    // One thread: whoever runs at the same time is a neighbour.
    const node = await home.start({ WORKER_THREADS: '1' })
    await makeQueue(node, 'work', { maxAttempts: 1 })
    const work = (handler: string) => ({ queue: 'work', payload: 1, target: { type: 'handler', name: handler } })

    const neighbours = await Promise.all(Array.from({ length: NEIGHBOURS }, () => submit(node, work('neighbour'))))
    await until(
      async () => (await Promise.all(neighbours.map((id) => read(node, id)))).every((task) => task.logs.length > 0),
      { what: 'the neighbours to have started', timeoutMs: 30_000 },
    )
    const guilty = await submit(node, { ...work('guilty'), ...(timeout && { timeout }) })

    const ended = await reached(node, guilty, ['succeeded', 'dead', 'cancelled'], 60_000)
    expect(ended).toMatchObject({ status: 'dead', failures: outcomes.includes('failed') ? 1 : 0 })
    expect(ended.attempts.map(({ outcome }) => outcome)).toEqual(outcomes)
    expect(ended.error).toMatch(error)
    for (const id of neighbours) {
      const neighbour = await reached(node, id)
      expect(neighbour).toMatchObject({ status: 'succeeded', failures: 0, result: 'done' })
      expect(new Set(neighbour.attempts.slice(0, -1).map(({ outcome }) => outcome))).toEqual(new Set(['lost']))
    }
    // The thread is replaced.
    expect(await reached(node, await submit(node, work('innocent')))).toMatchObject({ result: 'well' })
    await node.stop()
  }, 150_000)
}
