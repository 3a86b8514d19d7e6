import { expect, test } from 'bun:test'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { createAnswers } from '../../src/execution/answers.ts'
import { createThreadPool } from '../../src/execution/threads/pool.ts'
import { realClock } from '../../src/runtime/clock.ts'
import type { Execution } from '../../src/task/executor.ts'
import { affinityOf, type CsvTarget } from '../../src/task/target/target.ts'
import { callOf, handlersWith, silent, threadSettings } from '../execution/executor.conformance.ts'
import { THREAD } from '../execution/pool-under-test.ts'
import { SEED, seeded } from '../faults/seed.ts'
import { csvExecution, csvUnderTest, namesLedger } from './csv-under-test.ts'

const KILLS = 30

/** Every line of every part, without the headers; each part must begin with one and end with a whole line. */
async function linesIn(outDir: string, header: string): Promise<string[]> {
  const lines: string[] = []
  for (const name of await readdir(outDir)) {
    if (!name.endsWith('.csv')) continue
    const [first, ...rest] = (await readFile(join(outDir, name), 'utf8')).split('\r\n')
    expect([name, first]).toEqual([name, header])
    expect(rest.pop()).toBe('')
    lines.push(...rest)
  }
  return lines
}

test.each<[string, Partial<CsvTarget>]>([
  ['one file', {}],
  ['files of 4 KB', { rotate: { size: 4_096 } }],
])(
  `${KILLS} kill -9 while %s is written: each task has one line (seed ${SEED})`,
  async (_, target) => {
    const random = seeded(SEED)
    const csv = await csvUnderTest()
    const open = new Map<string, Execution>()
    let made = 0
    const more = (count: number) => {
      for (let task = 0; task < count; task++) {
        const execution = csvExecution({ n: made++, text: 'x'.repeat(Math.floor(random() * 60)) }, target)
        open.set(execution.id, { ...execution, createdAt: new Date().toISOString() })
      }
    }
    /** A process that is given all that is open, some at a time, and killed so long after its first outcome, or at its end. */
    const round = async (killAfterMs?: number) => {
      const child = spawn(process.execPath, [join(import.meta.dir, 'csv-process.ts'), csv.outDir], {
        stdio: ['pipe', 'pipe', 'inherit'],
      })
      const gone = once(child, 'exit')
      const closed = once(child.stdout, 'close')
      let first = true
      child.stdin.on('error', () => {})
      createInterface(child.stdout).on('line', (id) => {
        open.delete(id)
        if (open.size === 0) child.kill('SIGKILL')
        if (first && killAfterMs !== undefined) setTimeout(() => child.kill('SIGKILL'), killAfterMs)
        first = false
      })
      const given = [...open.values()]
      while (given.length > 0 && child.signalCode === null) {
        for (const execution of given.splice(0, 1 + Math.floor(random() * 100))) {
          child.stdin.write(`${JSON.stringify(execution)}\n`)
          execution.attempt++
        }
        await new Promise((resolve) => setImmediate(resolve))
      }
      await Promise.all([gone, closed])
    }
    let repeated = 0
    for (let kill = 0; kill < KILLS; kill++) {
      more(1_500 - open.size)
      await round(random() * 40)
      repeated += open.size
    }
    if (open.size > 0) await round()
    expect(repeated).toBeGreaterThan(KILLS)
    const numbers = (await linesIn(csv.outDir, 'n,text')).map((line) => Number(line.split(',')[0]))
    expect(numbers.sort((a, b) => a - b)).toEqual(Array.from({ length: made }, (_, n) => n))
    await csv.end()
  },
  120_000,
)

test('threads die again and again with batches in flight: each task has one line, and one thread at a time has the file', async () => {
  const csv = await csvUnderTest()
  const target: CsvTarget = { type: 'csv', path: 'out.csv', rotate: { size: 20_000 } }
  const affinity = affinityOf(target)
  const dir = await handlersWith({
    exits: `export default async (ms) => { await new Promise((resolve) => setTimeout(resolve, ms)); process.exit(1) }`,
  })
  const ledger = namesLedger()
  const pool = createThreadPool({
    threads: 2,
    threadUrl: THREAD,
    workerData: threadSettings(dir, { outDir: csv.outDir }),
    clock: realClock,
    log: silent,
    onReport() {},
    answers: createAnswers({
      ledger,
      clock: realClock,
      log: silent,
      node: () => 'here',
      mayStart: () => true,
      publish: async () => 'confirmed',
    }),
  })
  const random = seeded(SEED)
  const losses = await Promise.all(
    Array.from({ length: 1_500 }, async (_, n) => {
      await new Promise((resolve) => setTimeout(resolve, 2 * n))
      if (n % 250 === 125) void pool.run(callOf('exits', { affinity, payload: String(Math.floor(random() * 20)) }))
      const execution = { ...csvExecution({ n }, target), affinity, createdAt: new Date().toISOString() }
      for (let attempt = 1; ; attempt++) {
        // As the worker does: what was lost twice runs alone.
        const { kind } = await pool.run({ ...execution, attempt, alone: attempt > 2 })
        if (kind === 'succeeded') return attempt - 1
        expect(['lost', 'snoozed']).toContain(kind)
      }
    }),
  )
  expect(losses.filter((times) => times > 0).length).toBeGreaterThan(10)
  const numbers = (await linesIn(csv.outDir, 'n')).map(Number)
  expect(numbers.sort((a, b) => a - b)).toEqual(losses.map((_, n) => n))
  await pool.close()
  await rm(dir, { recursive: true })
  await csv.end()
}, 60_000)
