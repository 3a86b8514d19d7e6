import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { RemoteFailure } from '../../../src/files/remote-files.ts'
import { runNow } from '../../../src/store/tasks/run-now.ts'
import { miscounted, type TaskLedger, taskLedger } from '../../support/tasks.ts'
import { csvRows, type ImportUnderTest, ids, importUnderTest, upTo } from './import-under-test.ts'

let ledger: TaskLedger
beforeAll(async () => {
  ledger = await taskLedger('server')
})
afterAll(() => ledger.test.drop())

describe('an import whose file is not in the spool', () => {
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

  test('fetches its file again when the spool is gone, and goes on at its checkpoint; one that was changed fails it', async () => {
    const rows = Buffer.concat(await Array.fromAsync(csvRows(5_000)))
    const { file, task } = await under.file('a.csv', rows)
    let batches = 0
    await using first = await importUnderTest(ledger, {
      around: (imports) => ({
        ...imports,
        commit: (asker, question) =>
          ++batches > 1 ? Promise.reject(new Error('enough')) : imports.commit(asker, question),
      }),
      over: { spool: under.spool },
    })
    expect(await first.run(task)).toMatchObject({ kind: 'failed', retryable: true })
    await rm(join(under.dir, 'spool'), { recursive: true })

    let content: Uint8Array = rows
    let failure: Error | undefined
    await using elsewhere = await importUnderTest(ledger, {
      over: {
        async fetchAgain() {
          if (failure) throw failure
          return elsewhere.spool.receive(
            (async function* () {
              yield content
            })(),
          )
        },
        isHopeless: (error) => error instanceof RemoteFailure && error.reason === 'not-found',
      },
    })
    failure = new RemoteFailure('connect', 'refused', 'nothing listens there')
    expect(await elsewhere.run(task)).toMatchObject({ kind: 'failed', retryable: true })
    expect((await under.row(file)).status).toBe('importing')
    failure = undefined
    expect(await elsewhere.run(task)).toMatchObject({ kind: 'succeeded' })
    expect(ids(await under.payloads(task))).toEqual(upTo(5_000))

    const other = await under.file('b.csv', rows)
    await rm(join(under.dir, 'spool'), { recursive: true })
    content = rows.subarray(0, rows.length - 10)
    expect(await elsewhere.run(other.task)).toMatchObject({
      kind: 'failed',
      retryable: false,
      error: expect.stringContaining('was changed at its server'),
    })
    expect((await under.row(other.file)).status).toBe('failed')
    const gone = await under.file('c.csv', rows)
    await rm(join(under.dir, 'spool'), { recursive: true })
    failure = new RemoteFailure('read', 'not-found', 'no such file')
    expect(await elsewhere.run(gone.task)).toMatchObject({ kind: 'failed', retryable: false })
  })

  test('leaves a file to the node that has it while that lives, and spends no failure; then fetches it again', async () => {
    const rows = Buffer.concat(await Array.fromAsync(csvRows(3_000)))
    const { file, task } = await under.file('a.csv', rows)
    const owner = await ledger.join()
    await ledger.pool.query('update files set spool_node = $2 where id = $1', [file, owner])
    let fetched = 0
    await using other = await importUnderTest(ledger, {
      over: {
        async fetchAgain() {
          fetched++
          return other.spool.receive(
            (async function* () {
              yield rows
            })(),
          )
        },
      },
    })
    expect(await other.run(task)).toMatchObject({ kind: 'snoozed' })
    expect(await ledger.row(task)).toMatchObject({ failures: 0, status: 'pending' })
    expect(fetched).toBe(0)

    await ledger.pool.query('update nodes set left_at = now() where id = $1', [owner])
    await runNow(ledger.pool, [task])
    expect(await other.run(task)).toMatchObject({ kind: 'succeeded' })
    expect(fetched).toBe(1)
    expect(ids(await under.payloads(task))).toEqual(upTo(3_000))
    expect(await under.row(file)).toMatchObject({ status: 'done', spool_node: ledger.node })
  })
})
