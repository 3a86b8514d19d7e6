import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { readAccounting } from '../../../../src/store/accounting.ts'
import { claimDeliveries } from '../../../../src/store/tasks/claim/claim-deliveries.ts'
import { replayTasks } from '../../../../src/store/tasks/dead-letters/replay.ts'
import { childrenOfParents } from '../../../../src/store/tasks/family/children.ts'
import { claimFanOuts, sealPublished } from '../../../../src/store/tasks/family/fan-outs.ts'
import { exchangeVersion } from '../../../../src/store/tasks/insert/exchange-rows.ts'
import { ensureTopology } from '../../../../src/store/topology/ensure.ts'
import { ENGINES } from '../../../support/database.ts'
import { addressed, bind, copiesOf, newClaim, fanOut as sendTo } from '../../../support/exchanges.ts'
import { DEAD, miscounted, SUCCEEDED, type TaskLedger, taskLedger } from '../../../support/tasks.ts'

const WORDS = { succeeded: 'DONE', dead: 'BROKEN', cancelled: 'BROKEN' }

describe.each(ENGINES)('completions of an exchange on %s', (engine) => {
  let ledger: TaskLedger
  beforeAll(async () => {
    ledger = await taskLedger(engine)
  })
  afterEach(async () => {
    const wrong = await miscounted(ledger.pool)
    await ledger.pool.query('truncate settings, exchanges cascade')
    await ledger.clear()
    expect(wrong).toEqual([])
  })
  afterAll(() => ledger.test.drop())

  const furnish = (name = 'jobs') =>
    ensureTopology(ledger.test.database.db, {
      queues: [{ name: 'told', consumers: [] }],
      exchange: { name, type: 'fanout', bindings: [], completions: { queue: 'told', words: WORDS } },
    })

  /** A sealed parent that was addressed to `exchange`, and its children. */
  async function fanOut(exchange: string | null, count = 2) {
    const parent = await ledger.insert({ origin: 'compat' })
    const children = await ledger.insertMany(
      Array.from({ length: count }, () => ({ parentId: parent, origin: 'child' })),
    )
    await ledger.run(parent, SUCCEEDED)
    await ledger.pool.query('update tasks set exchange = $2 where id = $1', [parent, exchange])
    return { parent, children: children as [string, string] }
  }

  async function told() {
    const { rows } = await ledger.pool.query<{ payload: string; origin: string; type: string; status: string }>(
      `select payload, origin, type, status from tasks where queue = 'told' order by id`,
    )
    return rows.map(({ payload, ...row }) => ({ ...row, payload: JSON.parse(payload) }))
  }

  test('a parent that ends is told of once, by its last child, in the words of the exchange', async () => {
    await furnish()
    const { parent, children } = await fanOut('jobs')
    await ledger.run(children[0], SUCCEEDED)
    expect(await told()).toEqual([])
    await ledger.run(children[1], SUCCEEDED)
    expect(await ledger.status(parent)).toBe('succeeded')
    expect(await told()).toEqual([
      { payload: { id: parent, status: 'DONE' }, origin: 'compat', type: 'completion', status: 'pending' },
    ])
    expect(await readAccounting(ledger.test.database.db)).toMatchObject({ unaccounted: 0, accepted: 4 })
  })

  test('a replayed child ends its parent anew, and that is told, too', async () => {
    await furnish()
    const { parent, children } = await fanOut('jobs')
    await ledger.run(children[0], SUCCEEDED)
    await ledger.run(children[1], DEAD)
    await replayTasks(ledger.pool, [children[1]])
    expect(await ledger.status(parent)).toBe('running')
    await ledger.run(children[1], SUCCEEDED)
    expect((await told()).map(({ payload }) => payload.status)).toEqual(['BROKEN', 'DONE'])
  })

  test('a cancelled parent is told of when its last child is over', async () => {
    await furnish()
    const { parent } = await fanOut('jobs')
    await ledger.cancel(parent)
    expect(await ledger.status(parent)).toBe('cancelled')
    expect((await told()).map(({ payload }) => payload)).toEqual([{ id: parent, status: 'BROKEN' }])
  })

  test('parents of other exchanges and of none, and a queue that is gone, are passed over', async () => {
    await furnish()
    for (const exchange of [null, 'others']) {
      const { parent, children } = await fanOut(exchange)
      for (const child of children) await ledger.run(child, SUCCEEDED)
      expect(await ledger.status(parent)).toBe('succeeded')
    }
    expect(await told()).toEqual([])
    await ledger.pool.query(`delete from queues where name = 'told'`)
    const { parent, children } = await fanOut('jobs')
    for (const child of children) await ledger.run(child, SUCCEEDED)
    expect(await ledger.status(parent)).toBe('succeeded')
    expect(await told()).toEqual([])
  })

  /** A fan-out of the exchange `jobs` that waits to be published. */
  async function unpublished() {
    await furnish()
    await makeBindings()
    const { id, children } = await sendTo(ledger, addressed('jobs', { origin: 'compat' }))
    return { id, queues: Object.keys(children) }
  }
  async function makeBindings() {
    for (const queue of ['one', 'two']) {
      await ledger.queue(queue)
      await bind(ledger, 'jobs', queue)
    }
  }

  test('a parent whose children end before its publish is confirmed is told of by the seal', async () => {
    const { id, queues } = await unpublished()
    await claimFanOuts(ledger.pool, { exchange: 'jobs', node: ledger.node, publishNo: 1, limit: 1 })
    for (const queue of queues) {
      const [answer] = await claimDeliveries(ledger.pool, { ...newClaim(ledger, queue), deliveries: copiesOf(id) })
      if (answer?.kind !== 'claimed') throw new Error(`no copy in ${queue}`)
      await ledger.settle(answer.task, SUCCEEDED)
    }
    expect(await told()).toEqual([])
    const version = await exchangeVersion(ledger.pool, 'jobs')
    for (let again = 0; again < 2; again++)
      await sealPublished(ledger.pool, { node: ledger.node, exchange: 'jobs', ids: [id], version })
    expect(await ledger.status(id)).toBe('succeeded')
    expect((await told()).map(({ payload }) => payload)).toEqual([{ id, status: 'DONE' }])
  })

  test('a fan-out that is cancelled before it was published is told of once', async () => {
    const { id } = await unpublished()
    for (let again = 0; again < 2; again++) await ledger.cancel(id)
    expect(await ledger.status(id)).toBe('cancelled')
    expect((await told()).map(({ payload }) => payload)).toEqual([{ id, status: 'BROKEN' }])
  })

  test('what was set for one exchange stays when another one comes', async () => {
    await furnish('jobs')
    await ensureTopology(ledger.test.database.db, {
      queues: [],
      exchange: { name: 'jobs', type: 'fanout', bindings: [], completions: { queue: 'elsewhere', words: WORDS } },
    })
    await furnish('more')
    const { rows } = await ledger.pool.query(`select value from settings where name = 'completions'`)
    const way = { queue: 'told', words: WORDS }
    expect(rows).toEqual([{ value: { jobs: way, more: way } }])
  })

  test('children are read for many parents at once', async () => {
    const [one, two] = [await fanOut('jobs'), await fanOut('jobs')]
    await ledger.run(two.children[1], DEAD)
    const found = await childrenOfParents(ledger.pool, [one.parent, two.parent])
    expect(found.get(one.parent)).toHaveLength(2)
    expect(found.get(two.parent)?.map(({ status, failures }) => [status, failures])).toEqual([
      ['pending', 0],
      ['dead', 1],
    ])
    expect(await childrenOfParents(ledger.pool, [])).toEqual(new Map())
  })
})
