import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { v7 } from 'uuid'
import { createStoreLedger } from '../../src/store/ledger.ts'
import { beatNode, foldEndedNodes, joinNode, leaveNode, markSilentNodes, orphanedTasks } from '../../src/store/nodes.ts'
import { cancelTasks } from '../../src/store/tasks/cancel.ts'
import type { ClaimedTask } from '../../src/task/task.ts'
import { ENGINES } from '../support/database.ts'
import { atOnce, FAILED, IDLE, LOST, SUCCEEDED, settlementOf, type TaskLedger, taskLedger } from '../support/tasks.ts'

describe.each(ENGINES)('nodes on %s', (engine) => {
  let ledger: TaskLedger
  beforeAll(async () => {
    ledger = await taskLedger(engine)
  })
  afterEach(() => ledger.clear())
  afterAll(() => ledger.test.drop())

  const beat = (held: string[] = [], started: string[] = [], node = ledger.node) =>
    beatNode(ledger.pool, { node, held, started, state: IDLE })
  const silent = (node: string, seconds: number) =>
    ledger.pool.query('update nodes set beat_at = now() - make_interval(secs => $2) where id = $1', [node, seconds])

  /** A node that has been beating for long: it may say that others are dead. */
  async function rescuer(): Promise<string> {
    const node = await ledger.join()
    await ledger.pool.query(`update nodes set steady_since = now() - interval '1 min' where id = $1`, [node])
    return node
  }

  test('3: a beat names the held tasks to cancel, and the rows that run on the node and were not named', async () => {
    await ledger.insertMany([{}, {}, {}, {}])
    const [held, toCancel, unnamed, unnamedCancelled] = (await ledger.claim(4)) as [
      ClaimedTask,
      ClaimedTask,
      ClaimedTask,
      ClaimedTask,
    ]
    const elsewhere = await ledger.insert()
    await ledger.claimOne(elsewhere, await ledger.join())
    await cancelTasks(ledger.pool, [toCancel.id, unnamedCancelled.id, elsewhere])

    const answer = await beat([held.id, toCancel.id, elsewhere, v7()])

    expect(answer).toMatchObject({ alive: true, cancel: [toCancel.id], others: 1 })
    const { outcome: _, ...attempt } = settlementOf(unnamed, FAILED)
    expect(answer.unnamed).toContainEqual(attempt)
    expect(answer.unnamed.map((row) => row.id).sort()).toEqual([unnamed.id, unnamedCancelled.id].sort())
    // What it names can be settled as it stands: that is the give-back.
    const store = createStoreLedger(ledger.pool, atOnce)
    const settled = await store.settle(
      ledger.node,
      answer.unnamed.map((row) => ({ ...row, outcome: { kind: 'returned' } })),
    )
    expect(settled.every((one) => !one.late)).toBe(true)
    expect([await ledger.status(unnamed.id), await ledger.status(unnamedCancelled.id)]).toEqual([
      'pending',
      'cancelled',
    ])
    expect((await beat([held.id, toCancel.id])).unnamed).toEqual([])
  })

  test('12: a node with another broker than one that lives does not join, and hears which one differs', async () => {
    const join = (broker: string, id = v7()) =>
      joinNode(ledger.pool, { id, name: `${broker}-node`, version: '0', roles: [], broker, state: IDLE })
    const refused = join('rabbitmq:/')
    await expect(refused).rejects.toThrow(
      `The node "test" (${ledger.node}) uses the broker in-process, and this one rabbitmq:/`,
    )
    await expect(refused).rejects.toMatchObject({ code: 'conflict' })
    await join('in-process')

    await ledger.pool.query('update nodes set left_at = now()')
    await join('rabbitmq:/')
    await join('rabbitmq:/')
    await expect(join('rabbitmq:/other')).rejects.toThrow('"rabbitmq:/-node"')
    // Killed, and not found dead yet: it will not come back.
    await ledger.pool.query(`update nodes set beat_at = now() - interval '16 s'`)
    await join('in-process')
    const { rows } = await ledger.pool.query(
      `select distinct broker from nodes where beat_at > now() - interval '15 s'`,
    )
    expect(rows).toEqual([{ broker: 'in-process' }])
  })

  test('12: of two kinds that start at once one stays out', async () => {
    await ledger.pool.query('update nodes set left_at = now()')
    const brokers = ['in-process', 'rabbitmq:/', 'in-process', 'rabbitmq:/', 'in-process', 'rabbitmq:/']
    const joins = await Promise.allSettled(
      brokers.map((broker) =>
        joinNode(ledger.pool, { id: v7(), name: 'n', version: '0', roles: [], broker, state: IDLE }),
      ),
    )
    expect(joins.filter(({ status }) => status === 'fulfilled')).toHaveLength(3)
    const { rows } = await ledger.pool.query('select distinct broker from nodes where left_at is null')
    expect(rows).toHaveLength(1)
  })

  test('5: a node that is marked dead stays dead, whatever it beats, and is told so', async () => {
    const other = await ledger.join()
    await silent(ledger.node, 16)
    await silent(other, 5)
    const steady = await rescuer()
    expect(await markSilentNodes(ledger.pool, steady, 15_000)).toEqual([ledger.node])
    expect(await markSilentNodes(ledger.pool, steady, 15_000)).toEqual([])

    expect(await beat()).toEqual({ alive: false, cancel: [], unnamed: [], others: 0 })
    await joinNode(ledger.pool, {
      id: ledger.node,
      name: 'again',
      version: '0',
      roles: [],
      broker: 'in-process',
      state: IDLE,
    })
    expect((await beat()).alive).toBe(false)
    expect(await beat([], [], other)).toMatchObject({ alive: true, others: 1 })
    expect((await beat([], [], v7())).alive).toBe(false)
  })

  test('5: only a node that has beaten for 15 s without a gap until now may say that another is dead', async () => {
    const nodeWith = async (beatAge: number, steadyAge: number) => {
      const node = await ledger.join()
      await ledger.pool.query(
        `update nodes set beat_at = now() - make_interval(secs => $2), steady_since = now() - make_interval(secs => $3)
         where id = $1`,
        [node, beatAge, steadyAge],
      )
      return node as string
    }
    const dead = await nodeWith(16, 60)
    // Everybody's beats are old: Postgres was away, or frozen with this very statement on its way.
    const asSilent = await nodeWith(16, 60)
    const backAgain = await nodeWith(20, 60)
    await beat([], [], backAgain)
    for (const hasty of [asSilent, backAgain, await nodeWith(1, 5)])
      expect(await markSilentNodes(ledger.pool, hasty, 15_000)).toEqual([])

    const steady = await nodeWith(3, 60)
    await beat([], [], steady)
    expect((await markSilentNodes(ledger.pool, steady, 15_000)).sort()).toEqual([dead, asSilent].sort())
  })

  test('5: a beat and a rescuer at once: a node that beat in time lives', async () => {
    const steady = await rescuer()
    for (let round = 0; round < 20; round++) {
      const node = await ledger.join()
      await silent(node, 16)
      const [answer, dead] = await Promise.all([beat([], [], node), markSilentNodes(ledger.pool, steady, 15_000)])
      expect(dead.includes(node)).toBe(!answer.alive || !(await beat([], [], node)).alive)
    }
  })

  test('6: the tasks of dead and left nodes are orphans, started only if the node said so; others are not', async () => {
    const [dead, left, living] = await Promise.all([ledger.join(), ledger.join(), ledger.join()])
    const ids = await ledger.insertMany([{}, {}, {}, {}])
    const tasks = [
      await ledger.claimOne(ids[0] as string, dead),
      await ledger.claimOne(ids[1] as string, dead),
      await ledger.claimOne(ids[2] as string, left),
      await ledger.claimOne(ids[3] as string, living),
    ]
    await beat([ids[0] as string, ids[1] as string], [ids[0] as string], dead as string)
    await beat([ids[2] as string], [ids[2] as string], left as string)
    await beat([ids[3] as string], [ids[3] as string], living as string)
    expect(await orphanedTasks(ledger.pool, 10)).toEqual([])
    await silent(dead as string, 20)
    await markSilentNodes(ledger.pool, await rescuer(), 15_000)
    await leaveNode(ledger.pool, left as string)

    const orphans = await orphanedTasks(ledger.pool, 10)

    expect(
      orphans.toSorted((a, b) => (a.id < b.id ? -1 : 1)).map(({ id, node, started }) => [id, node, started]),
    ).toEqual([
      [ids[0], dead, true],
      [ids[1], dead, false],
      [ids[2], left, false],
    ] as never)
    expect(await orphanedTasks(ledger.pool, 1)).toHaveLength(1)
    for (const { node, started, ...attempt } of orphans) {
      const [one] = await createStoreLedger(ledger.pool, atOnce).settle(node, [
        { ...attempt, outcome: { kind: 'lost', started, error: 'gone' } },
      ])
      expect(one).toMatchObject({ late: false, status: 'pending' })
    }
    expect((await ledger.row(ids[0] as string)).lost_starts).toBe(1)
    expect((await ledger.row(ids[1] as string)).lost_starts).toBe(0)
    expect(await orphanedTasks(ledger.pool, 10)).toEqual([])
    // The node was only paused: its success still counts, as nobody has begun another attempt.
    expect(await ledger.settle(tasks[0] as ClaimedTask, SUCCEEDED, dead)).toMatchObject({ status: 'succeeded' })
  })

  test('26: counters of ended nodes are folded into one row, and nodes are forgotten when nothing names them', async () => {
    await ledger.queue('other')
    const [old, recent, busy] = (await Promise.all([ledger.join(), ledger.join(), ledger.join()])) as [
      string,
      string,
      string,
    ]
    for (const node of [old, recent, busy]) {
      ledger.node = node
      await ledger.insertMany([{}, {}, { queue: 'other', origin: 'child' }])
    }
    const held = (await ledger.claim(1, { node: busy })) as [ClaimedTask]
    const end = (node: string, age: string) =>
      ledger.pool.query(`update nodes set dead_at = now() - $2::interval where id = $1`, [node, age])
    await end(old, '8 days')
    await end(busy, '8 days')
    await end(recent, '59 min')

    await foldEndedNodes(ledger.pool)
    await foldEndedNodes(ledger.pool)

    const { rows } = await ledger.pool.query('select node, queue, origin, accepted from counters order by node, queue')
    const gone = '00000000-0000-0000-0000-000000000000'
    expect(rows.filter((row) => row.node === gone)).toEqual([
      { node: gone, queue: 'default', origin: 'api', accepted: 4 },
      { node: gone, queue: 'other', origin: 'child', accepted: 2 },
    ])
    expect(new Set(rows.map((row) => row.node))).toEqual(new Set([gone, recent]))
    const nodes = async () =>
      (await ledger.pool.query<{ id: string }>('select id from nodes')).rows.map((row) => row.id)
    expect(await nodes()).not.toContain(old)
    expect(await nodes()).toContain(recent)
    expect(await nodes()).toContain(busy)
    await ledger.settle(held[0], LOST, busy)
    await foldEndedNodes(ledger.pool)
    expect(await nodes()).not.toContain(busy)
  })

  test('reports add log lines and replace progress of running attempts; the last 100 lines are kept in order', async () => {
    const store = createStoreLedger(ledger.pool, atOnce)
    await ledger.insertMany([{}, {}])
    const [a, b] = (await ledger.claim(2)) as [ClaimedTask, ClaimedTask]
    const lines = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => `line ${from + i} "\\ 🚢`)
    await store.report(ledger.node, [
      { id: a.id, attempt: 1, lines: lines(0, 60), progress: { done: 1, total: 3, message: 'half' } },
      { id: b.id, attempt: 1, lines: [], progress: { done: 0.5 } },
    ])
    await store.report(ledger.node, [{ id: a.id, attempt: 1, lines: lines(60, 130) }])

    expect((await ledger.row(a.id)).logs).toEqual(lines(30, 130))
    expect(JSON.parse((await ledger.row(a.id)).progress as string)).toEqual({ done: 1, total: 3, message: 'half' })
    expect(await ledger.row(b.id)).toMatchObject({ logs: null, progress: '{"done":0.5}' })

    await store.report(await ledger.join(), [{ id: b.id, attempt: 1, lines: ['not mine'] }])
    await store.report(ledger.node, [{ id: b.id, attempt: 2, lines: ['not yet'] }])
    await ledger.settle(b, FAILED)
    await store.report(ledger.node, [{ id: b.id, attempt: 1, lines: ['too late'] }])
    await store.report(ledger.node, [])
    expect((await ledger.row(b.id)).logs).toBeNull()
  })
})
