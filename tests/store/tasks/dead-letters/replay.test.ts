import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { v7 } from 'uuid'
import { replayTasks, startPace } from '../../../../src/store/tasks/dead-letters/replay.ts'
import { removeTasks } from '../../../../src/store/tasks/remove.ts'
import { runNow } from '../../../../src/store/tasks/run-now.ts'
import type { ClaimedTask } from '../../../../src/task/task.ts'
import { ENGINES } from '../../../support/database.ts'
import { DEAD, FAILED, LOST, miscounted, SUCCEEDED, type TaskLedger, taskLedger } from '../../../support/tasks.ts'

describe.each(ENGINES)('replay on %s', (engine) => {
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

  test('sends dead and cancelled tasks again with failures forgotten, and tells their queues', async () => {
    await ledger.queue('other')
    const [dead, cancelled, done, pending] = (await ledger.insertMany([
      { maxAttempts: 2 },
      { queue: 'other', delayMs: 60_000 },
      {},
      { queue: 'other' },
    ])) as [string, string, string, string]
    await ledger.run(dead, FAILED)
    await ledger.run(dead, FAILED)
    await ledger.run(done, SUCCEEDED)
    await ledger.cancel(cancelled)
    const unknown = v7()

    const { replayed, queues } = await replayTasks(ledger.pool, [pending, unknown, done, cancelled, dead])

    expect(replayed).toEqual([
      { id: pending, outcome: 'not-replayable' },
      { id: unknown, outcome: 'unknown' },
      { id: done, outcome: 'not-replayable' },
      { id: cancelled, outcome: 'replayed' },
      { id: dead, outcome: 'replayed' },
    ])
    expect(queues.sort()).toEqual(['default', 'other'])
    expect(await ledger.row(dead)).toMatchObject({ status: 'pending', failures: 0, attempt: 2, finished_at: null })
    expect(await ledger.row(cancelled)).toMatchObject({ status: 'pending', cancel_requested: false, attempt: 0 })
    expect(await ledger.claim(10, { queue: 'other' })).toHaveLength(2)
    expect(await ledger.run(dead, FAILED)).toMatchObject({ status: 'retrying' })
    expect(await replayTasks(ledger.pool, [])).toEqual({ replayed: [], queues: [] })
  })

  test('4: an outcome that comes after the replay is dropped unless it is that last attempt’s success', async () => {
    const id = await ledger.insert()
    const task = await ledger.claimOne(id)
    await ledger.settle(task, DEAD)
    await replayTasks(ledger.pool, [id])
    for (const outcome of [DEAD, FAILED, LOST]) expect(await ledger.settle(task, outcome)).toMatchObject({ late: true })
    expect((await ledger.claimOne(id)).attempt).toBe(2)
    expect(await ledger.settle(task, SUCCEEDED)).toMatchObject({ late: true })
  })

  test('20: replay of a parent whose work is done sends its dead children, and reopens it', async () => {
    const parent = await ledger.insert()
    await ledger.queue('children')
    const [good, bad, off] = (await ledger.insertMany(
      Array.from({ length: 3 }, () => ({ parentId: parent, queue: 'children' })),
    )) as [string, string, string]
    await ledger.run(parent, { kind: 'succeeded', result: '7' })
    await ledger.run(good, SUCCEEDED)
    await ledger.run(bad, DEAD)
    await ledger.cancel(off)
    expect(await ledger.status(parent)).toBe('dead')

    const { replayed, queues } = await replayTasks(ledger.pool, [parent])

    expect(replayed).toEqual([{ id: parent, outcome: 'replayed' }])
    expect(queues).toEqual(['children'])
    expect(await ledger.row(parent)).toMatchObject({ status: 'running', sealed: true, attempt: 1, children_dead: 0 })
    expect([await ledger.status(good), await ledger.status(bad), await ledger.status(off)]).toEqual([
      'succeeded',
      'pending',
      'pending',
    ])
    await ledger.run(bad, SUCCEEDED)
    await ledger.run(off, SUCCEEDED)
    expect(await ledger.row(parent)).toMatchObject({ status: 'succeeded', result: '7', error: null })
  })

  test('a task can be replayed to another queue: the story goes along, its idempotency key stays behind', async () => {
    await ledger.queue('other')
    const id = await ledger.insert({ idempotencyKey: 'k', fingerprint: 'f', maxAttempts: 5 })
    await ledger.run(id, DEAD)
    const { replayed, queues } = await replayTasks(ledger.pool, [id], undefined, { queue: 'other' })
    expect([replayed, queues]).toEqual([[{ id, outcome: 'replayed' }], ['other']])
    expect(await ledger.row(id)).toMatchObject({
      ...{ queue: 'other', status: 'pending', attempt: 1, failures: 0, max_attempts: 5, idempotency_key: null },
      logs: ['replayed to the queue "other"; before in "default", idempotencyKey k'],
    })
    expect((await ledger.row(id)).attempts).toHaveLength(1)
    await ledger.insert({ idempotencyKey: 'k', fingerprint: 'g' })
    expect(await ledger.run(id, SUCCEEDED)).toMatchObject({ status: 'succeeded' })

    const same = await ledger.insert({ idempotencyKey: 'l', fingerprint: 'f' })
    await ledger.run(same, DEAD)
    await replayTasks(ledger.pool, [same], undefined, { queue: 'default' })
    expect(await ledger.row(same)).toMatchObject({ idempotency_key: 'l', logs: null })
  })

  test('to a queue that is not there nothing goes', async () => {
    const id = await ledger.insert()
    await ledger.run(id, DEAD)
    const nowhere = replayTasks(ledger.pool, [id], undefined, { queue: 'nowhere' })
    await expect(nowhere).rejects.toMatchObject({ code: 'unknown-queue' })
    expect(await ledger.row(id)).toMatchObject({ status: 'dead', queue: 'default' })
  })

  test('what has its place by its parent, its exchange or its missing target stays where it is', async () => {
    await ledger.queue('other')
    const sealed = await ledger.insert()
    const child = await ledger.insert({ parentId: sealed })
    await ledger.run(sealed, SUCCEEDED)
    await ledger.run(child, DEAD)
    const fanned = await ledger.insert()
    const copy = await ledger.insert({ parentId: fanned })
    await ledger.pool.query(`update tasks set exchange = 'x' where id = $1`, [fanned])
    await ledger.run(copy, DEAD)
    const bare = await ledger.insert({ queue: 'other' })
    await ledger.run(bare, DEAD)

    const to = async (queue: string, ids: string[]) =>
      (await replayTasks(ledger.pool, ids, undefined, { queue })).replayed.map(({ outcome }) => outcome)
    expect(await to('other', [sealed, copy])).toEqual(['not-movable', 'not-movable'])
    expect(await to('default', [bare])).toEqual(['not-movable'])
    expect([await ledger.status(sealed), await ledger.status(copy), await ledger.status(bare)]).toEqual([
      'dead',
      'dead',
      'dead',
    ])
    // A child of its own kind goes anywhere, and its parent reopens.
    expect(await to('other', [child])).toEqual(['replayed'])
    expect(await ledger.status(sealed)).toBe('running')
    await ledger.run(child, SUCCEEDED)
    expect(await ledger.status(sealed)).toBe('succeeded')
  })

  test('what an exchange brought to its one queue can go to another one, and is addressed to that', async () => {
    await ledger.queue('other')
    const id = await ledger.insert()
    await ledger.pool.query(`update tasks set exchange = 'x', routing_key = 'a' where id = $1`, [id])
    await ledger.run(id, DEAD)
    await replayTasks(ledger.pool, [id], undefined, { queue: 'default' })
    expect(await ledger.row(id)).toMatchObject({ status: 'pending', exchange: 'x', routing_key: 'a' })
    await ledger.run(id, DEAD)
    await replayTasks(ledger.pool, [id], undefined, { queue: 'other' })
    expect(await ledger.row(id)).toMatchObject({ queue: 'other', exchange: null, routing_key: null })
  })

  test('with a pace tasks are due one after another, also over several calls', async () => {
    const ids = await ledger.insertMany(Array.from({ length: 5 }, () => ({})))
    for (const id of ids) await ledger.run(id, DEAD)
    const pace = await startPace(ledger.pool, 0.1)
    await replayTasks(ledger.pool, ids.slice(0, 3), undefined, { pace })
    await replayTasks(ledger.pool, ids.slice(3), undefined, { pace })
    const due = await Promise.all(ids.map(async (id) => Date.parse((await ledger.row(id)).due_at)))
    expect(due.slice(1).map((at) => at - Date.parse(pace.startAt))).toEqual([10_000, 20_000, 30_000, 40_000])
    expect(pace.sent).toBe(5)

    // What should have been due by now is due at once.
    const late = await ledger.insert()
    await ledger.run(late, DEAD)
    await replayTasks(ledger.pool, [late], undefined, {
      pace: { perSecond: 1, startAt: '2026-01-01T00:00:00.000Z', sent: 3 },
    })
    expect(await ledger.claim(10)).toContainEqual(expect.objectContaining({ id: late }))
  })

  test('20: replay of a parent whose own work failed sends it and its dead children', async () => {
    const parent = await ledger.insert()
    const child = await ledger.insert({ parentId: parent })
    await ledger.cancel(parent)
    expect([await ledger.status(parent), await ledger.status(child)]).toEqual(['cancelled', 'cancelled'])
    expect((await replayTasks(ledger.pool, [parent])).replayed).toEqual([{ id: parent, outcome: 'replayed' }])
    expect([await ledger.status(parent), await ledger.status(child)]).toEqual(['pending', 'pending'])
    expect(await ledger.row(parent)).toMatchObject({ children_total: 1, children_dead: 0, cancel_requested: false })
    await ledger.run(parent, SUCCEEDED)
    await ledger.run(child, SUCCEEDED)
    expect(await ledger.status(parent)).toBe('succeeded')
  })

  test('20: replay reaches through parents of parents, by batches of thousands', async () => {
    const top = await ledger.insert()
    const middle = await ledger.insert({ parentId: top })
    await ledger.insertMany(Array.from({ length: 4_100 }, () => ({ parentId: middle })))
    await ledger.run(top, SUCCEEDED)
    await ledger.run(middle, SUCCEEDED)
    await ledger.cancel(top)
    expect([await ledger.status(top), await ledger.status(middle)]).toEqual(['cancelled', 'cancelled'])
    await replayTasks(ledger.pool, [top])
    expect(await ledger.row(middle)).toMatchObject({ status: 'running', children_dead: 0, cancel_requested: false })
    expect(await ledger.row(top)).toMatchObject({ status: 'running', children_dead: 0, cancel_requested: false })
  }, 20_000)

  test('20: a parent and its child replayed together are both replayed, and once', async () => {
    const parent = await ledger.insert()
    const child = await ledger.insert({ parentId: parent })
    await ledger.run(parent, SUCCEEDED)
    await ledger.run(child, DEAD)
    const { replayed } = await replayTasks(ledger.pool, [parent, child])
    expect(replayed.map((one) => one.outcome)).toEqual(['replayed', 'replayed'])
    expect(await ledger.status(parent)).toBe('running')
  })

  test('20: a parent whose dead child was discarded has nothing to replay', async () => {
    const parent = await ledger.insert()
    const child = await ledger.insert({ parentId: parent })
    await ledger.run(parent, SUCCEEDED)
    await ledger.run(child, DEAD)
    await removeTasks(ledger.pool, ledger.node, [child])
    expect((await replayTasks(ledger.pool, [parent])).replayed).toEqual([{ id: parent, outcome: 'not-replayable' }])
    expect(await ledger.row(parent)).toMatchObject({ status: 'dead', children_total: 1, children_dead: 1 })
    // It keeps its counts of a child that is gone: forgotten here, so that the recount below holds.
    await ledger.pool.query('update tasks set children_total = 0, children_dead = 0')
  })

  test('replays of the same tasks at once send each once', async () => {
    const parent = await ledger.insert()
    const children = await ledger.insertMany(Array.from({ length: 40 }, () => ({ parentId: parent })))
    await ledger.run(parent, SUCCEEDED)
    for (const task of await ledger.claim(40)) await ledger.settle(task, DEAD)
    const rounds = await Promise.all([
      replayTasks(ledger.pool, children),
      replayTasks(ledger.pool, [parent]),
      replayTasks(ledger.pool, children.toReversed()),
      replayTasks(ledger.pool, [parent, ...children]),
    ])
    const sent = rounds
      .flatMap((round) => round.replayed)
      .filter((one) => one.outcome === 'replayed' && one.id !== parent)
    expect(new Set(sent.map((one) => one.id)).size).toBe(sent.length)
    expect(await ledger.row(parent)).toMatchObject({ status: 'running', children_dead: 0 })
    expect(await ledger.claim(100)).toHaveLength(40)
  }, 20_000)

  test('run-now makes waiting tasks due, and nothing else', async () => {
    const [later, retrying, due, running, done] = (await ledger.insertMany([
      { delayMs: 3_600_000 },
      {},
      {},
      { priority: 9 },
      {},
    ])) as [string, string, string, string, string]
    await ledger.run(done, SUCCEEDED)
    await ledger.run(retrying, FAILED)
    await ledger.pool.query(`update tasks set due_at = now() + interval '1 h' where id = $1`, [retrying])
    await ledger.pool.query(`update tasks set due_at = '2020-01-01' where id = $1`, [due])
    await ledger.claim(1)
    const unknown = v7()

    const { due: outcomes, queues } = await runNow(ledger.pool, [unknown, running, done, later, retrying, due])

    expect(outcomes).toEqual([
      { id: unknown, outcome: 'unknown' },
      { id: running, outcome: 'not-waiting' },
      { id: done, outcome: 'not-waiting' },
      { id: later, outcome: 'due' },
      { id: retrying, outcome: 'due' },
      { id: due, outcome: 'due' },
    ])
    expect(queues).toEqual(['default'])
    expect((await ledger.claim(10)).map((task) => task.id)[0]).toBe(due)
    for (const id of [later, retrying]) expect(await ledger.status(id)).toBe('running')
  })

  test('run-now and a claim at once: the task runs once', async () => {
    for (let round = 0; round < 30; round++) {
      const id = await ledger.insert()
      const claims: ClaimedTask[][] = []
      await Promise.all([
        runNow(ledger.pool, [id]),
        ledger.claim(5).then((claimed) => claims.push(claimed)),
        runNow(ledger.pool, [id]),
        ledger.claim(5).then((claimed) => claims.push(claimed)),
      ])
      // A claim passes over a row that is just being made due; the next one takes it.
      claims.push(await ledger.claim(5))
      expect(claims.flat().map((task) => [task.id, task.attempt])).toEqual([[id, 1]])
    }
  })
})
