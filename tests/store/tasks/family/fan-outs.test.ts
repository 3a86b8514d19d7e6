import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { readAccounting } from '../../../../src/store/accounting.ts'
import { leaveNode } from '../../../../src/store/nodes.ts'
import { returnLostPublishes } from '../../../../src/store/tasks/at-broker/lost-publishes.ts'
import { cancelTasks } from '../../../../src/store/tasks/cancel.ts'
import { claimDeliveries } from '../../../../src/store/tasks/claim/claim-deliveries.ts'
import { claimForBroker } from '../../../../src/store/tasks/claim/claim-for-broker.ts'
import { replayTasks } from '../../../../src/store/tasks/dead-letters/replay.ts'
import {
  claimFanOuts,
  fanOutLines,
  openFanOuts,
  releaseCopies,
  returnFanOuts,
  sealPublished,
} from '../../../../src/store/tasks/family/fan-outs.ts'
import { exchangeVersion } from '../../../../src/store/tasks/insert/exchange-rows.ts'
import { runNow } from '../../../../src/store/tasks/run-now.ts'
import type { NewTask } from '../../../../src/task/task.ts'
import { ENGINES } from '../../../support/database.ts'
import { addressed, bind, copiesOf, fanOut, makeExchange, newClaim, unbind } from '../../../support/exchanges.ts'
import { DEAD, FAILED, miscounted, SUCCEEDED, type TaskLedger, taskLedger } from '../../../support/tasks.ts'

