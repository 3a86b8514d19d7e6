import { afterAll, afterEach, beforeAll, expect, test } from 'bun:test'
import type { PublishEnd } from '../../src/broker/broker.ts'
import { identityOf } from '../../src/broker/wire-form.ts'
import { createFanOutHandOver, createFanOutOpener, type FanOutDeps } from '../../src/dispatch/fan-out.ts'
import { createPublishNumbers } from '../../src/dispatch/publish-numbers.ts'
import { createTaskPublisher } from '../../src/dispatch/task-publisher.ts'
import type { Clock } from '../../src/runtime/clock.ts'
import { claimForBroker } from '../../src/store/tasks/claim/claim-for-broker.ts'
import {
  claimFanOuts,
  openFanOuts,
  releaseCopies,
  returnFanOuts,
  sealPublished,
} from '../../src/store/tasks/family/fan-outs.ts'
import { exchangeVersion, readExchanges } from '../../src/store/tasks/insert/exchange-rows.ts'
import { readTopology } from '../../src/store/topology/topology.ts'
import { lineOf } from '../../src/task/topology/exchange.ts'
import type { Destination, ExchangeOrder } from '../../src/task/topology/topology.ts'
import { ENGINES } from '../support/database.ts'
import { addressed, bind, fanOut, makeExchange, unbind } from '../support/exchanges.ts'
import { routingBroker } from '../support/routing-broker.ts'
import { silent } from '../support/services.ts'
import { type TaskLedger, taskLedger } from '../support/tasks.ts'

/** Every pause is over in the next turn. */
const hasty: Clock = {
  now: () => performance.now(),
  after(_, run) {
    const timer = setImmediate(run)
    return () => clearImmediate(timer)
  },
}

let ledger: TaskLedger
beforeAll(async () => {
  ledger = await taskLedger(ENGINES[0] ?? 'embedded')
})
afterEach(() => ledger.clear())
afterAll(() => ledger.test.drop())

/** A node that has declared what the rows said at its last `refresh`, with a broker in memory that has all of it. */
async function node(changes: Partial<FanOutDeps> = {}) {
  const { pool } = ledger
  const { broker, control } = routingBroker()
  const woken: string[] = []
  const missing: string[] = []
  const refused: Destination[] = []
  const numbers = createPublishNumbers()
  let declared: ExchangeOrder[] = []
  const refresh = async () => {
    const { exchanges, bindings } = await readTopology(pool)
    for (const { name, type } of exchanges) control.exchanges.set(name, type)
    for (const { exchange, queue, routingKey } of bindings) {
      control.unbind(exchange, queue, routingKey)
      control.bind(exchange, queue, routingKey)
    }
    declared = exchanges
  }
  await refresh()
  const deps: FanOutDeps = {
    ledger: {
      claimFanOuts: (claim) => claimFanOuts(pool, claim),
      releaseCopies: (ids) => releaseCopies(pool, ids),
      sealPublished: (published) => sealPublished(pool, published),
      returnFanOuts: (id, ids) => returnFanOuts(pool, id, ids),
      openFanOuts: (exchange, limit) => openFanOuts(pool, exchange, limit),
    },
    readExchange: async (exchange, keys) => (await readExchanges(pool, [exchange], keys)).get(exchange),
    exchangeVersion: (exchange) => exchangeVersion(pool, exchange),
    declaredVersion: (exchange) => declared.find(({ name }) => name === exchange)?.version,
    isReady: () => true,
    broker: { ...broker } as FanOutDeps['broker'],
    clock: hasty,
    log: silent,
    node: () => ledger.node,
    mayStart: () => true,
    numbers,
    wake: (queue) => void woken.push(queue),
    onMissing: (queue) => void missing.push(queue),
    onRefused: (destination) => void refused.push(destination),
    ...changes,
  }
  const { signal } = new AbortController()
  const handOver = createFanOutHandOver(deps)
  const dispatch = (exchange = 'orders') => handOver.handOver(lineOf(exchange), signal)
  const held = (queue: string) => (control.queues.get(queue) ?? []).map(identityOf)
  return { deps, broker: deps.broker, control, woken, missing, refused, numbers, refresh, handOver, dispatch, held }
}

