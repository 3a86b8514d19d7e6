import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { v7 } from 'uuid'
import { Problem } from '../../../../src/runtime/errors.ts'
import { insertTasks } from '../../../../src/store/tasks/insert/insert.ts'
import type { Inserted } from '../../../../src/store/tasks/insert/insert-rows.ts'
import type { NewTask } from '../../../../src/task/task.ts'
import { ENGINES, type TestDatabase, testDatabase } from '../../../support/database.ts'
import { until } from '../../../support/until.ts'
import { newTask } from '../new-task.ts'

const NODE = v7()

for (const engine of ENGINES) {
  describe(`insertTasks on ${engine}`, () => {
    let test_: TestDatabase
    const insert = (tasks: NewTask[], options?: Parameters<typeof insertTasks>[3]) =>
      insertTasks(test_.database.pool, NODE, tasks, options)
    const query = async <T>(text: string, values: unknown[] = []) =>
      (await test_.database.pool.query(text, values)).rows as T[]
    const kinds = (inserted: Inserted[]) => inserted.map((one) => (one.kind === 'refused' ? one.code : one.kind))

    beforeAll(async () => {
      test_ = await testDatabase(engine)
      await query(`insert into queues (name, retry, retention) values ('emails', '{"maxAttempts": 7}', '{}')`)
    }, 60_000)
    afterEach(async () => {
      await query('delete from tasks')
      await query('delete from counters')
    })
    afterAll(() => test_?.drop())

    test('payloads are stored as the very text that was received', async () => {
      const payloads = [
        '{"b":1.0,"a":  [1e2, 12345678901234567890],"\\u00e9":"\\u00e9"}',
        '"text with \\"quotes\\" and \\\\"',
        'null',
        '1.0',
        '[]',
        '{"dup":1,"dup":2}',
        'true',
      ]
      const tasks = payloads.map((payload) => newTask({ payload }))
      await insert(tasks)
      const rows = await query<{ id: string; payload: string }>('select id, payload from tasks')
      const stored = new Map(rows.map((row) => [row.id, row.payload]))
      expect(tasks.map((task) => stored.get(task.id))).toEqual(payloads)
    })

    test('a payload that is no JSON text fails the statement before another task can get its parts', async () => {
      await expect(insert([newTask({ payload: '1,2' }), newTask({ payload: '3' })])).rejects.toThrow()
      await expect(insert([newTask({ payload: '1],[2' }), newTask({ payload: '3' })])).rejects.toThrow()
      expect(await query('select id from tasks')).toEqual([])
    })

    test('all fields are stored, and what is missing comes from the queue', async () => {
      const parent = newTask()
      await insert([parent])
      const full = newTask({
        type: 'welcome',
        target: '{"type":"noop"}',
        priority: 9,
        delayMs: 60_000,
        maxAttempts: 3,
        timeoutMs: 5_000,
        idempotencyKey: 'k',
        parentId: parent.id,
        origin: 'child',
      })
      const [answer] = await insert([full])
      expect(answer).toMatchObject({ kind: 'created', id: full.id, maxAttempts: 3 })
      const [row] = await query<Record<string, unknown>>(
        `select *, extract(epoch from due_at - created_at)::float8 as wait from tasks where id = $1`,
        [full.id],
      )
      expect(row).toMatchObject({
        queue: 'emails',
        type: 'welcome',
        target: '{"type":"noop"}',
        status: 'pending',
        priority: 9,
        wait: 60,
        attempt: 0,
        max_attempts: 3,
        timeout_ms: 5_000,
        idempotency_key: 'k',
        parent_id: parent.id,
        origin: 'child',
      })
      const [defaults] = await query<{ max_attempts: number }>('select max_attempts from tasks where id = $1', [
        parent.id,
      ])
      expect(defaults?.max_attempts).toBe(7)
    })

    test('a past time means now, a later one is kept, and the answer says how long it is', async () => {
      const later = new Date(Date.now() + 3_600_000).toISOString()
      const [past, future] = await insert([newTask({ dueAt: '1999-01-01T00:00:00.000Z' }), newTask({ dueAt: later })])
      if (past?.kind !== 'created' || future?.kind !== 'created') throw new Error('not created')
      expect(past.dueAt).toBe(past.createdAt)
      expect(past.delayMs).toBe(0)
      expect(future.dueAt).toBe(later)
      expect(future.delayMs).toBeGreaterThan(3_500_000)
    })

    test('a task on an unknown queue is refused, and the others of its batch are stored', async () => {
      const tasks = [newTask(), newTask({ queue: 'nowhere' }), newTask()]
      expect(kinds(await insert(tasks))).toEqual(['created', 'unknown-queue', 'created'])
      expect(await query('select id from tasks order by id')).toHaveLength(2)
    })

    test('all or nothing stores nothing when one is refused', async () => {
      const tasks = [newTask(), newTask({ queue: 'nowhere' })]
      expect(kinds(await insert(tasks, { allOrNothing: true }))).toEqual(['created', 'unknown-queue'])
      expect(await query('select id from tasks')).toEqual([])
      expect(await query('select * from counters')).toEqual([])
    })

    test('the same idempotency key gives the first task, another body is a mismatch, another queue is another key', async () => {
      await query(`insert into queues (name, retry, retention) values ('sms', '{"maxAttempts": 1}', '{}')`)
      const first = newTask({ idempotencyKey: 'k' })
      await insert([first])
      const [same, other, elsewhere] = await insert([
        newTask({ idempotencyKey: 'k' }),
        newTask({ idempotencyKey: 'k', fingerprint: 'other' }),
        newTask({ idempotencyKey: 'k', queue: 'sms' }),
      ])
      expect(same).toEqual({ kind: 'existing', id: first.id })
      expect(other).toMatchObject({ kind: 'refused', code: 'idempotency-mismatch', field: 'idempotencyKey' })
      expect(elsewhere?.kind).toBe('created')
    })

    test('the same key twice in one batch is one task', async () => {
      const tasks = [
        newTask({ idempotencyKey: 'k' }),
        newTask({ idempotencyKey: 'k' }),
        newTask({ idempotencyKey: 'k', fingerprint: 'x' }),
      ]
      expect(await insert(tasks)).toMatchObject([
        { kind: 'created', id: tasks[0]?.id },
        { kind: 'existing', id: tasks[0]?.id },
        { kind: 'refused', code: 'idempotency-mismatch' },
      ])
    })

    test('a key whose first user was refused is still free for the next one', async () => {
      const tasks = [
        newTask({ idempotencyKey: 'k', parentId: v7() }),
        newTask({ idempotencyKey: 'k', fingerprint: 'other' }),
      ]
      expect(kinds(await insert(tasks))).toEqual(['unknown-parent', 'again'])
    })

    test('many concurrent batches with the same keys in any order make each task once, without a deadlock', async () => {
      const keys = Array.from({ length: 40 }, (_, n) => `key-${n}`)
      const batches = Array.from({ length: 8 }, (_, n) =>
        [...keys.slice(n * 5), ...keys.slice(0, n * 5)].map((idempotencyKey) => newTask({ idempotencyKey })),
      )
      const answers = (await Promise.all(batches.map((batch) => insert(batch)))).flat()
      expect(answers.filter(({ kind }) => kind === 'created')).toHaveLength(40)
      expect(answers.filter(({ kind }) => kind === 'existing')).toHaveLength(280)
      expect(await query('select distinct idempotency_key from tasks')).toHaveLength(40)
    })

    test('what was accepted is counted in the same commit, per node, queue and origin', async () => {
      await insert([newTask(), newTask(), newTask({ origin: 'schedule' }), newTask({ queue: 'nowhere' })])
      await insert([newTask()])
      expect(await query('select node, queue, origin, accepted from counters order by origin')).toEqual([
        { node: NODE, queue: 'emails', origin: 'api', accepted: 3 },
        { node: NODE, queue: 'emails', origin: 'schedule', accepted: 1 },
      ])
    })

    test('children are counted at their parent, and a final or unknown parent takes none', async () => {
      const parent = newTask()
      const done = newTask()
      await insert([parent, done])
      await query(`update tasks set status = 'succeeded' where id = $1`, [done.id])
      const children = [parent.id, parent.id, done.id, v7()].map((parentId) => newTask({ parentId, origin: 'child' }))
      expect(kinds(await insert(children))).toEqual(['created', 'created', 'parent-final', 'unknown-parent'])
      await insert([newTask({ parentId: parent.id, idempotencyKey: 'k' })])
      await insert([newTask({ parentId: parent.id, idempotencyKey: 'k' })])
      expect(await query('select children_total from tasks where id = $1', [parent.id])).toEqual([
        { children_total: 3 },
      ])
    })

    test('children for one parent from many callers are all counted', async () => {
      const parents = [newTask(), newTask()]
      await insert(parents)
      await Promise.all(
        Array.from({ length: 12 }, (_, n) =>
          insert([...(n % 2 ? parents : [...parents].reverse())].map(({ id }) => newTask({ parentId: id }))),
        ),
      )
      expect(await query('select children_total from tasks where parent_id is null')).toEqual([
        { children_total: 12 },
        { children_total: 12 },
      ])
    })

    test('a commit whose answer was lost is resolved by the ids: the tasks are there once, and counted once', async () => {
      const parent = newTask()
      await insert([parent])
      for (const tasks of [
        [newTask(), newTask({ idempotencyKey: 'a' })],
        [newTask({ idempotencyKey: 'b' })],
        [newTask({ parentId: parent.id, idempotencyKey: 'c' })],
        [newTask({ parentId: parent.id })],
      ]) {
        const answers = await insertTasks(losingAnswers(1), NODE, tasks)
        expect(kinds(answers)).toEqual(tasks.map(() => 'created'))
        expect(
          await query('select id from tasks where id = any($1::uuid[])', [tasks.map(({ id }) => id)]),
        ).toHaveLength(tasks.length)
      }
      expect(await query('select sum(accepted)::int as accepted from counters')).toEqual([{ accepted: 6 }])
      expect(await query('select children_total from tasks where id = $1', [parent.id])).toEqual([
        { children_total: 2 },
      ])
    })

    test('a commit that stays unknown is told as such', async () => {
      const error = await insertTasks(losingAnswers(Number.POSITIVE_INFINITY), NODE, [newTask()], {
        resolveWithinMs: 250,
      }).catch((thrown: unknown) => thrown)
      expect(error).toBeInstanceOf(Problem)
      expect((error as Problem).code).toBe('unknown')
    })

    test('a connection that is cut while the statement waits costs nothing', async () => {
      const blocker = await test_.database.pool.connect()
      const task = newTask()
      try {
        await blocker.query('begin')
        await blocker.query('lock table tasks in share row exclusive mode')
        const inserting = insert([task])
        const [victim] = await until(async () => {
          const rows = await query<{ pid: number }>(
            `select pid from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database() and query like '%into tasks%'`,
          )
          return rows.length > 0 && rows
        })
        await query('select pg_terminate_backend($1)', [victim?.pid])
        await blocker.query('commit')
        expect(kinds(await inserting)).toEqual(['created'])
      } finally {
        blocker.release()
      }
      expect(await query('select id from tasks')).toEqual([{ id: task.id }])
    })

    test('a queue that is deleted meanwhile refuses its tasks', async () => {
      await query(`insert into queues (name, retry, retention) values ('gone', '{"maxAttempts": 1}', '{}')`)
      const blocker = await test_.database.pool.connect()
      try {
        await blocker.query('begin')
        await blocker.query('lock table tasks in share row exclusive mode')
        const inserting = insert([newTask({ queue: 'gone' })])
        await until(async () => {
          const rows = await query(
            `select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database() and query like '%into tasks%'`,
          )
          return rows.length > 0
        })
        await blocker.query(`delete from queues where name = 'gone'`)
        await blocker.query('commit')
        expect(kinds(await inserting)).toEqual(['unknown-queue'])
      } finally {
        blocker.release()
      }
    })

    /** A pool that commits the first `times` statements or transactions and then loses their answer, as a cut connection does. */
    function losingAnswers(times: number) {
      let left = times
      const lost = () => {
        left -= 1
        return Object.assign(new Error('Connection terminated unexpectedly'))
      }
      const { pool } = test_.database
      return new Proxy(pool, {
        get(target, name) {
          if (name === 'query') {
            return async (...args: Parameters<typeof pool.query>) => {
              const result = await target.query(...args)
              if (left > 0) throw lost()
              return result
            }
          }
          if (name === 'connect') {
            return async () => {
              const client = await target.connect()
              return new Proxy(client, {
                get(connection, property) {
                  if (property !== 'query') {
                    const value = Reflect.get(connection, property)
                    return typeof value === 'function' ? value.bind(connection) : value
                  }
                  return async (...args: Parameters<typeof client.query>) => {
                    const result = await connection.query(...args)
                    if ((args[0] as unknown) === 'commit' && left > 0) throw lost()
                    return result
                  }
                },
              })
            }
          }
          return Reflect.get(target, name)
        },
      })
    }
  })
}
