import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { setFilePaused } from '../../../src/store/files/actions.ts'
import { concludeFiles } from '../../../src/store/files/after.ts'
import { cancelTasks } from '../../../src/store/tasks/cancel.ts'
import { replayTasks } from '../../../src/store/tasks/dead-letters/replay.ts'
import { runNow } from '../../../src/store/tasks/run-now.ts'
import { settleTasks } from '../../../src/store/tasks/settle.ts'
import type { ImportLedger } from '../../../src/task/source/import.ts'
import { atOnce, miscounted, SUCCEEDED, settlementOf, type TaskLedger, taskLedger } from '../../support/tasks.ts'
import { until } from '../../support/until.ts'
import { csvRows, type ImportUnderTest, ids, importUnderTest, RECORDS, upTo } from './import-under-test.ts'

let ledger: TaskLedger
beforeAll(async () => {
  ledger = await taskLedger('server')
})
afterAll(() => ledger.test.drop())

describe('an import', () => {
  let under: ImportUnderTest
  beforeEach(async () => {
    await ledger.clear()
    await ledger.pool.query('delete from sources')
    under = await importUnderTest(ledger)
  })
  afterEach(async () => {
    await under[Symbol.asyncDispose]()
    expect(await miscounted(ledger.pool)).toEqual([])
  })

  test('makes a task of each record, in their order, and removes what it read', async () => {
    const { file, task } = await under.file('a.csv', 'id,name\n1,Ann\n2,"Bo, b"\n')
    expect(await under.run(task)).toEqual({ kind: 'succeeded', result: '{"records":2,"rejected":0}' })
    expect(await under.payloads(task)).toEqual(['{"id":"1","name":"Ann"}', '{"id":"2","name":"Bo, b"}'])
    expect(await under.row(file)).toMatchObject({ status: 'done', records_read: 2, records_rejected: 0, error: null })
    expect(await readdir(join(under.dir, 'spool'))).toEqual([])
    const parent = await ledger.row(task)
    expect(parent).toMatchObject({ status: 'running', sealed: true, children_total: 2 })
    for (const child of await ledger.claim(10, { queue: RECORDS })) {
      expect(child).toMatchObject({ parentId: task, origin: 'file' })
      await ledger.settle(child, SUCCEEDED)
    }
    expect(await ledger.status(task)).toBe('succeeded')
    await concludeFiles(ledger.pool, 10)
    const { rows } = await ledger.pool.query('select tasks, finished_at is not null as finished from files')
    expect(rows).toEqual([{ tasks: { total: 2, succeeded: 2, dead: 0 }, finished: true }])
  })

  test('makes tasks of as many records as the source wants, and of fewer where they would be too large', async () => {
    const { task } = await under.file('a.csv', csvRows(1_050), {
      deliver: { queue: RECORDS, recordsPerTask: 500, type: 'row', priority: 7 },
    })
    await under.run(task)
    const payloads = await under.payloads(task)
    expect(payloads.map((payload) => JSON.parse(payload).length)).toEqual([500, 500, 50])
    expect(ids(payloads)).toEqual(upTo(1_050))
    const { rows } = await ledger.pool.query('select distinct type, priority from tasks where parent_id = $1', [task])
    expect(rows).toEqual([{ type: 'row', priority: 7 }])

    const long = 'ü'.repeat(150_000)
    const big = await under.file(
      'b.csv',
      `id,text\n${upTo(9)
        .map((id) => `${id},${long}\n`)
        .join('')}`,
      {
        deliver: { queue: RECORDS, recordsPerTask: 100 },
      },
    )
    await under.run(big.task)
    const heavy = await under.payloads(big.task)
    expect(heavy.map((payload) => JSON.parse(payload).length)).toEqual([3, 3, 3])
    expect(ids(heavy)).toEqual(upTo(9))
    for (const payload of heavy) expect(Buffer.byteLength(payload)).toBeLessThanOrEqual(1024 * 1024)
  })

  test('keeps bad records aside with their reasons, in their places', async () => {
    const { file, task } = await under.file('a.csv', 'id,n\n1,1\nx\n2,2\n3,3\ny,z,\n', {
      deliver: { queue: RECORDS, recordsPerTask: 2 },
    })
    expect(await under.run(task)).toMatchObject({ result: '{"records":5,"rejected":2}' })
    expect(ids(await under.payloads(task))).toEqual([1, 2, 3])
    const { rows } = await ledger.pool.query('select number, line, raw from rejects where file = $1 order by number', [
      file,
    ])
    expect(rows).toEqual([
      { number: 2, line: 3, raw: 'x' },
      { number: 5, line: 6, raw: 'y,z,' },
    ])
  })

  test('fails for good at the first bad record, or at one too many, and keeps what came before', async () => {
    const content = `id,n\n${upTo(100)
      .map((id) => (id % 10 === 0 ? 'bad\n' : `${id},1\n`))
      .join('')}`
    const strict = await under.file('a.csv', content, { rejects: { mode: 'fail' } })
    expect(await under.run(strict.task)).toMatchObject({ kind: 'failed', retryable: false })
    expect(await under.row(strict.file)).toMatchObject({
      status: 'failed',
      records_read: 10,
      records_rejected: 1,
      error: expect.stringContaining('A record was rejected, the last of them is number 10'),
    })
    expect(ids(await under.payloads(strict.task))).toEqual(upTo(9))

    const bounded = await under.file('b.csv', content, { rejects: { max: 3 } })
    expect(await under.run(bounded.task)).toMatchObject({ kind: 'failed', retryable: false })
    expect(await under.row(bounded.file)).toMatchObject({ records_read: 40, records_rejected: 4 })
    const few = await under.file('c.csv', content, { limits: { records: 15 } })
    expect(await under.run(few.task)).toMatchObject({ error: expect.stringContaining('more than 15 records') })
    expect(await under.row(few.file)).toMatchObject({ status: 'failed', records_read: 15 })
  })

  test('fails for good at the place where a file cannot be read on, with what came before', async () => {
    const whole = gzipSync(Buffer.from(`id\n${upTo(30_000).join('\n')}\n`))
    const { file, task } = await under.file('a.csv.gz', whole.subarray(0, whole.length - 100), {
      deliver: { queue: RECORDS, recordsPerTask: 1000 },
    })
    expect(await under.run(task)).toMatchObject({
      kind: 'failed',
      retryable: false,
      error: expect.stringContaining('ends too early'),
    })
    const row = await under.row(file)
    expect(row).toMatchObject({ status: 'failed', error: expect.stringContaining('ends too early') })
    expect(ids(await under.payloads(task))).toEqual(upTo(row.records_read))
    expect(await ledger.status(task)).toBe('dead')
  })

  test('goes on where it failed when its task is replayed, once the source allows for it', async () => {
    const { file, task } = await under.file('a.csv', 'id,n\n1,1\nx\n2,2\n', { rejects: { mode: 'fail' } })
    await under.run(task)
    await ledger.pool.query(`update sources set settings = settings - 'rejects'`)
    // Its bytes were removed with its failure: it comes anew from the server.
    await replayTasks(ledger.pool, [task])
    await using again = await importUnderTest(ledger, {
      over: {
        fetchAgain: async () => {
          const spooled = await again.spool.receive(
            (async function* () {
              yield Buffer.from('id,n\n1,1\nx\n2,2\n')
            })(),
          )
          return spooled
        },
      },
    })
    expect(await again.run(task)).toMatchObject({ kind: 'succeeded', result: '{"records":3,"rejected":1}' })
    expect(ids(await under.payloads(task))).toEqual([1, 2])
    expect(await under.row(file)).toMatchObject({ status: 'done', error: null })
  })

  test('stops behind the batch in hand when its file is paused, spends no failure, and goes on there', async () => {
    const { file, task } = await under.file('a.csv', csvRows(20_000))
    let batches = 0
    await using paused = await importUnderTest(ledger, {
      around: (imports) => ({
        ...imports,
        async commit(asker, question) {
          batches++
          if (batches === 3) await setFilePaused(ledger.pool, file, true)
          return imports.commit(asker, question)
        },
      }),
      over: { spool: under.spool },
    })
    expect(await paused.run(task)).toMatchObject({ kind: 'snoozed' })
    expect(await under.row(file)).toMatchObject({ status: 'importing', records_read: 6_000 })
    await setFilePaused(ledger.pool, file, false)
    await runNow(ledger.pool, [task])
    expect(await under.run(task)).toMatchObject({ kind: 'succeeded' })
    expect(ids(await under.payloads(task))).toEqual(upTo(20_000))
    expect((await ledger.row(task)).failures).toBe(0)
  })

  test('ends with its task when that is cancelled', async () => {
    const { file, task } = await under.file('a.csv', csvRows(20_000))
    let batches = 0
    await using slow = await importUnderTest(ledger, {
      around: (imports) => ({
        ...imports,
        async commit(asker, question) {
          if (++batches === 2) {
            await cancelTasks(ledger.pool, [task])
            slow.cancel(task)
          }
          return imports.commit(asker, question)
        },
      }),
      over: { spool: under.spool },
    })
    expect(await slow.run(task)).toMatchObject({ kind: 'cancelled' })
    expect(await ledger.status(task)).toBe('cancelled')
    // The batch in hand may be on its way back still.
    await until(async () => (await concludeFiles(ledger.pool, 10)).concluded === 1)
    expect(await under.row(file)).toMatchObject({ status: 'failed', error: 'It was cancelled', records_read: 2_000 })
  })

  test('commits a batch once when the answer to it is lost', async () => {
    const { file, task } = await under.file('a.csv', csvRows(7_000))
    const lost: number[] = []
    await using flaky = await importUnderTest(ledger, {
      around: (imports) => ({
        ...imports,
        async commit(asker, question) {
          const step = await imports.commit(asker, question)
          // As after a connection that was cut: the same again.
          expect(await imports.commit(asker, question)).toBe(step)
          lost.push(question.batch.to)
          return step
        },
      }),
      over: { spool: under.spool },
    })
    expect(await flaky.run(task)).toMatchObject({ kind: 'succeeded' })
    expect(lost).toEqual([2_000, 4_000, 6_000, 7_000])
    expect(ids(await under.payloads(task))).toEqual(upTo(7_000))
    expect(await under.row(file)).toMatchObject({ status: 'done', records_read: 7_000 })
  })

  test('writes nothing for an attempt that was taken from its node, however late it comes', async () => {
    const { task } = await under.file('a.csv', csvRows(7_000))
    const reached = Promise.withResolvers<void>()
    const goOn = Promise.withResolvers<void>()
    let batches = 0
    const held = (imports: ImportLedger): ImportLedger => ({
      ...imports,
      async commit(asker, question) {
        if (++batches === 2) {
          reached.resolve()
          await goOn.promise
        }
        return imports.commit(asker, question)
      },
    })
    await using zombie = await importUnderTest(ledger, { around: held, over: { spool: under.spool } })
    const claimed = await zombie.claim(task)
    const late = zombie.execute(claimed)
    await reached.promise
    await ledger.settle(claimed, { kind: 'lost', started: true, error: 'its node is gone' })
    // The next attempt is under way at the very place.
    const next = await under.claim(task)
    goOn.resolve()
    expect(await late).toMatchObject({ kind: 'failed', error: 'This attempt was over for the ledger' })
    expect(await under.execute(next)).toMatchObject({ kind: 'succeeded' })
    expect(ids(await under.payloads(task))).toEqual(upTo(7_000))
    // It was getting on: that its node ended does not count against it.
    expect((await ledger.row(task)).lost_starts).toBe(0)
  })

  test('fails for a while when the queue of its records is gone, and goes on when it is back', async () => {
    const { task } = await under.file('a.csv', 'id\n1\n')
    await ledger.pool.query('delete from queues where name = $1', [RECORDS])
    expect(await under.run(task)).toMatchObject({
      kind: 'failed',
      retryable: true,
      error: expect.stringContaining(`There is no queue "${RECORDS}"`),
    })
    await ledger.queue(RECORDS)
    expect(await under.run(task)).toMatchObject({ kind: 'succeeded' })
    expect(ids(await under.payloads(task))).toEqual([1])
  })

  test('counts its children right while others settle them', async () => {
    const { task } = await under.file('a.csv', csvRows(20_000))
    let isOver = false
    const settling = (async () => {
      while (!isOver) {
        const claimed = await ledger.claim(500, { queue: RECORDS })
        const settlements = claimed.map((one) => settlementOf(one, SUCCEEDED))
        if (claimed.length > 0) await settleTasks(ledger.pool, ledger.node, settlements, atOnce)
      }
    })()
    expect(await under.run(task)).toMatchObject({ kind: 'succeeded' })
    await until(async () => (await ledger.status(task)) === 'succeeded', { timeoutMs: 60_000, what: 'all children' })
    isOver = true
    await settling
    expect(await ledger.row(task)).toMatchObject({ children_total: 20_000, children_succeeded: 20_000 })
  }, 90_000)

  test('tells its progress in bytes and records, at most twice a second', async () => {
    const { task } = await under.file('a.csv', csvRows(30_000), { deliver: { queue: RECORDS, recordsPerTask: 100 } })
    const from = performance.now()
    await under.run(task)
    const told = under.reports.filter(({ progress }) => progress)
    expect(told.length).toBeLessThanOrEqual(3 + (performance.now() - from) / 500)
    const last = told.at(-1)?.progress
    expect(last).toMatchObject({ message: '30000 records read, 0 rejected' })
    expect(last?.done).toBe(last?.total as number)
  })

  test('takes an empty file for one without records, and an announcement for somebody else’s', async () => {
    const { task } = await under.file('a.json', '[]', { format: { type: 'json' } })
    expect(await under.run(task)).toMatchObject({ kind: 'succeeded', result: '{"records":0,"rejected":0}' })
    expect(await ledger.status(task)).toBe('succeeded')
    const announced = await ledger.insert({ queue: 'ftp.csv', payload: '{"sourceId":"x","runId":"y"}' })
    expect(await under.run(announced)).toMatchObject({ kind: 'succeeded' })
  })

  test.each([
    'null',
    '7',
    '"text"',
    '[{"fileId":"x"}]',
    '{"raw":"not JSON"}',
    '{"fileId":7}',
    '{"fileId":"x"}',
    '{"sourceId":"x"}',
    '{"sourceId":7,"runId":"y"}',
    '{"host":"ftp.bank.example","port":21,"username":"bank","directory":"/out","content_type":"csv"}',
  ])('keeps a message that is neither, %s, as a dead letter that says what to do', async (payload) => {
    const task = await ledger.insert({ queue: 'ftp.csv', payload })
    expect(await under.run(task)).toMatchObject({
      kind: 'failed',
      retryable: false,
      error: expect.stringContaining('make it a source'),
    })
    expect(await ledger.status(task)).toBe('dead')
  })
})
