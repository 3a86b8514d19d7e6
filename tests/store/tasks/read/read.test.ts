import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { v7 } from 'uuid'
import { insertTasks } from '../../../../src/store/tasks/insert/insert.ts'
import { createdRow, readSituation, readTask } from '../../../../src/store/tasks/read/read.ts'
import { ENGINES, type TestDatabase, testDatabase } from '../../../support/database.ts'
import { newTask } from '../new-task.ts'

for (const engine of ENGINES) {
  describe(`reading tasks on ${engine}`, () => {
    let test_: TestDatabase
    const pool = () => test_.database.pool
    const state = { broker: 'in-process', consumers: [] } as const

    beforeAll(async () => {
      test_ = await testDatabase(engine)
      await pool().query(
        `insert into queues (name, retry, retention) values ('emails', '{"maxAttempts": 7}', '{}'), ('sms', '{}', '{}')`,
      )
    }, 60_000)
    afterAll(() => test_?.drop())

    test('a task that was created just now is what reading it back gives', async () => {
      const task = newTask({
        type: 't',
        target: '{"type":"noop"}',
        delayMs: 60_000,
        timeoutMs: 1_000,
        idempotencyKey: 'k',
        priority: 3,
      })
      const [created] = await insertTasks(pool(), v7(), [task])
      if (created?.kind !== 'created') throw new Error('not created')
      expect(await readTask(pool(), task.id)).toEqual(createdRow(task, created))
    })

    test('an unknown task is undefined', async () => {
      expect(await readTask(pool(), v7())).toBeUndefined()
    })

    test('the situation holds the queues that were asked for, their consumers, and the nodes that live', async () => {
      const [alive, dead, left, silent] = [v7(), v7(), v7(), v7()]
      for (const id of [alive, dead, left, silent]) {
        await pool().query(
          `insert into nodes (id, name, version, roles, state) values ($1, 'n', '1', '{worker}', $2::text::jsonb)`,
          [id, JSON.stringify(state)],
        )
      }
      await pool().query('update nodes set dead_at = now() where id = $1', [dead])
      await pool().query('update nodes set left_at = now() where id = $1', [left])
      await pool().query(`update nodes set beat_at = now() - interval '16 seconds' where id = $1`, [silent])
      await pool().query(
        `insert into consumers (id, queue, target, concurrency, timeout_ms, paused) values ($1, 'emails', '{"type":"task"}', 5, 1000, true)`,
        [v7()],
      )
      const situation = await readSituation(pool(), ['emails'])
      expect([...situation.queues]).toEqual([
        [
          'emails',
          { paused: false, conflict: null, settlement: 'outcome', consumers: [{ paused: true, concurrency: 5 }] },
        ],
      ])
      expect(Object.fromEntries(situation.nodes)).toEqual({ [alive as string]: state as never })
      expect(Math.abs(Date.parse(situation.now) - Date.now())).toBeLessThan(60_000)
      expect([...(await readSituation(pool())).queues.keys()].sort()).toEqual(['emails', 'sms'])
    })

    test('without any living node the time is told all the same', async () => {
      await pool().query('delete from nodes')
      const situation = await readSituation(pool(), [])
      expect(situation.nodes.size).toBe(0)
      expect(situation.now).toMatch(/Z$/)
    })
  })
}