const orders = () => makeExchange(ledger, 'orders', 'topic', { mail: ['eu.*'], audit: ['#'] })
const sent = () => fanOut(ledger, addressed('orders', { routingKey: 'eu.new', payload: '{"n":1.0}' }))
const status = (id: string | undefined) => ledger.status(id as string)

test('21: one message goes through the exchange, to foreign queues as well, and the parent waits for its children', async () => {
  await orders()
  const { id, children } = await sent()
  const { control, dispatch, held, numbers, woken } = await node()
  control.bind('orders', 'foreign', 'eu.#')
  expect(await dispatch()).toBe('drained')
  for (const queue of ['mail', 'audit', 'foreign']) expect(held(queue)).toEqual([{ kind: 'copy', parentId: id }])
  expect(control.queues.get('mail')?.[0]).toMatchObject({ exchange: 'orders', routingKey: 'eu.new', body: '{"n":1.0}' })
  expect(await ledger.row(id)).toMatchObject({ status: 'running', sealed: true })
  for (const child of Object.values(children)) expect(await status(child)).toBe('queued')
  expect([numbers.confirmed(), woken]).toEqual([1, []])
})

test('21: a publish that is not known is repeated through the exchange until it is', async () => {
  await orders()
  const { id } = await sent()
  const ends: PublishEnd[] = ['unknown', 'unknown']
  const { deps, control, dispatch, held, numbers } = await node()
  const { publish } = deps.broker
  deps.broker.publish = async (messages) => {
    const real = await publish(messages)
    return real.map((end) => ends.shift() ?? end)
  }
  control.bind('orders', 'foreign', '#')
  for (let i = 0; i < 2; i++) {
    expect(await dispatch()).toBe(250)
    expect(await status(id)).toBe('pending')
  }
  expect(await dispatch()).toBe('drained')
  expect(held('foreign')).toHaveLength(3)
  expect(await status(id)).toBe('running')
  expect(numbers.confirmed()).toBe(3)
})

test('a broker that is down or blocked is not published to; its return is a reason to look', async () => {
  await orders()
  const { control, handOver } = await node()
  const looked: (string | undefined)[] = []
  handOver.onRoom((line) => void looked.push(line))
  expect(handOver.room('exchange/orders')).toBeGreaterThan(0)
  control.status('blocked')
  expect(handOver.room('exchange/orders')).toBe(0)
  control.status('up')
  expect(looked).toEqual(['exchange/orders', 'exchange/orders'])
  expect(handOver.room('mail')).toBe(0)
})

test('an exchange that this node has not declared is waited for', async () => {
  const { dispatch, refresh } = await node()
  await orders()
  const { id } = await sent()
  for (const pace of [50, 100, 200]) expect(await dispatch()).toBe(pace)
  expect(await status(id)).toBe('pending')
  await refresh()
  expect(await dispatch()).toBe('drained')
  expect(await status(id)).toBe('running')
})

test('while this node has not declared the present bindings, the children go to their queues by themselves', async () => {
  await orders()
  const { control, dispatch, held, woken } = await node()
  control.bind('orders', 'foreign', '#')
  await ledger.queue('stock')
  await bind(ledger, 'orders', 'stock', 'eu.*')
  const { id, children } = await sent()
  expect(await dispatch()).toBe('drained')
  for (const child of Object.values(children)) expect(await status(child)).toBe('pending')
  expect([await status(id), woken.sort()]).toEqual(['running', ['audit', 'mail', 'stock']])
  expect(held('foreign')).toEqual([{ kind: 'copy', parentId: id }])
})

