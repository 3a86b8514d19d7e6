import { afterEach, describe, expect, test } from 'bun:test'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Answerer } from '../../src/execution/answers.ts'
import { until } from '../support/until.ts'
import { anExecution, callOf, NO_ANSWERS, publishing } from './executor.conformance.ts'
import { aPool, endPools, resultOf, THREAD_ID } from './pool-under-test.ts'

afterEach(endPools)

const WAITS = `export default (_, { signal, log }) => new Promise((resolve, reject) => {
  log('started')
  signal.addEventListener('abort', () => reject(signal.reason))
})`
const EXITS = 'export default () => process.exit(3)'
const LOOPS = 'export default () => { for (;;) {} }'
/** Says when it begins and when it ends, and whose code it is. */
const STAYS = `import { threadId } from 'node:worker_threads'
export default async (ms, { log }) => {
  log('begin ' + threadId)
  await new Promise((resolve) => setTimeout(resolve, ms))
  log('end ' + threadId)
  return threadId
}`

describe('runs with the same affinity', () => {
  test('go to one thread, however busy it is, and those with another one to another thread', async () => {
    const { pool } = await aPool({ id: THREAD_ID }, { threads: 2 })
    const run = (affinity: string | null) => resultOf(pool.run(callOf('id', { affinity, payload: '20' })))
    const ids = await Promise.all(Array.from({ length: 60 }, (_, n) => run(['a', 'b', null][n % 3] ?? null)))
    const threadsOf = (rest: number) => [...new Set(ids.filter((_, n) => n % 3 === rest))]
    const [a, b] = [threadsOf(0), threadsOf(1)]
    expect([a.length, b.length]).toEqual([1, 1])
    expect(b).not.toEqual(a)
    // They keep it while others come and go, and no handler of others is in it.
    expect(await run('a')).toBe(a[0])
    expect(threadsOf(2)).not.toContain(a[0])
    expect(pool.stats()).toMatchObject({ threads: 2, lanes: 2 })
  })

  test('share threads when there are more affinities than threads', async () => {
    const { pool } = await aPool({ id: THREAD_ID }, { threads: 2 })
    const run = (n: number) => resultOf(pool.run(callOf('id', { affinity: `lane ${n}`, payload: '10' })))
    const first = await Promise.all(Array.from({ length: 10 }, (_, n) => run(n)))
    expect(new Set(first).size).toBe(2)
    expect(await Promise.all(Array.from({ length: 10 }, (_, n) => run(n)))).toEqual(first)
  })

  test('get another thread when theirs has crashed', async () => {
    const { pool } = await aPool({ id: THREAD_ID, exits: EXITS })
    const before = await resultOf(pool.run(callOf('id', { affinity: 'a' })))
    expect(await pool.run(callOf('exits', { affinity: 'a' }))).toMatchObject({ kind: 'lost', started: true })
    expect(await resultOf(pool.run(callOf('id', { affinity: 'a' })))).not.toBe(before)
  })

  test('wait until a thread that is being ended has ended', async () => {
    const gone: number[] = []
    const answers = { ...NO_ANSWERS, gone: (holder: number) => void gone.push(holder) }
    const { pool } = await aPool({ id: THREAD_ID, loops: LOOPS }, { answers })
    const looping = pool.run(callOf('loops', { affinity: 'a', timeoutMs: 1_000 }))
    const goneBefore = () => pool.run(callOf('id', { affinity: 'a' })).then(({ kind }) => [kind, gone.length])
    let isOver = false
    void looping.then(() => (isOver = true))
    // Given to the thread before it was being ended, or while it is: then it waits for the next one.
    const early: ReturnType<typeof goneBefore>[] = []
    while (!isOver) {
      early.push(goneBefore())
      await new Promise((resolve) => setTimeout(resolve, 1))
    }
    expect(await looping).toMatchObject({ kind: 'failed', error: expect.stringMatching(/^timed out/) })
    for (const end of await Promise.all([...early, goneBefore()])) expect(end[1]).toBe(1)
    expect((await goneBefore())[0]).toBe('succeeded')
  })

  test('stay in their thread when the handlers of others change', async () => {
    const { pool, dir } = await aPool({ code: 'export default () => 1' })
    await pool.run(anExecution({ affinity: 'a' }))
    expect(await resultOf(pool.run(callOf('code')))).toBe(1)
    await writeFile(join(dir, 'code.ts'), 'export default () => 2')
    await until(async () => (await resultOf(pool.run(callOf('code')))) === 2, { what: 'the new code' })
    const { spawned } = pool.stats()
    await pool.run(anExecution({ affinity: 'a' }))
    expect(pool.stats()).toMatchObject({ spawned, lanes: 1, threads: 1 })
  })
})

describe('a run that has an affinity and runs alone', () => {
  test('has a thread to itself, and no other of its affinity runs beside it', async () => {
    const { pool, reports } = await aPool({ stays: STAYS }, { threads: 2 })
    const run = (alone: boolean) => resultOf(pool.run(callOf('stays', { affinity: 'a', alone, payload: '60' })))
    const ids = await Promise.all([run(false), run(false), run(true), run(false), run(true), run(false)])
    const lines = reports.flatMap((report) => report.lines)
    for (const alone of [ids[2], ids[4]]) {
      const begin = lines.indexOf(`begin ${alone}`)
      expect(lines[begin + 1]).toBe(`end ${alone}`)
    }
    expect([ids[1], ids[3], ids[5]]).toEqual([ids[0], ids[0], ids[0]])
    expect(new Set(ids).size).toBe(3)
  })

  test('can be cancelled while it waits, and then holds up nobody', async () => {
    const { pool, started } = await aPool({ waits: WAITS, id: THREAD_ID })
    const first = callOf('waits', { affinity: 'a' })
    const { outcome } = await started(first)
    const alone = callOf('waits', { affinity: 'a', alone: true })
    const waiting = pool.run(alone)
    const behind = pool.run(callOf('id', { affinity: 'a' }))
    expect(pool.stats()).toMatchObject({ waiting: 2, running: 1 })
    pool.cancel(alone.id)
    expect(await waiting).toEqual({ kind: 'cancelled' })
    pool.cancel(first.id)
    expect(await outcome).toEqual({ kind: 'cancelled' })
    expect(await behind).toMatchObject({ kind: 'succeeded' })
  })
})

describe('a thread that dies with open questions', () => {
  test('loses its runs to another attempt, and late answers harm nobody', async () => {
    const open: ((end: 'confirmed') => void)[] = []
    const gone: number[] = []
    const answer: Answerer['answer'] = (holder) =>
      new Promise((resolve) => {
        open.push(resolve)
        expect(holder).toBe(open.length)
      })
    const answers = { answer, gone: (holder: number) => void gone.push(holder) }
    const { pool } = await aPool({ exits: EXITS }, { answers })
    const asking = pool.run(publishing('mails'))
    await until(() => open.length === 1, { what: 'the question' })
    expect(await pool.run(callOf('exits'))).toMatchObject({ kind: 'lost', started: true })
    expect(await asking).toMatchObject({ kind: 'lost', started: true })
    await until(() => gone.length === 1, { what: 'the news of its end' })

    const again = pool.run(publishing('mails'))
    await until(() => open.length === 2, { what: 'the question of the next attempt' })
    open[0]?.('confirmed')
    open[1]?.('confirmed')
    expect(await again).toEqual({ kind: 'succeeded' })
  })
})
