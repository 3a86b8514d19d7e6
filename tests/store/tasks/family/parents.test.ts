import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { inTransaction } from '../../../../src/store/database/statement.ts'
import { beatNode, leaveNode, orphanedTasks } from '../../../../src/store/nodes.ts'
import { cancelTasks } from '../../../../src/store/tasks/cancel.ts'
import { replayTasks } from '../../../../src/store/tasks/dead-letters/replay.ts'
import { insertTasks } from '../../../../src/store/tasks/insert/insert.ts'
import { settleTasks } from '../../../../src/store/tasks/settle.ts'
import type { Outcome } from '../../../../src/task/outcome.ts'
import type { ClaimedTask } from '../../../../src/task/task.ts'
import { ENGINES } from '../../../support/database.ts'
import {
  atOnce,
  DEAD,
  FAILED,
  IDLE,
  LOST,
  miscounted,
  newTask,
  SUCCEEDED,
  settlementOf,
  type TaskLedger,
  taskLedger,
} from '../../../support/tasks.ts'
import { until } from '../../../support/until.ts'

describe.each(ENGINES)('20: parents on %s', (engine) => {
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

  /** A parent with `count` pending children, whose own work has ended with `own`; undefined: it is pending still. */
  async function family(count: number, own?: Outcome, parentId: string | null = null) {
    const parent = await ledger.insert({ parentId })
    const children = await ledger.insertMany(
      Array.from({ length: count }, () => ({ parentId: parent, origin: 'child' })),
    )
    if (own) await ledger.run(parent, own)
    return { parent, children: children as [string, string, ...string[]] }
  }

  test('a parent whose own work is done runs on, on no node, until its last child ends', async () => {
    const { parent, children } = await family(2, { kind: 'succeeded', result: '{"rows":2}' })
    expect(await ledger.row(parent)).toMatchObject({
      status: 'running',
      sealed: true,
      node: null,
      finished_at: null,
      result: '{"rows":2}',
      children_total: 2,
    })
    await ledger.run(children[0], SUCCEEDED)
    expect(await ledger.row(parent)).toMatchObject({ status: 'running', children_succeeded: 1 })
    await ledger.run(children[1], SUCCEEDED)
    const row = await ledger.row(parent)
    expect(row).toMatchObject({ status: 'succeeded', children_succeeded: 2, error: null, result: '{"rows":2}' })
    expect(row.finished_at).not.toBeNull()
  })

  test('a parent that works still is not final when its children are: its own end decides', async () => {
    const { parent, children } = await family(2)
    const own = await ledger.claimOne(parent)
    for (const child of children) await ledger.run(child, SUCCEEDED)
    expect(await ledger.row(parent)).toMatchObject({ status: 'running', node: ledger.node, children_succeeded: 2 })
    expect(await ledger.settle(own, SUCCEEDED)).toMatchObject({ status: 'succeeded' })
  })

  test('one dead or cancelled child makes the parent dead, and says so, whichever ends last', async () => {
    for (const ownLast of [false, true]) {
      for (const end of ['dead', 'cancelled']) {
        const { parent, children } = await family(2, ownLast ? undefined : SUCCEEDED)
        if (end === 'dead') await ledger.run(children[0], DEAD)
        else await ledger.cancel(children[0])
        await ledger.run(children[1], SUCCEEDED)
        if (ownLast) await ledger.run(parent, SUCCEEDED)
        expect(await ledger.row(parent)).toMatchObject({
          status: 'dead',
          children_succeeded: 1,
          children_dead: 1,
          error: '1 of 2 children did not succeed',
        })
      }
    }
  })

  test('a parent that is tried again counts its children all the while and keeps its error', async () => {
    const { parent, children } = await family(2, FAILED)
    expect(await ledger.status(parent)).toBe('retrying')
    const own = await ledger.claimOne(parent)
    await ledger.run(children[0], SUCCEEDED)
    expect(await ledger.row(parent)).toMatchObject({ status: 'running', error: FAILED.error, node: ledger.node })
    await ledger.settle(own, FAILED)
    await ledger.run(children[1], SUCCEEDED)
    expect(await ledger.row(parent)).toMatchObject({ sealed: false, finished_at: null, children_succeeded: 2 })
    expect(await ledger.run(parent, SUCCEEDED)).toMatchObject({ status: 'succeeded' })
  })

  test('a parent whose own work is dead is dead at once, and its children’s ends are counted only', async () => {
    const { parent, children } = await family(1, DEAD)
    expect(await ledger.status(parent)).toBe('dead')
    await ledger.run(children[0], SUCCEEDED)
    expect(await ledger.row(parent)).toMatchObject({ status: 'dead', children_succeeded: 1, error: DEAD.error })
  })

  test('a late success seals a parent that waits', async () => {
    const { parent, children } = await family(1)
    const own = await ledger.claimOne(parent)
    await ledger.settle(own, LOST)
    expect(await ledger.settle(own, SUCCEEDED)).toMatchObject({ status: 'running' })
    expect(await ledger.row(parent)).toMatchObject({ sealed: true, node: null })
    expect(await ledger.claim(10)).toMatchObject([{ id: children[0] }])
    expect(await ledger.settle(own, SUCCEEDED)).toMatchObject({ late: true })
  })

  test('two children that end at once on two connections make the parent final once', async () => {
    for (let round = 0; round < 20; round++) {
      const { parent, children } = await family(2, SUCCEEDED)
      const tasks = await ledger.claim(2)
      expect(tasks.map((task) => task.id).sort()).toEqual([...children].sort())
      await Promise.all(tasks.map((task) => ledger.settle(task, SUCCEEDED)))
      expect(await ledger.row(parent)).toMatchObject({ status: 'succeeded', children_succeeded: 2 })
    }
  })

  test('the parent and its last child that end at once on two connections make it final once', async () => {
    for (let round = 0; round < 20; round++) {
      const { parent } = await family(1)
      const tasks = await ledger.claim(2)
      await Promise.all(tasks.map((task) => ledger.settle(task, task.id === parent ? SUCCEEDED : DEAD)))
      expect(await ledger.row(parent)).toMatchObject({ status: 'dead', children_dead: 1, sealed: true })
    }
  })

  test('a settle waits for the child that is just being added, and counts it', async () => {
    const { parent, children } = await family(1)
    await ledger.run(children[0], SUCCEEDED)
    const own = await ledger.claimOne(parent)
    let settled: Promise<unknown> = Promise.resolve()
    await inTransaction(ledger.pool, async (tx) => {
      await tx.query('select from tasks where id = $1 for update', [parent])
      settled = ledger.settle(own, SUCCEEDED)
      await until(async () => {
        const { rowCount } = await ledger.pool.query(
          `select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`,
        )
        return rowCount
      })
      await tx.query('update tasks set children_total = children_total + 1 where id = $1', [parent])
      await tx.query(
        `insert into tasks (id, queue, payload, priority, due_at, max_attempts, origin, parent_id)
         values (gen_random_uuid(), 'default', '{}', 0, now(), 3, 'child', $1)`,
        [parent],
      )
    })
    await settled
    expect(await ledger.row(parent)).toMatchObject({ status: 'running', sealed: true, children_total: 2 })
  })

  test('a sealed parent takes more children while it runs, and none once it is final', async () => {
    const { parent, children } = await family(1, SUCCEEDED)
    const more = await ledger.insert({ parentId: parent })
    await ledger.run(children[0], SUCCEEDED)
    expect(await ledger.status(parent)).toBe('running')
    await ledger.run(more, SUCCEEDED)
    expect(await ledger.status(parent)).toBe('succeeded')
    const [answer] = await insertTasks(ledger.pool, ledger.node, [newTask({ parentId: parent })])
    expect(answer).toMatchObject({ kind: 'refused', code: 'parent-final' })
  })

  test('ends go up through parents of parents, also when two levels end in one batch', async () => {
    const top = await ledger.insert()
    const middle = await family(2, undefined, top)
    const lone = await ledger.insert({ parentId: top })
    await ledger.run(top, SUCCEEDED)
    const tasks = await ledger.claim(10)
    expect(tasks.map((task) => task.id).sort()).toEqual([middle.parent, ...middle.children, lone].sort())

    await settleTasks(
      ledger.pool,
      ledger.node,
      tasks.map((task) => settlementOf(task, SUCCEEDED)),
      atOnce,
    )

    expect(await ledger.row(middle.parent)).toMatchObject({ status: 'succeeded', children_succeeded: 2 })
    expect(await ledger.row(top)).toMatchObject({ status: 'succeeded', children_succeeded: 2 })
  })

  test('levels that end at once on many connections end the whole tree', async () => {
    for (let round = 0; round < 5; round++) {
      const top = await ledger.insert()
      const branches = await Promise.all([
        family(3, undefined, top),
        family(3, undefined, top),
        family(3, undefined, top),
      ])
      const tasks = await ledger.claim(100)
      const deadly = branches[1].children[2] as string
      // Each connection ends tasks of several branches and levels.
      const lanes = Map.groupBy(tasks, (_, i) => i % 4)
      await Promise.all(
        [...lanes.values()].map((lane) =>
          settleTasks(
            ledger.pool,
            ledger.node,
            lane.map((task) => settlementOf(task, task.id === deadly ? DEAD : SUCCEEDED)),
            atOnce,
          ),
        ),
      )
      expect(await ledger.row(top)).toMatchObject({ status: 'dead', children_succeeded: 2, children_dead: 1 })
      await replayTasks(ledger.pool, [top])
      expect(await ledger.status(top)).toBe('running')
      await ledger.run(deadly, SUCCEEDED)
      expect(await ledger.row(top)).toMatchObject({ status: 'succeeded', children_succeeded: 3, children_dead: 0 })
    }
  }, 20_000)

  test('a child that is replayed reopens its parent and that one’s parent, and their end comes again', async () => {
    const top = await ledger.insert()
    const { parent, children } = await family(2, undefined, top)
    await ledger.run(top, SUCCEEDED)
    await ledger.run(children[0], DEAD)
    await ledger.run(children[1], SUCCEEDED)
    await ledger.run(parent, SUCCEEDED)
    expect([await ledger.status(parent), await ledger.status(top)]).toEqual(['dead', 'dead'])

    await replayTasks(ledger.pool, [children[0]])

    for (const id of [parent, top])
      expect(await ledger.row(id)).toMatchObject({
        status: 'running',
        children_dead: 0,
        finished_at: null,
        error: null,
      })
    await ledger.run(children[0], SUCCEEDED)
    expect([await ledger.status(parent), await ledger.status(top)]).toEqual(['succeeded', 'succeeded'])
  })

  test('a parent that reopens belongs to no node: no beat gives it back, no rescue takes it for lost', async () => {
    const { parent, children } = await family(1)
    const own = await ledger.claimOne(parent)
    await ledger.run(children[0], DEAD)
    await ledger.settle(own, SUCCEEDED)
    expect(await ledger.row(parent)).toMatchObject({ status: 'dead', sealed: true, node: ledger.node })

    await replayTasks(ledger.pool, [children[0]])

    expect(await ledger.row(parent)).toMatchObject({ status: 'running', node: null })
    const beat = await beatNode(ledger.pool, { node: ledger.node, held: [], started: [], state: IDLE })
    expect(beat.unnamed).toEqual([])
    await leaveNode(ledger.pool, ledger.node)
    expect(await orphanedTasks(ledger.pool, 10)).toEqual([])
    expect(await ledger.settle(own, LOST)).toMatchObject({ late: true })
  })

  test('a parent that was cancelled while it was sealed ends cancelled, or succeeded when every child did', async () => {
    for (const last of [SUCCEEDED, FAILED]) {
      const { parent } = await family(1, SUCCEEDED)
      const [child] = await ledger.claim(1)
      expect(await cancelTasks(ledger.pool, [parent])).toEqual([{ id: parent, outcome: 'requested' }])
      await ledger.settle(child as ClaimedTask, last)
      expect(await ledger.status(parent)).toBe(last === SUCCEEDED ? 'succeeded' : 'cancelled')
    }
  })

  test('a parent that was cancelled while it worked ends cancelled although it succeeded, if a child did not', async () => {
    for (const end of [SUCCEEDED, DEAD]) {
      const { parent, children } = await family(1)
      await ledger.run(children[0], end)
      const own = await ledger.claimOne(parent)
      await ledger.cancel(parent)
      expect(await ledger.settle(own, SUCCEEDED)).toMatchObject({ status: end === DEAD ? 'cancelled' : 'succeeded' })
    }
  })

  test('a child whose parent was deleted ends without it', async () => {
    const { parent, children } = await family(1)
    await ledger.pool.query('delete from tasks where id = $1', [parent])
    expect(await ledger.run(children[0], SUCCEEDED)).toMatchObject({ status: 'succeeded' })
  })
})