test('a child whose binding is gone since the submit goes to its queue by itself, though this node has not heard of it', async () => {
  await orders()
  const { control, dispatch, refresh } = await node()
  const [first, second] = [await sent(), await sent()]
  await unbind(ledger, 'orders', 'audit')
  control.unbind('orders', 'audit')
  // And bound anew, which the broker is not told yet.
  await bind(ledger, 'orders', 'audit', '#')
  await dispatch()
  for (const { children } of [first, second]) expect(await status(children.audit)).toBe('pending')
  await refresh()
  const third = await sent()
  await unbind(ledger, 'orders', 'audit')
  control.unbind('orders', 'audit')
  await refresh()
  await dispatch()
  expect(await status(third.children.audit)).toBe('pending')
  expect(await status(third.children.mail)).toBe('queued')
})

test('a binding that goes while the message travels strands no child', async () => {
  await orders()
  const { deps, control, dispatch, woken } = await node()
  const { publish } = deps.broker
  deps.broker.publish = async (messages) => {
    // As the API does: the row first, then the broker.
    await unbind(ledger, 'orders', 'audit')
    control.unbind('orders', 'audit')
    return publish(messages)
  }
  const { id, children } = await sent()
  await dispatch()
  expect(await status(children.audit)).toBe('pending')
  expect(woken).toContain('audit')
  expect(await status(id)).toBe('running')
})

test('a message that no queue takes although the rows have some lets the children go, and has the broker looked at', async () => {
  await orders()
  const { control, dispatch, missing, woken } = await node()
  for (const queue of ['mail', 'audit']) control.unbind('orders', queue)
  const { id, children } = await sent()
  expect(await dispatch()).toBe('drained')
  for (const child of Object.values(children)) expect(await status(child)).toBe('pending')
  expect([missing.sort(), woken.sort()]).toEqual([
    ['audit', 'mail'],
    ['audit', 'mail'],
  ])
  expect(await status(id)).toBe('running')
})

test('21: what the broker does not let this node publish to an exchange waits for that, and is not taken for published', async () => {
  await orders()
  const { broker, dispatch, refused } = await node()
  const { id, children } = await sent()
  broker.publish = async (messages) => messages.map(() => 'refused')
  expect(await dispatch()).toBeNumber()
  expect(refused).toEqual([{ kind: 'exchange', name: 'orders' }])
  expect(await status(id)).toBe('pending')
  const { tasks } = await single()
  const running = await node()
  running.broker.publish = broker.publish
  expect(await publisher(running)(tasks)).toEqual(['undeclared'])
  expect(running.refused).toEqual([{ kind: 'exchange', name: 'files' }])
  expect(Object.keys(children).sort()).toEqual(['audit', 'mail'])
})

test('what was addressed to an exchange that is gone is opened', async () => {
  await orders()
  const { dispatch, woken } = await node()
  const { id, children } = await sent()
  await ledger.pool.query('delete from exchanges')
  expect(await dispatch()).toBe('drained')
  expect(await status(id)).toBe('running')
  expect(await status(children.mail)).toBe('pending')
  expect(woken.sort()).toEqual(['audit', 'mail'])
})

test('in-process, what a line holds from before is opened', async () => {
  await orders()
  const { id, children } = await sent()
  const woken: string[] = []
  const opener = createFanOutOpener({
    openFanOuts: (exchange, limit) => openFanOuts(ledger.pool, exchange, limit),
    wake: (queue) => void woken.push(queue),
  })
  expect(opener.room('mail')).toBe(0)
  expect(opener.room('exchange/orders')).toBeGreaterThan(0)
  expect(await opener.handOver('exchange/orders', new AbortController().signal)).toBe('drained')
  expect([await status(id), await status(children.audit), woken.sort()]).toEqual([
    'running',
    'pending',
    ['audit', 'mail'],
  ])
})

test('11: a number stays open while what was claimed under it is not stored', async () => {
  await orders()
  const { id } = await sent()
  const stopped = new AbortController()
  const { deps, numbers } = await node()
  const { sealPublished: seal } = deps.ledger
  deps.ledger.sealPublished = async () => {
    stopped.abort()
    throw new Error('the connection is gone')
  }
  const handOver = createFanOutHandOver(deps)
  await handOver.handOver('exchange/orders', stopped.signal)
  expect(await status(id)).toBe('queued')
  expect(numbers.confirmed()).toBe(0)
  deps.ledger.sealPublished = seal
})

