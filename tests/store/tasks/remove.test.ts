import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { v7 } from 'uuid'
import { readAccounting } from '../../../src/store/accounting.ts'
import { replayTasks } from '../../../src/store/tasks/dead-letters/replay.ts'
import { pruneTasks, removeTasks } from '../../../src/store/tasks/remove.ts'
import { ENGINES } from '../../support/database.ts'
import { DEAD, SUCCEEDED, type TaskLedger, taskLedger } from '../../support/tasks.ts'

describe.each(ENGINES)('remove on %s', (engine) => {
  let ledger: TaskLedger
  beforeAll(async () => {
    ledger = await taskLedger(engine)
  })
  afterEach(() => ledger.clear())
  afterAll(() => ledger.test.drop())

  const count = async (): Promise<number> =>
    (await ledger.pool.query<{ count: number }>('select count(*)::int as count from tasks')).rows[0]?.count ?? 0

  test('26: deletes final tasks and counts them as pruned, by queue and origin', async () => {
    await ledger.queue('other')
    const [done, dead, running, pending] = (await ledger.insertMany([
      {},
      { queue: 'other', origin: 'child' },
      { priority: 9 },
      {},
    ])) as [string, string, string, string]
    await ledger.run(done, SUCCEEDED)
    await ledger.run(dead, DEAD)
    await ledger.claim(1)
    const unknown = v7()

    expect(await removeTasks(ledger.pool, ledger.node, [pending, running, unknown, dead, done])).toEqual([
      { id: pending, outcome: 'not-final' },
      { id: running, outcome: 'not-final' },
      { id: unknown, outcome: 'unknown' },
      { id: dead, outcome: 'deleted' },
      { id: done, outcome: 'deleted' },
    ])
    expect(await removeTasks(ledger.pool, ledger.node, [done])).toEqual([{ id: done, outcome: 'unknown' }])

    const { rows } = await ledger.pool.query('select queue, origin, accepted, pruned from counters order by queue')
    expect(rows).toEqual([
      { queue: 'default', origin: 'api', accepted: 3, pruned: 1 },
      { queue: 'other', origin: 'child', accepted: 1, pruned: 1 },
    ])
    expect(await readAccounting(ledger.test.database.db)).toMatchObject({ accepted: 4, pruned: 2, unaccounted: 0 })
  })

  test('two nodes that delete the same task count it once', async () => {
    const ids = await ledger.insertMany(Array.from({ length: 50 }, () => ({})))
    for (const task of await ledger.claim(50)) await ledger.settle(task, SUCCEEDED)
    const nodes = await Promise.all([ledger.join(), ledger.join(), ledger.join()])
    const rounds = await Promise.all(
      nodes.map((node, i) => removeTasks(ledger.pool, node, i % 2 ? ids : ids.toReversed())),
    )
    expect(rounds.flat().filter((one) => one.outcome === 'deleted')).toHaveLength(50)
    expect(await readAccounting(ledger.test.database.db)).toMatchObject({ pruned: 50, unaccounted: 0 })
  })

  test('a delete and a replay at once: one of them wins', async () => {
    for (let round = 0; round < 20; round++) {
      const id = await ledger.insert()
      await ledger.run(id, DEAD)
      const [removed, sent] = await Promise.all([
        removeTasks(ledger.pool, ledger.node, [id]),
        replayTasks(ledger.pool, [id]),
      ])
      const deleted = removed[0]?.outcome === 'deleted'
      expect(sent.replayed[0]?.outcome).toBe(deleted ? 'unknown' : 'replayed')
      expect(await count()).toBe(deleted ? 0 : 1)
      await ledger.pool.query('delete from tasks')
    }
  })

  test('20: a parent stays while it has children, and keeps its counts of those that are gone', async () => {
    const parent = await ledger.insert()
    const child = await ledger.insert({ parentId: parent })
    await ledger.run(parent, SUCCEEDED)
    await ledger.run(child, SUCCEEDED)
    expect(await removeTasks(ledger.pool, ledger.node, [parent])).toEqual([{ id: parent, outcome: 'has-children' }])
    expect(await removeTasks(ledger.pool, ledger.node, [child])).toEqual([{ id: child, outcome: 'deleted' }])
    expect(await ledger.row(parent)).toMatchObject({ status: 'succeeded', children_total: 1, children_succeeded: 1 })
    expect(await removeTasks(ledger.pool, ledger.node, [parent])).toEqual([{ id: parent, outcome: 'deleted' }])
  })

  test('retention deletes what has been final for long enough, oldest first, of one status and queue', async () => {
    await ledger.queue('other')
    const ids = await ledger.insertMany([{}, {}, {}, {}, {}, { queue: 'other' }])
    for (const [i, id] of ids.entries()) await ledger.run(id, i === 4 ? DEAD : SUCCEEDED)
    await ledger.pool.query(
      `update tasks t set finished_at = now() - make_interval(mins => o.n::int)
       from unnest($1::uuid[]) with ordinality as o(id, n) where t.id = o.id`,
      [ids],
    )
    const prune = (limit: number, keepMs: number) =>
      pruneTasks(ledger.pool, ledger.node, { queue: 'default', status: 'succeeded', keepMs, limit })
    const left = async () => {
      const { rows } = await ledger.pool.query<{ id: string }>('select id from tasks order by id')
      return rows.map((row) => row.id)
    }

    expect(await prune(10, 10 * 60_000)).toBe(0)
    expect(await prune(1, 150_000)).toBe(1)
    expect(await left()).toEqual(ids.filter((_, i) => i !== 3))
    expect(await prune(10, 150_000)).toBe(1)
    expect(await left()).toEqual(ids.filter((_, i) => i !== 3 && i !== 2))
    expect(await prune(10, 150_000)).toBe(0)
    expect(await readAccounting(ledger.test.database.db)).toMatchObject({ accepted: 6, pruned: 2, unaccounted: 0 })
  })

  test('20: retention takes parents after their children', async () => {
    const parent = await ledger.insert()
    const child = await ledger.insert({ parentId: parent })
    await ledger.run(parent, SUCCEEDED)
    await ledger.run(child, SUCCEEDED)
    const prune = () =>
      pruneTasks(ledger.pool, ledger.node, { queue: 'default', status: 'succeeded', keepMs: 0, limit: 10 })
    expect(await prune()).toBe(1)
    expect(await ledger.status(parent)).toBe('succeeded')
    expect(await prune()).toBe(1)
    expect(await count()).toBe(0)
  })
})
