import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { v7 } from 'uuid'
import { insertTasks } from '../../../../src/store/tasks/insert/insert.ts'
import { conditions, type Place, type TaskFilter } from '../../../../src/store/tasks/read/filter.ts'
import { listTasks, listTasksById, pageStatement } from '../../../../src/store/tasks/read/list.ts'
import { findByPayload, findTasks, SEARCH_BOUNDS, searchTasks } from '../../../../src/store/tasks/read/search.ts'
import type { NewTask } from '../../../../src/task/task.ts'
import { ENGINES, type TestDatabase, testDatabase } from '../../../support/database.ts'
import { newTask } from '../new-task.ts'

for (const engine of ENGINES) {
  describe(`lists of tasks on ${engine}`, () => {
    let test_: TestDatabase
    const pool = () => test_.database.pool
    const query = async <T>(text: string, values: unknown[] = []) => (await pool().query(text, values)).rows as T[]
    const ids = (rows: { id: string }[]) => rows.map(({ id }) => id)

    /** Stores tasks a second apart, the first one the oldest; gives them newest first. */
    async function stored(tasks: NewTask[]): Promise<string[]> {
      await insertTasks(pool(), v7(), tasks)
      await dated(tasks)
      return ids(tasks).reverse()
    }

    async function dated(tasks: NewTask[]): Promise<void> {
      await query(
        `update tasks t set created_at = '2026-01-01T00:00:00.000001Z'::timestamptz + n * interval '1 second'
         from unnest($1::uuid[]) with ordinality as o(id, n) where t.id = o.id`,
        [ids(tasks)],
      )
    }

    beforeAll(async () => {
      test_ = await testDatabase(engine)
      for (const name of ['emails', 'sms']) {
        await query(`insert into queues (name, retry, retention) values ($1, '{"maxAttempts": 7}', '{}')`, [name])
      }
    }, 60_000)
    afterEach(() => query('delete from tasks'))
    afterAll(() => test_?.drop())

    test('pages follow each other newest first, without a gap or a double, also where times are equal', async () => {
      const all = await stored(Array.from({ length: 25 }, () => newTask()))
      await query(`update tasks set created_at = date_trunc('minute', created_at)`)
      const read: string[] = []
      let after: Place | undefined
      do {
        const page = await listTasks(pool(), {}, 10, after)
        read.push(...ids(page.rows))
        after = page.next
      } while (after)
      expect(read).toHaveLength(25)
      expect(read.toSorted()).toEqual(all.toSorted())
    })

    test('tasks that differ by a microsecond are not passed over', async () => {
      const all = await stored(Array.from({ length: 3 }, () => newTask()))
      await query(
        `update tasks t set created_at = '2026-01-01T00:00:00Z'::timestamptz + n * interval '1 microsecond'
         from unnest($1::uuid[]) with ordinality as o(id, n) where t.id = o.id`,
        [[...all].reverse()],
      )
      const first = await listTasks(pool(), {}, 1)
      const second = await listTasks(pool(), {}, 1, first.next)
      const third = await listTasks(pool(), {}, 1, second.next)
      expect([first, second, third].flatMap(({ rows }) => ids(rows))).toEqual(all)
      expect(third.next).toBeUndefined()
    })

    test('every filter holds', async () => {
      const parent = newTask()
      const tasks = [
        parent,
        newTask({ queue: 'sms' }),
        newTask({ type: 'welcome' }),
        newTask({ parentId: parent.id, origin: 'child' }),
      ]
      await insertTasks(pool(), v7(), [parent])
      await insertTasks(pool(), v7(), tasks.slice(1))
      await dated(tasks)
      await query(`update tasks set status = 'dead' where id = $1`, [tasks[1]?.id])
      const named = async (filter: TaskFilter) => ids((await listTasks(pool(), filter, 10)).rows)
      expect(await named({ queue: 'sms' })).toEqual([tasks[1]?.id as string])
      expect(await named({ status: ['dead'] })).toEqual([tasks[1]?.id as string])
      expect(await named({ status: ['dead', 'cancelled'] })).toEqual([tasks[1]?.id as string])
      expect(await named({ type: 'welcome' })).toEqual([tasks[2]?.id as string])
      expect(await named({ parentId: parent.id })).toEqual([tasks[3]?.id as string])
      expect(await named({ origin: 'child' })).toEqual([tasks[3]?.id as string])
      expect(await named({ createdAfter: '2026-01-01T00:00:03.000Z' })).toHaveLength(2)
      expect(await named({ queue: 'sms', status: ['pending'] })).toEqual([])
    })

    test('a page ends before it grows beyond 8 MiB, and the next one goes on', async () => {
      const payload = `"${'x'.repeat(3 * 1024 * 1024)}"`
      const all = await stored(Array.from({ length: 4 }, () => newTask({ payload })))
      const first = await listTasks(pool(), {}, 50)
      expect(ids(first.rows)).toEqual(all.slice(0, 2))
      const second = await listTasks(pool(), {}, 50, first.next)
      expect(ids(second.rows)).toEqual(all.slice(2))
      expect(second.next).toBeUndefined()
    })

    test('a payload search finds what contains the JSON and says how far it looked', async () => {
      const all = await stored(
        Array.from({ length: 30 }, (_, n) => newTask({ payload: `{"n":${n},"even":${n % 2 === 0}}` })),
      )
      const one = await searchTasks(pool(), { payload: '{"n":7}' }, 10)
      expect(ids(one.rows)).toEqual([all[22] as string])
      expect(one).toMatchObject({ next: undefined, search: { scanned: 30, complete: true } })

      const first = await searchTasks(pool(), { payload: '{"even":true}' }, 10)
      const second = await searchTasks(pool(), { payload: '{"even":true}' }, 10, first.next)
      expect(ids([...first.rows, ...second.rows])).toEqual(all.filter((_, n) => n % 2 === 1))
      expect(second.next).toBeUndefined()
    })

    test('a payload search stops at its bound in rows and can go on from there', async () => {
      const all = await stored(Array.from({ length: 30 }, (_, n) => newTask({ payload: `{"n":${n}}` })))
      const bounds = { rows: 20, ms: 5_000 }
      const first = await searchTasks(pool(), { payload: '{"n":0}' }, 10, undefined, bounds)
      expect(first).toMatchObject({ rows: [], search: { scanned: 20, complete: false } })
      const second = await searchTasks(pool(), { payload: '{"n":0}' }, 10, first.next, bounds)
      expect(ids(second.rows)).toEqual(all.slice(-1))
      expect(second.search).toEqual({ scanned: 10, complete: true })
    })

    test('a payload search ends in time when a statement is slow', async () => {
      await stored([newTask()])
      const blocker = await pool().connect()
      try {
        await blocker.query('begin')
        await blocker.query('lock table tasks in access exclusive mode')
        const found = await findByPayload(pool(), { payload: '{}' }, 10, undefined, { rows: 100, ms: 100 })
        expect(found).toMatchObject({ hits: [], scanned: 0, complete: false })
      } finally {
        await blocker.query('rollback')
        blocker.release()
      }
    })

    test('findTasks names the places of all that match, with and without a payload', async () => {
      const all = await stored(Array.from({ length: 5 }, (_, n) => newTask({ payload: `{"n":${n % 2}}` })))
      expect((await findTasks(pool(), {}, 3)).hits.map(({ id }) => id)).toEqual(all.slice(0, 3))
      const rest = await findTasks(pool(), {}, 3, (await findTasks(pool(), {}, 3)).reached)
      expect(rest).toMatchObject({ complete: true })
      expect(rest.hits.map(({ id }) => id)).toEqual(all.slice(3))
      const odd = await findTasks(pool(), { payload: '{"n":1}' }, 10, undefined, SEARCH_BOUNDS)
      expect(odd.hits.map(({ id }) => id)).toEqual([all[1], all[3]] as string[])
      expect(ids((await listTasksById(pool(), all.slice(1, 3))).rows)).toEqual(all.slice(1, 3))
    })

    test('a page without a filter, of one status and of one parent is read from an index in its order', async () => {
      await query(
        `insert into tasks (id, queue, payload, status, priority, due_at, max_attempts, parent_id, origin)
         select gen_random_uuid(), 'emails', '{}', (array['succeeded','dead','pending']::task_status[])[1 + n % 3], 0, now(), 1,
           case when n % 10 = 0 then '019b7a3e-5c00-7000-8000-000000000001'::uuid end, 'api'
         from generate_series(1, 20000) n`,
      )
      await query('analyze tasks')
      const plan = async (filter: TaskFilter) => {
        const values: unknown[] = []
        const rows = await query<{ 'QUERY PLAN': string }>(
          `explain ${pageStatement(conditions(filter, undefined, values), 50)}`,
          values,
        )
        return rows.map((row) => row['QUERY PLAN']).join('\n')
      }
      expect(await plan({})).toContain('Index Scan Backward using tasks_created')
      expect(await plan({ status: ['dead'] })).toContain('Index Scan Backward using tasks_unfinished')
      expect(await plan({ parentId: '019b7a3e-5c00-7000-8000-000000000001' })).toMatch(
        /Backward using tasks_(parent|created)/,
      )
    })
  })
}
