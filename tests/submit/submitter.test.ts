import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { v7 } from 'uuid'
import { Problem } from '../../src/runtime/errors.ts'
import { createLog } from '../../src/runtime/log.ts'
import { openDatabase } from '../../src/store/database/database.ts'
import { createSubmitter, type Submitter } from '../../src/submit/submitter.ts'
import { newTask } from '../store/tasks/new-task.ts'
import { ENGINES, type TestDatabase, testDatabase } from '../support/database.ts'

const log = createLog('silent')

for (const engine of ENGINES) {
  describe(`submitter on ${engine}`, () => {
    let test_: TestDatabase
    let submitter: Submitter
    let woken: Map<string, number>[] = []
    const node = v7()
    const query = async <T>(text: string) => (await test_.database.pool.query(text)).rows as T[]
    const codeOf = (end: PromiseSettledResult<unknown>) =>
      end.status === 'fulfilled' ? 'ok' : end.reason instanceof Problem ? end.reason.code : String(end.reason)

    beforeAll(async () => {
      test_ = await testDatabase(engine)
      await query(
        `insert into queues (name, retry, retention) values ('emails', '{"maxAttempts": 7}', '{}'), ('sms', '{"maxAttempts": 1}', '{}')`,
      )
      submitter = createSubmitter({
        pool: test_.database.pool,
        nodeId: () => node,
        log,
        onSubmitted: (queues) => woken.push(queues),
      })
    }, 60_000)
    afterEach(async () => {
      await submitter.idle()
      await query('delete from tasks')
      woken = []
    })
    afterAll(() => test_?.drop())

    test('many callers share commits, and each gets its own task', async () => {
      const tasks = Array.from({ length: 400 }, () => newTask())
      const submitted = await Promise.all(tasks.map((task) => submitter.submit(task)))
      expect(submitted.map(({ id }) => id)).toEqual(tasks.map(({ id }) => id))
      expect(submitted.every(({ created }) => created)).toBe(true)
      // By the transactions that wrote the rows: those of tests beside this one count up the server's own number.
      const [row] = await query<{ commits: number }>('select count(distinct xmin::text)::int as commits from tasks')
      expect(row?.commits).toBeLessThan(20)
    })

    test('one bad task among good ones in the same commit harms nobody else', async () => {
      const parent = newTask()
      await submitter.submit(parent)
      const tasks = [
        newTask(),
        newTask({ queue: 'nowhere' }),
        newTask(),
        // What gets past validation and fails in Postgres must not take the others with it, either.
        newTask({ payload: '{"broken"' }),
        newTask({ type: 'NUL \0' }),
        newTask({ parentId: v7() }),
        newTask({ parentId: parent.id }),
        newTask({ priority: 99 }),
        newTask(),
      ]
      const ends = await Promise.allSettled(tasks.map((task) => submitter.submit(task)))
      expect(ends.map(({ status }) => status)).toEqual([
        ...[
          'fulfilled',
          'rejected',
          'fulfilled',
          'rejected',
          'rejected',
          'rejected',
          'fulfilled',
          'rejected',
          'fulfilled',
        ],
      ] as (typeof ends)[number]['status'][])
      expect(codeOf(ends[1] as (typeof ends)[number])).toBe('unknown-queue')
      expect(codeOf(ends[5] as (typeof ends)[number])).toBe('unknown-parent')
      expect(await query('select id from tasks')).toHaveLength(5)
    })

    test('the same idempotency key from many callers at once is one task', async () => {
      const ends = await Promise.all(
        Array.from({ length: 50 }, () => submitter.submit(newTask({ idempotencyKey: 'k' }))),
      )
      expect(new Set(ends.map(({ id }) => id)).size).toBe(1)
      expect(ends.filter(({ created }) => created)).toHaveLength(1)
    })

    test('a key whose first user is refused goes to the next caller', async () => {
      const ends = await Promise.allSettled([
        submitter.submit(newTask({ idempotencyKey: 'k', parentId: v7() })),
        submitter.submit(newTask({ idempotencyKey: 'k', parentId: v7(), fingerprint: 'other' })),
        submitter.submit(newTask({ idempotencyKey: 'k', fingerprint: 'third' })),
      ])
      expect(ends.map(codeOf)).toEqual(['unknown-parent', 'unknown-parent', 'ok'])
    })

    test('a batch is stored as a whole or not at all, and the refused tasks are named', async () => {
      const bad = [newTask(), newTask({ queue: 'nowhere' }), newTask(), newTask({ queue: 'nirgends' })]
      const problem = (await submitter.submitBatch(bad).catch((error: unknown) => error)) as Problem
      expect(problem).toBeInstanceOf(Problem)
      expect(problem.code).toBe('unknown-queue')
      expect(problem.errors.map(({ path }) => path)).toEqual(['/1/queue', '/3/queue'])
      expect(await query('select id from tasks')).toEqual([])
      expect(woken).toEqual([])

      const mixed = [newTask({ queue: 'nowhere' }), newTask({ parentId: v7() })]
      expect(((await submitter.submitBatch(mixed).catch((error: unknown) => error)) as Problem).code).toBe('validation')
    })

    test('a batch gives the ids of first tasks where keys are known', async () => {
      const first = await submitter.submit(newTask({ idempotencyKey: 'k' }))
      const tasks = [
        newTask(),
        newTask({ idempotencyKey: 'k' }),
        newTask({ idempotencyKey: 'new' }),
        newTask({ idempotencyKey: 'new' }),
      ]
      const submitted = await submitter.submitBatch(tasks)
      expect(submitted.map(({ id }) => id)).toEqual([tasks[0]?.id, first.id, tasks[2]?.id, tasks[2]?.id] as string[])
      expect(submitted.map(({ created }) => created)).toEqual([true, false, true, false])
    })

    test('the dispatcher is told after the commit, with the earliest due time of each queue', async () => {
      await submitter.submitBatch([
        newTask({ delayMs: 60_000 }),
        newTask({ delayMs: 5_000 }),
        newTask({ queue: 'sms' }),
      ])
      expect(woken).toEqual([
        new Map([
          ['emails', 5_000],
          ['sms', 0],
        ]),
      ])
    })

    test('a database that is away is told as 503, and nothing is half-done', async () => {
      const away = openDatabase({ connection: { url: 'postgres://nobody@127.0.0.1:1/none' }, poolSize: 2, log })
      const lost = createSubmitter({ pool: away.pool, nodeId: () => node, log, onSubmitted: () => {} })
      const ends = await Promise.allSettled([
        lost.submit(newTask()),
        lost.submit(newTask()),
        lost.submitBatch([newTask()]),
      ])
      expect(ends.map(codeOf)).toEqual(['database-unavailable', 'database-unavailable', 'database-unavailable'])
      await away.close()
    })

    test('payloads of a mebibyte from many callers are all stored', async () => {
      const payload = `"${'x'.repeat(1024 * 1024 - 2)}"`
      await Promise.all(Array.from({ length: 20 }, () => submitter.submit(newTask({ payload }))))
      expect(await query('select octet_length(payload::text) as bytes from tasks group by 1')).toEqual([
        { bytes: 1024 * 1024 },
      ])
    })
  })
}