/** The one bound queue of an exchange: its task, queued. */
async function single() {
  await makeExchange(ledger, 'files', 'topic', { csv: ['*.csv'] })
  const { id } = await fanOut(ledger, addressed('files', { routingKey: 'a.csv' }))
  const claim = { queue: 'csv', node: ledger.node, publishNo: 1, limit: 10, window: 10, order: 'due' as const }
  const { tasks } = await claimForBroker(ledger.pool, claim)
  return { id, tasks }
}
const publisher = ({ deps }: Awaited<ReturnType<typeof node>>) => createTaskPublisher(deps)

test('21: the task of the one bound queue travels through its exchange on its first attempt, and later by itself', async () => {
  const { id, tasks } = await single()
  const running = await node()
  running.control.bind('files', 'foreign', '#')
  const plain = { ...tasks[0], queue: 'csv', exchange: null, id: 'plain' } as (typeof tasks)[number]
  expect(await publisher(running)([plain, ...tasks])).toEqual(['confirmed', 'confirmed'])
  expect(running.held('foreign')).toEqual([{ kind: 'task', id, attempt: 1 }])
  expect(running.held('csv').filter(({ kind }) => kind === 'task')).toEqual([{ kind: 'task', id, attempt: 1 }])
  expect(await publisher(running)(tasks.map((task) => ({ ...task, attempt: 2 })))).toEqual(['confirmed'])
  expect(running.held('foreign')).toHaveLength(1)
  expect(running.held('csv').at(-1)).toEqual({ kind: 'task', id, attempt: 2 })
})

test('such a task reaches its queue where its binding went, before or while it travels', async () => {
  const { id, tasks } = await single()
  const running = await node()
  running.control.bind('files', 'foreign', '#')
  const { publish } = running.broker
  running.broker.publish = async (messages) => {
    await unbind(ledger, 'files', 'csv')
    running.control.unbind('files', 'csv')
    return publish(messages)
  }
  for (const copies of [1, 2]) {
    expect(await publisher(running)(tasks)).toEqual(['confirmed'])
    expect(running.held('csv')).toHaveLength(copies)
    expect(running.held('foreign')).toHaveLength(copies)
  }
  expect(running.held('csv')[0]).toEqual({ kind: 'task', id, attempt: 1 })
})

test('such a task is not published while its exchange is not declared, and not known to be when nobody answered for it', async () => {
  const { tasks } = await single()
  const running = await node({ declaredVersion: () => undefined })
  expect(await publisher(running)(tasks)).toEqual(['undeclared'])
  const unsure = await node()
  unsure.control.bind('files', 'csv', '*.csv')
  unsure.broker.publish = async (messages) => messages.map(() => 'unknown')
  expect(await publisher(unsure)(tasks)).toEqual(['unknown'])
  const blind = await node({ readExchange: () => Promise.reject(new Error('the database is away')) })
  expect(await publisher(blind)(tasks)).toEqual(['unknown'])
})

test('a copy for a queue that the broker has otherwise is not waited for', async () => {
  await orders()
  const { children } = await sent()
  const { dispatch, woken } = await node({ isReady: (queue) => queue !== 'mail' })
  await dispatch()
  expect([await status(children.mail), await status(children.audit), woken]).toEqual(['pending', 'queued', ['mail']])
})

test('such a task that its exchange brings nowhere goes by itself, and the broker is looked at', async () => {
  const { tasks } = await single()
  const running = await node()
  running.control.unbind('files', 'csv')
  expect(await publisher(running)(tasks)).toEqual(['confirmed'])
  expect(running.held('csv')).toHaveLength(1)
  expect(running.missing).toEqual(['csv'])
  await ledger.pool.query('delete from exchanges')
  expect(await publisher(running)(tasks)).toEqual(['confirmed'])
  running.control.queues.delete('csv')
  expect(await publisher(running)(tasks)).toEqual(['returned'])
})
