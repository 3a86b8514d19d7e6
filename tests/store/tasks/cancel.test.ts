import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { v7 } from 'uuid'
import { inTransaction } from '../../../src/store/database/statement.ts'
import { cancelTasks, cancelWaiting } from '../../../src/store/tasks/cancel.ts'
import { insertTasks } from '../../../src/store/tasks/insert/insert.ts'
import type { ClaimedTask } from '../../../src/task/task.ts'
import { ENGINES } from '../../support/database.ts'
import { DEAD, FAILED, miscounted, newTask, SUCCEEDED, type TaskLedger, taskLedger } from '../../support/tasks.ts'

describe.each(ENGINES)('7: cancel on %s', (engine) => {
  let ledger: TaskLedger
  beforeAll(async () => {
    ledger = await taskLedger(engine)
  })
  afterEach(async () => {
    const wrong = await miscounted(ledger.pool)
    await ledger.clear()
    expect(wrong).toEqual([])
  })
  afterAll(() => ledger.test.drop())

  test('what waits is cancelled at once, what runs is asked to stop, what is final stays; answers come in order', async () => {
    const [pending, later, queued, retrying, running, done, dead] = (await ledger.insertMany([
      ...Array.from({ length: 7 }, () => ({})),
    ])) as [string, string, string, string, string, string, string]
    await ledger.run(done, SUCCEEDED)
    await ledger.run(dead, DEAD)
    await ledger.run(retrying, FAILED)
    await ledger.claimOne(running)
    await ledger.pool.query(`update tasks set status = 'queued' where id = $1`, [queued])
    await ledger.pool.query(`update tasks set due_at = now() + interval '1 h' where id = $1`, [later])
    const unknown = v7()

    const ids = [unknown, dead, done, running, retrying, queued, later, pending]
    const outcomes = ['unknown', 'final', 'final', 'requested', 'cancelled', 'cancelled', 'cancelled', 'cancelled']
    expect(await cancelTasks(ledger.pool, ids)).toEqual(ids.map((id, i) => ({ id, outcome: outcomes[i] })) as never)

    const expected = { [running]: 'running', [done]: 'succeeded', [dead]: 'dead' }
    for (const id of [pending, later, queued, retrying, running, done, dead]) {
      const row = await ledger.row(id)
      expect(row.status).toBe((expected[id] ?? 'cancelled') as never)
      expect(row.finished_at === null).toBe(id === running)
      expect(row.cancel_requested).toBe(id !== done && id !== dead)
    }
    expect(await cancelTasks(ledger.pool, [running, pending])).toEqual([
      { id: running, outcome: 'requested' },
      { id: pending, outcome: 'final' },
    ])
    expect(await ledger.claim(10)).toEqual([])
    expect(await cancelTasks(ledger.pool, [])).toEqual([])
  })

  test('20: a cancelled parent takes its live children and theirs along, and leaves final ones alone', async () => {
    const top = await ledger.insert()
    const middle = await ledger.insert({ parentId: top })
    const [leaf, runs, done] = (await ledger.insertMany([
      { parentId: middle },
      { parentId: middle, priority: 5 },
      { parentId: top, priority: 7 },
    ])) as [string, string, string]
    await ledger.run(done, SUCCEEDED)
    await ledger.run(top, SUCCEEDED)
    const [running] = await ledger.claim(1)
    expect(running?.id).toBe(runs)

    expect(await cancelTasks(ledger.pool, [top])).toEqual([{ id: top, outcome: 'requested' }])

    expect(await ledger.row(middle)).toMatchObject({ status: 'cancelled', children_dead: 1 })
    expect(await ledger.status(leaf)).toBe('cancelled')
    expect(await ledger.row(runs)).toMatchObject({ status: 'running', cancel_requested: true })
    expect(await ledger.status(done)).toBe('succeeded')
    expect(await ledger.row(top)).toMatchObject({ status: 'cancelled', children_succeeded: 1, children_dead: 1 })
    expect(await ledger.settle(running as ClaimedTask, FAILED)).toMatchObject({ status: 'cancelled' })
    expect(await ledger.row(middle)).toMatchObject({ children_total: 2, children_dead: 2 })
  })

  test('20: cancel again finishes what a crash cut short: the children of a parent that is cancelled already', async () => {
    const parent = await ledger.insert()
    const child = await ledger.insert({ parentId: parent })
    await ledger.pool.query(
      `update tasks set status = 'cancelled', cancel_requested = true, finished_at = now() where id = $1`,
      [parent],
    )
    expect(await cancelTasks(ledger.pool, [parent])).toEqual([{ id: parent, outcome: 'final' }])
    expect(await ledger.status(child)).toBe('cancelled')
  })

  test('20: a parent of thousands is cancelled with all of them', async () => {
    const parent = await ledger.insert()
    await ledger.insertMany(Array.from({ length: 4_500 }, () => ({ parentId: parent })))
    await ledger.run(parent, SUCCEEDED)
    await cancelTasks(ledger.pool, [parent])
    expect(await ledger.row(parent)).toMatchObject({ status: 'cancelled', children_dead: 4_500 })
  }, 20_000)

  test('20: children that are added while their parent is cancelled are cancelled with it, or refused', async () => {
    for (const sealed of [false, true]) {
      const parent = await ledger.insert()
      await ledger.insertMany([{ parentId: parent }, { parentId: parent }])
      if (sealed) await ledger.run(parent, SUCCEEDED)
      else await ledger.claimOne(parent)
      const adding = Array.from({ length: 20 }, () =>
        insertTasks(ledger.pool, ledger.node, [newTask({ parentId: parent }), newTask({ parentId: parent })]),
      )
      const [, ...answers] = await Promise.all([cancelTasks(ledger.pool, [parent]), ...adding])
      const { rows } = await ledger.pool.query<{ status: string; count: number }>(
        'select status, count(*)::int as count from tasks where parent_id = $1 group by status',
        [parent],
      )
      const added = answers.flat().filter((answer) => answer.kind === 'created').length
      expect(rows).toEqual([{ status: 'cancelled', count: 2 + added }])
      expect(await ledger.status(parent)).toBe(sealed ? 'cancelled' : 'running')
    }
  })

  test('a cancel that meets a settle waits for it, and takes what that made of the task', async () => {
    for (const [end, outcome] of [
      ['succeeded', 'final'],
      ['pending', 'cancelled'],
    ]) {
      const id = await ledger.insert()
      await ledger.claimOne(id)
      let cancelled: Promise<unknown> = Promise.resolve()
      await inTransaction(ledger.pool, async (tx) => {
        await tx.query('update tasks set status = $2 where id = $1', [id, end])
        cancelled = cancelTasks(ledger.pool, [id])
        // The cancel is sent before this commits, or finds its commit: both must end the same.
        await ledger.pool.query('select pg_sleep(0.02)')
      })
      expect(await cancelled).toEqual([{ id, outcome }])
    }
  })

  test('purge cancels what waits in a queue, due or not, and what the broker has, and gives the number', async () => {
    await ledger.queue('other')
    const [running] = await ledger.insertMany([{ priority: 9 }, ...Array.from({ length: 2_100 }, () => ({}))])
    const elsewhere = await ledger.insert({ queue: 'other' })
    await ledger.insert({ delayMs: 60_000 })
    await ledger.claim(1)
    await ledger.pool.query(
      `update tasks set status = 'queued' where id in (select id from tasks where status = 'pending' and queue = 'default' limit 50)`,
    )
    expect(await cancelWaiting(ledger.pool, 'default')).toBe(2_101)
    expect(await ledger.status(running as string)).toBe('running')
    expect(await ledger.status(elsewhere)).toBe('pending')
    expect(await cancelWaiting(ledger.pool, 'default')).toBe(0)
    expect(await cancelWaiting(ledger.pool, 'nowhere')).toBe(0)
  }, 20_000)
})
