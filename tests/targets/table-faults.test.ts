import { afterEach, beforeEach, expect, test } from 'bun:test'
import { rm } from 'node:fs/promises'
import { v7 as uuidv7 } from 'uuid'
import { createThreadPool } from '../../src/execution/threads/pool.ts'
import { realClock } from '../../src/runtime/clock.ts'
import type { Execution, Executor } from '../../src/task/executor.ts'
import { affinityOf, type TableTarget } from '../../src/task/target/target.ts'
import {
  anExecution,
  callOf,
  handlersWith,
  NO_ANSWERS,
  silent,
  threadSettings,
} from '../execution/executor.conformance.ts'
import { THREAD } from '../execution/pool-under-test.ts'
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.ts'
import { type TablesUnderTest, tablesUnderTest, unlessCrowded } from './table-under-test.ts'

let tables: TablesUnderTest
let proxy: TcpProxy
let url: string

beforeEach(async () => {
  tables = await tablesUnderTest()
  const direct = new URL('url' in tables.testing.connection ? tables.testing.connection.url : '')
  proxy = await startTcpProxy({ host: direct.hostname, port: Number(direct.port || 5432) })
  url = Object.assign(direct, { host: `127.0.0.1:${proxy.port}` }).href
  await tables.query('create table data.t (n int)')
})

afterEach(async () => {
  await proxy[Symbol.asyncDispose]()
  await tables.end()
})

const counts = async () => (await tables.query('select count(*)::int, count(distinct n)::int as tasks from data.t'))[0]

test('the reply to a commit is lost: the batch goes again, and adds nothing', async () => {
  const run = tables.target({ table: 't' }, { connection: { url } })
  await run('{"n": 0}')
  for (let round = 1; round <= 10; round++) {
    proxy.cutAnswers('INSERT 0 ')
    const outcomes = await Promise.all(Array.from({ length: 100 }, (_, n) => run(`{"n": ${round * 100 + n}}`)))
    expect(new Set(outcomes.map(({ kind }) => kind))).toEqual(new Set(['succeeded']))
  }
  expect(proxy.cuts()).toBe(10)
  expect(await counts()).toEqual({ count: 1001, tasks: 1001 })
})

test('every reply is lost: the tasks are tried again, and when one comes through each has one row', async () => {
  const run = tables.target({ table: 't' }, { connection: { url } })
  await run('{"n": 0}')
  const ids = Array.from({ length: 50 }, () => uuidv7())
  const attempt = (number: number) => Promise.all(ids.map((id, n) => run(`{"n": ${n + 1}}`, { id, attempt: number })))
  proxy.cutAnswers('INSERT 0 ', Number.POSITIVE_INFINITY)
  expect((await attempt(1)).every((outcome) => outcome.kind === 'failed' && outcome.retryable)).toBe(true)
  proxy.cutAnswers('INSERT 0 ', 0)
  expect((await attempt(2)).every(({ kind }) => kind === 'succeeded')).toBe(true)
  expect(await counts()).toEqual({ count: 51, tasks: 51 })
})

test('connections that were cut while they were idle fail nobody', async () => {
  const run = tables.target({ table: 't' }, { connection: { url } })
  for (let round = 0; round < 5; round++) {
    expect(await run(`{"n": ${round}}`)).toEqual({ kind: 'succeeded' })
    proxy.cutAll()
  }
  expect(await counts()).toEqual({ count: 5, tasks: 5 })
})

test('a thread dies again and again with batches in flight: each task has one row', async () => {
  const target: TableTarget = { type: 'table', table: 't' }
  const affinity = affinityOf(target)
  const dir = await handlersWith({
    exits: `export default async (ms) => { await new Promise((resolve) => setTimeout(resolve, ms)); process.exit(1) }`,
  })
  const pool = createThreadPool({
    threads: 1,
    threadUrl: THREAD,
    workerData: threadSettings(dir, { tables: tables.settings }),
    clock: realClock,
    log: silent,
    onReport() {},
    answers: NO_ANSWERS,
  })
  try {
    const losses = await Promise.all(
      Array.from({ length: 1_000 }, async (_, n) => {
        await new Promise((resolve) => setTimeout(resolve, n))
        if (n % 100 === 50) void pool.run(callOf('exits', { affinity, payload: String(n % 7) }))
        return untilSucceeded(pool, anExecution({ payload: `{"n": ${n}}`, target, affinity }))
      }),
    )
    expect(losses.some((times) => times > 0)).toBe(true)
    expect(await counts()).toEqual({ count: 1_000, tasks: 1_000 })
  } finally {
    await pool.close()
    await rm(dir, { recursive: true })
  }
})

/** Attempts it until it succeeds; gives how often it was lost. */
async function untilSucceeded(pool: Executor, execution: Execution): Promise<number> {
  for (let attempt = 1; ; attempt++) {
    const { kind } = await unlessCrowded(() => pool.run({ ...execution, attempt }))
    if (kind === 'succeeded') return attempt - 1
    expect(kind).toBe('lost')
  }
}