describe.each(ENGINES)('21: fan-outs on %s', (engine) => {
  let ledger: TaskLedger
  let publishNo = 0
  beforeAll(async () => {
    ledger = await taskLedger(engine)
  })
  afterEach(async () => {
    const wrong = await miscounted(ledger.pool)
    const { unaccounted } = await readAccounting(ledger.test.database.db)
    await ledger.clear()
    expect([wrong, unaccounted]).toEqual([[], 0])
  })
  afterAll(() => ledger.test.drop())

  const orders = () => makeExchange(ledger, 'orders', 'fanout', { mail: [''], audit: [''] })
  const sent = async (fields: Partial<NewTask> = {}) => {
    const { id, children } = await fanOut(ledger, addressed('orders', fields))
    return { id, mail: children.mail as string, audit: children.audit as string }
  }
  const claim = (changes: Partial<Parameters<typeof claimFanOuts>[1]> = {}) =>
    claimFanOuts(ledger.pool, { exchange: 'orders', node: ledger.node, publishNo: ++publishNo, limit: 10, ...changes })
  const seal = async (ids: string[], changes: Partial<Parameters<typeof sealPublished>[1]> = {}) =>
    sealPublished(ledger.pool, {
      node: ledger.node,
      exchange: 'orders',
      ids,
      version: await exchangeVersion(ledger.pool, 'orders'),
      ...changes,
    })
  /** Takes the copy of `parent` that came to a queue. */
  const take = async (queue: string, ...parents: string[]) => {
    const answers = await claimDeliveries(ledger.pool, { ...newClaim(ledger, queue), deliveries: copiesOf(...parents) })
    return answers.flatMap((answer) => (answer.kind === 'claimed' ? [answer.task] : []))
  }
  const end = async (
    queue: string,
    parent: string,
    outcome: typeof SUCCEEDED | typeof DEAD | typeof FAILED = SUCCEEDED,
  ) => {
    const [task] = await take(queue, parent)
    if (!task) throw new Error(`no copy of ${parent} is to be had from ${queue}`)
    return ledger.settle(task, outcome)
  }

  test('a due parent is claimed with what its message needs, and which children wait for it', async () => {
    await orders()
    const low = await sent({ type: 'order', payload: '{"b":1.0}', routingKey: 'eu' })
    const high = await sent({ priority: 9 })
    await sent({ delayMs: 60_000 })
    const claimed = await claim()
    expect(claimed.map(({ id }) => id)).toEqual([high.id, low.id])
    expect(claimed[1]).toMatchObject({
      exchange: 'orders',
      routingKey: 'eu',
      type: 'order',
      payload: '{"b":1.0}',
    })
    expect(claimed[1]?.copies.toSorted((a, b) => (a.queue < b.queue ? -1 : 1))).toEqual([
      { id: low.audit, queue: 'audit' },
      { id: low.mail, queue: 'mail' },
    ])
    expect(await ledger.row(low.id)).toMatchObject({ status: 'queued', sealed: false })
    expect(await claim()).toEqual([])
  })

  test('2: the same claim again gives the same parents and no others', async () => {
    await orders()
    const { id } = await sent()
    const first = await claim({ publishNo: 1_000, limit: 1 })
    await sent()
    expect(await claim({ publishNo: 1_000, limit: 1 })).toEqual(first)
    expect(first).toMatchObject([{ id }])
  })

  test('2: a claim of the same node whose answer was lost is waited for while it commits', async () => {
    await ledger.insertMany([{}])
    const late = await ledger.pool.connect()
    try {
      await late.query('begin')
      await late.query('select pg_advisory_xact_lock(hashtextextended($1, 0))', [`${ledger.node} orders`])
      const again = claim()
      expect(await Promise.race([again, ledger.pool.query('select pg_sleep(0.1)').then(() => 'waits')])).toBe('waits')
      await late.query('commit')
      expect(await again).toEqual([])
    } finally {
      late.release()
    }
  })

  test('claims of several nodes at once never give the same parent', async () => {
    await orders()
    for (let i = 0; i < 20; i++) await sent()
    const claims = await Promise.all(Array.from({ length: 8 }, () => claim({ limit: 5 })))
    const ids = claims.flat().map(({ id }) => id)
    expect(new Set(ids).size).toBe(ids.length)
  })

  test('a parent that is published waits for its children, on no node, and ends with the last of them', async () => {
    await orders()
    const { id } = await sent()
    await claim()
    expect(await seal([id])).toEqual([])
    expect(await ledger.row(id)).toMatchObject({ status: 'running', sealed: true, node: null, attempt: 0 })
    expect(await end('mail', id)).toMatchObject({ status: 'succeeded' })
    expect(await ledger.row(id)).toMatchObject({ status: 'running', children_succeeded: 1 })
    await end('audit', id)
    expect(await ledger.row(id)).toMatchObject({ status: 'succeeded', children_succeeded: 2 })
    expect((await ledger.row(id)).finished_at).not.toBeNull()
  })

  test('children that ended before the confirm was stored decide what the parent is with it, and its own parent hears', async () => {
    await orders()
    const above = await ledger.insert()
    const [good, bad] = [await sent({ parentId: above }), await sent({ parentId: above })]
    await ledger.run(above, SUCCEEDED)
    await claim()
    for (const { id } of [good, bad]) await end('mail', id)
    await end('audit', good.id)
    await end('audit', bad.id, DEAD)
    expect(await ledger.row(good.id)).toMatchObject({ status: 'queued', children_succeeded: 2, finished_at: null })
    await seal([good.id, bad.id])
    expect(await ledger.row(good.id)).toMatchObject({ status: 'succeeded' })
    expect(await ledger.row(bad.id)).toMatchObject({ status: 'dead', error: '1 of 2 children did not succeed' })
    expect(await ledger.row(above)).toMatchObject({ status: 'dead', children_succeeded: 1, children_dead: 1 })
  })

  test('11: a publish of a dead node that is not known to be confirmed is repeated through the exchange, and its copies are harmless', async () => {
    await orders()
    const { id, mail } = await sent()
    const dead = await ledger.join()
    await claim({ node: dead })
    await end('mail', id)
    await leaveNode(ledger.pool, dead, 0)
    expect(await returnLostPublishes(ledger.pool, 10)).toEqual([{ id, queue: 'exchange/orders' }])
    expect(await claim()).toMatchObject([{ id, copies: [{ queue: 'audit' }] }])
    // The confirm of the dead one comes too late to mean anything.
    await seal([id], { node: dead })
    expect(await ledger.status(id)).toBe('queued')
    await seal([id])
    expect(await take('mail', id)).toEqual([])
    await end('audit', id)
    expect(await ledger.row(id)).toMatchObject({ status: 'succeeded' })
    expect(await ledger.row(mail)).toMatchObject({ attempt: 1 })
  })

  test('a publish that came to nothing lets the parent wait again, while it is still that node’s', async () => {
    await orders()
    const { id } = await sent()
    await claim()
    await returnFanOuts(ledger.pool, await ledger.join(), [id])
    expect(await ledger.status(id)).toBe('queued')
    await returnFanOuts(ledger.pool, ledger.node, [id])
    expect(await ledger.row(id)).toMatchObject({ status: 'pending', due_at: (await ledger.row(id)).created_at })
    expect(await claim()).toMatchObject([{ id }])
  })

  test('children whose copies will not come wait in their queues; what was taken meanwhile is left alone', async () => {
    await orders()
    const { id, mail, audit } = await sent()
    await claim()
    await end('mail', id)
    expect(await releaseCopies(ledger.pool, [mail, audit])).toEqual(['audit'])
    expect(await ledger.claim(10, { queue: 'audit' })).toMatchObject([{ id: audit, attempt: 1 }])
    // A copy that comes after all is a duplicate.
    expect(await take('audit', id)).toEqual([])
    expect(await ledger.status(mail)).toBe('succeeded')
  })

  test('when a binding went while the message travelled, every child that still waits for a copy goes by itself', async () => {
    await orders()
    const first = await sent()
    await claim()
    const before = await exchangeVersion(ledger.pool, 'orders')
    await end('mail', first.id)
    await unbind(ledger, 'orders', 'audit')
    expect(await seal([first.id], { version: before })).toEqual(['audit'])
    expect(await ledger.status(first.audit)).toBe('pending')
    expect(await ledger.row(first.id)).toMatchObject({ status: 'running', sealed: true })
    // Bound anew is another binding: it may have come after the message.
    await bind(ledger, 'orders', 'audit')
    expect(await exchangeVersion(ledger.pool, 'orders')).not.toBe(before as string)
  })

  test('a message that no queue took releases all children', async () => {
    await orders()
    const { id } = await sent()
    await claim()
    expect((await seal([id], { version: undefined })).sort()).toEqual(['audit', 'mail'])
    expect(await ledger.row(id)).toMatchObject({ status: 'running', sealed: true })
  })

  test('19: on a queue that is settled by the confirm the child is done with it', async () => {
    await orders()
    await ledger.pool.query(`update queues set settlement = 'confirm' where name = 'mail'`)
    await ledger.pool.query(`update queues set report_within_ms = 60000 where name = 'audit'`)
    const { id, mail, audit } = await sent()
    await claim()
    await seal([id])
    expect(await ledger.row(mail)).toMatchObject({
      status: 'succeeded',
      attempt: 1,
      attempts: [{ outcome: 'succeeded' }],
    })
    expect(await ledger.row(id)).toMatchObject({ status: 'running', children_succeeded: 1 })
    const { rows } = await ledger.pool.query('select report_by > now() as waits from tasks where id = $1', [audit])
    expect(rows).toEqual([{ waits: true }])
    await end('audit', id)
    expect(await ledger.status(id)).toBe('succeeded')
  })

  test('18: fan-outs whose queues are all settled by the confirm end with it', async () => {
    await orders()
    await ledger.pool.query(`update queues set settlement = 'confirm'`)
    const above = await ledger.insert()
    await ledger.pool.query(`update queues set settlement = 'outcome' where name = 'default'`)
    const { id } = await sent({ parentId: above })
    await claim()
    await seal([id])
    expect(await ledger.row(id)).toMatchObject({ status: 'succeeded', children_succeeded: 2 })
    expect(await ledger.row(above)).toMatchObject({ children_succeeded: 1 })
  })

  test('without a broker beside the process parents are opened: they wait for children that wait in their queues', async () => {
    await orders()
    const [one, other, published] = [await sent(), await sent(), await sent()]
    await claim({ limit: 1 })
    await seal([one.id])
    await claim({ limit: 1, node: await ledger.join() })
    expect(await openFanOuts(ledger.pool, 'orders', 1)).toMatchObject({ more: true })
    expect((await openFanOuts(ledger.pool, 'orders', 10)).queues.sort()).toEqual(['audit', 'mail'])
    expect(await openFanOuts(ledger.pool, 'orders', 10)).toEqual({ queues: [], more: false })
    for (const { id, mail } of [other, published]) {
      expect(await ledger.row(id)).toMatchObject({ status: 'running', sealed: true })
      expect(await ledger.status(mail)).toBe('pending')
    }
  })

  test('lines are found with their due times, also of exchanges that are gone', async () => {
    await orders()
    await makeExchange(ledger, 'later', 'fanout', { mail: [''], audit: [''] })
    await makeExchange(ledger, 'gone', 'fanout', { mail: [''], audit: [''] })
    await ledger.insert()
    await sent()
    await fanOut(ledger, addressed('later', { delayMs: 50_000 }))
    await fanOut(ledger, addressed('gone'))
    await ledger.pool.query(`delete from exchanges where name = 'gone'`)
    const lines = new Map((await fanOutLines(ledger.pool, 60_000)).map((line) => [line.exchange, line]))
    expect([...lines.keys()].sort()).toEqual(['gone', 'later', 'orders'])
    expect(lines.get('orders')).toEqual({ exchange: 'orders', known: true, ms: 0 })
    expect(lines.get('gone')).toMatchObject({ known: false })
    expect(lines.get('later')?.ms).toBeGreaterThan(40_000)
    expect((await fanOutLines(ledger.pool, 10_000)).map(({ exchange }) => exchange).sort()).toEqual(['gone', 'orders'])
  })

  test('10: what an exchange brings is outside of its queues’ windows', async () => {
    await orders()
    await sent()
    await ledger.insertMany([{ queue: 'mail' }, { queue: 'mail' }])
    const { tasks } = await claimForBroker(ledger.pool, {
      queue: 'mail',
      node: ledger.node,
      publishNo: ++publishNo,
      limit: 10,
      window: 2,
      order: 'due',
    })
    expect(tasks).toHaveLength(2)
  })

  test('a child that failed is tried again by itself, and only its first attempt comes by a copy', async () => {
    await orders()
    const { id, mail } = await sent()
    await claim()
    await seal([id])
    expect(await end('mail', id, FAILED)).toMatchObject({ status: 'retrying' })
    expect(await take('mail', id)).toEqual([])
    expect(await ledger.claim(10, { queue: 'mail' })).toMatchObject([{ id: mail, attempt: 2 }])
  })

  test('a dead child makes its parent dead; replaying either sends that child again, and only it', async () => {
    await orders()
    const { id, mail } = await sent()
    await claim()
    await seal([id])
    await end('audit', id)
    await end('mail', id, DEAD)
    for (const which of [mail, id]) {
      expect(await ledger.status(id)).toBe('dead')
      expect(await replayTasks(ledger.pool, [which])).toMatchObject({
        replayed: [{ outcome: 'replayed' }],
        queues: ['mail'],
      })
      expect(await ledger.row(id)).toMatchObject({ status: 'running', children_dead: 0, children_succeeded: 1 })
      const [again] = await ledger.claim(10, { queue: 'mail' })
      expect(again).toMatchObject({ id: mail })
      await ledger.settle(again as NonNullable<typeof again>, which === id ? SUCCEEDED : DEAD)
    }
    expect(await ledger.status(id)).toBe('succeeded')
  })

  test('cancelling a parent that was not published ends it with all that waits for it, at once', async () => {
    await orders()
    const waiting = await sent()
    expect(await cancelTasks(ledger.pool, [waiting.id])).toEqual([{ id: waiting.id, outcome: 'cancelled' }])
    for (const task of [waiting.id, waiting.mail, waiting.audit]) expect(await ledger.status(task)).toBe('cancelled')
    expect(await claim()).toEqual([])

    const travelling = await sent()
    await claim()
    await end('mail', travelling.id)
    await cancelTasks(ledger.pool, [travelling.id])
    await seal([travelling.id])
    expect(await ledger.row(travelling.id)).toMatchObject({
      status: 'cancelled',
      children_succeeded: 1,
      children_dead: 1,
    })
    expect(await take('audit', travelling.id)).toEqual([])
  })

  test('cancelling a parent that is published cancels what has not begun, and asks what runs', async () => {
    await orders()
    const { id, audit } = await sent()
    await claim()
    await seal([id])
    const [running] = await take('mail', id)
    expect(await cancelTasks(ledger.pool, [id])).toEqual([{ id, outcome: 'requested' }])
    expect(await ledger.status(audit)).toBe('cancelled')
    expect(await ledger.settle(running as NonNullable<typeof running>, FAILED)).toMatchObject({ status: 'cancelled' })
    expect(await ledger.row(id)).toMatchObject({ status: 'cancelled', children_dead: 2 })
  })

  test('a replayed parent that was cancelled before its publish is published, and its children go by themselves', async () => {
    await orders()
    const { id } = await sent()
    await cancelTasks(ledger.pool, [id])
    const { queues } = await replayTasks(ledger.pool, [id])
    expect(queues.sort()).toEqual(['audit', 'exchange/orders', 'mail'])
    expect(await claim()).toMatchObject([{ id, copies: [] }])
    await seal([id])
    for (const queue of ['mail', 'audit']) {
      expect(await take(queue, id)).toEqual([])
      const [task] = await ledger.claim(10, { queue })
      await ledger.settle(task as NonNullable<typeof task>, SUCCEEDED)
    }
    expect(await ledger.row(id)).toMatchObject({ status: 'succeeded' })
  })

  test('run-now makes a delayed fan-out due with all its children, published or not', async () => {
    await orders()
    const external = await sent({ delayMs: 60_000 })
    expect(await runNow(ledger.pool, [external.id])).toMatchObject({
      due: [{ outcome: 'due' }],
      queues: ['exchange/orders'],
    })
    expect(await claim()).toMatchObject([{ id: external.id }])
    await returnFanOuts(ledger.pool, ledger.node, [external.id])
    await openFanOuts(ledger.pool, 'orders', 10)
    expect(await ledger.claim(10, { queue: 'mail' })).toMatchObject([{ id: external.mail }])

    const { id, children } = await fanOut(ledger, addressed('orders', { delayMs: 60_000 }), 'in-process')
    const { due, queues } = await runNow(ledger.pool, [id])
    expect([due, queues.sort()]).toEqual([[{ id, outcome: 'due' }], ['audit', 'mail']])
    expect(await ledger.claim(10, { queue: 'mail' })).toMatchObject([{ id: children.mail as string }])
  })
})
