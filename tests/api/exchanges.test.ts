import { afterAll, beforeAll, beforeEach, expect, test } from 'bun:test'
import { type ApiUnderTest, apiUnderTest } from './api-under-test.ts'

let api: ApiUnderTest
beforeAll(async () => {
  api = await apiUnderTest('server')
  for (const queue of ['emails', 'audit']) await api.call('PUT', `/api/v1/queues/${queue}`, { json: {} })
})
afterAll(() => api.close())
beforeEach(() => {
  api.broker.status('up')
  api.broker.calls.length = 0
})

const put = (name: string, type: string) =>
  api.call('PUT', `/api/v1/exchanges/${name}`, { as: 'operate', json: { type } })
const bindings = (method: string, name: string, json: object) =>
  api.call(method, `/api/v1/exchanges/${name}/bindings`, { as: 'operate', json })

test('PUT makes an exchange once, and its type never changes', async () => {
  const before = api.topologyChanges()
  const made = await put('orders', 'topic')
  expect([made.status, made.headers.get('location')]).toEqual([201, '/api/v1/exchanges/orders'])
  expect(made.json).toMatchObject({ name: 'orders', type: 'topic', state: 'ready', conflict: null, bindings: [] })
  expect((await put('orders', 'topic')).status).toBe(200)
  const other = await put('orders', 'fanout')
  expect([other.status, other.json.code]).toEqual([409, 'conflict'])
  expect((await api.call('GET', '/api/v1/exchanges/orders', { as: 'read' })).json.type).toBe('topic')
  expect(api.topologyChanges()).toBe(before + 2)
})

test('names of the broker and of Longshore, odd ones and unknown types are refused', async () => {
  for (const name of ['amq.topic', 'longshore.dlx', 'a b', 'ä', 'x'.repeat(129)]) {
    expect([name, (await put(name, 'topic')).status]).toEqual([name, 422])
  }
  const wrong = await put('fine', 'headers')
  expect([wrong.status, wrong.json.errors[0].path]).toEqual([422, '/type'])
  expect((await api.call('GET', '/api/v1/exchanges/fine')).status).toBe(404)
})

test('bindings are made once, shown with their exchange, and go here and at the broker', async () => {
  await put('events', 'topic')
  expect((await bindings('PUT', 'events', { queue: 'emails', routingKey: 'a.*' })).status).toBe(201)
  expect((await bindings('PUT', 'events', { queue: 'emails', routingKey: 'a.*' })).status).toBe(200)
  expect((await bindings('PUT', 'events', { queue: 'emails' })).json).toEqual({ queue: 'emails', routingKey: '' })
  await bindings('PUT', 'events', { queue: 'audit', routingKey: '#' })
  const shown = await api.call('GET', '/api/v1/exchanges/events')
  expect(shown.json.bindings).toEqual([
    { queue: 'audit', routingKey: '#' },
    { queue: 'emails', routingKey: '' },
    { queue: 'emails', routingKey: 'a.*' },
  ])
  expect((await bindings('DELETE', 'events', { queue: 'emails', routingKey: 'a.*' })).status).toBe(204)
  expect(api.broker.calls).toEqual([
    'remove {"kind":"binding","exchange":"events","queue":"emails","routingKey":"a.*"}',
  ])
  expect((await api.call('GET', '/api/v1/exchanges/events')).json.bindings).toHaveLength(2)
})

test('a binding of what is not there is refused, and what others bound at the broker is left alone', async () => {
  await put('known', 'direct')
  expect((await bindings('PUT', 'unknown', { queue: 'emails' })).status).toBe(404)
  const noQueue = await bindings('PUT', 'known', { queue: 'nowhere' })
  expect([noQueue.status, noQueue.json.code, noQueue.json.errors[0].path]).toEqual([422, 'unknown-queue', '/queue'])
  const long = await bindings('PUT', 'known', { queue: 'emails', routingKey: 'ä'.repeat(128) })
  expect([long.status, long.json.errors[0].path]).toEqual([422, '/routingKey'])
  expect((await bindings('DELETE', 'known', { queue: 'emails', routingKey: 'x' })).status).toBe(404)
  expect((await bindings('DELETE', 'amq.topic', { queue: 'emails', routingKey: 'x' })).status).toBe(404)
  expect(api.broker.calls).toEqual([])
})

test('an exchange with bindings goes by its name only, and its queues stay', async () => {
  await put('guarded', 'fanout')
  await bindings('PUT', 'guarded', { queue: 'audit' })
  const remove = async (query: string) => {
    const { status, json } = await api.call('DELETE', `/api/v1/exchanges/guarded${query}`)
    return [status, json?.code]
  }
  expect(await remove('')).toEqual([409, 'conflict'])
  expect(await remove('?ifUnused=false')).toEqual([422, 'validation'])
  expect(await remove('?confirm=guard')).toEqual([422, 'validation'])
  expect(await remove('?confirm=guarded&ifUnused=true')).toEqual([409, 'conflict'])
  expect(api.broker.calls).toEqual([])
  expect(await remove('?confirm=guarded')).toEqual([204, undefined])
  expect(await remove('')).toEqual([404, 'not-found'])
  expect((await api.call('GET', '/api/v1/queues/audit')).status).toBe(200)
})

test('a queue that goes takes its bindings along', async () => {
  await api.call('PUT', '/api/v1/queues/passing', { json: {} })
  await put('stays', 'fanout')
  await bindings('PUT', 'stays', { queue: 'passing' })
  expect((await api.call('DELETE', '/api/v1/queues/passing')).status).toBe(204)
  expect((await api.call('GET', '/api/v1/exchanges/stays')).json.bindings).toEqual([])
})

test('a broker that is away takes nothing away, here neither', async () => {
  await put('kept', 'fanout')
  await bindings('PUT', 'kept', { queue: 'audit' })
  api.broker.status('down')
  const exchange = await api.call('DELETE', '/api/v1/exchanges/kept?confirm=kept')
  const binding = await bindings('DELETE', 'kept', { queue: 'audit' })
  for (const answer of [exchange, binding]) {
    expect([answer.status, answer.json.code]).toEqual([503, 'broker-unavailable'])
  }
  expect((await api.call('GET', '/api/v1/exchanges/kept')).json.bindings).toHaveLength(1)
})

test('21: a binding has lost its row before the broker loses it', async () => {
  await put('leaving', 'fanout')
  await bindings('PUT', 'leaving', { queue: 'audit' })
  const rows = async () =>
    (await api.test.database.pool.query(`select from bindings where exchange = 'leaving'`)).rowCount
  const found: unknown[] = []
  api.broker.beforeRemove = async () => void found.push(await rows())
  expect((await bindings('DELETE', 'leaving', { queue: 'audit' })).status).toBe(204)
  api.broker.beforeRemove = undefined
  expect([found, await rows()]).toEqual([[0], 0])
})

test('a conflict shows on the exchange, and a page ends where the next begins', async () => {
  for (const name of ['x-1', 'x-2', 'X-3']) await put(name, 'fanout')
  await api.test.database.pool.query(`update exchanges set conflict = 'it is direct' where name = 'x-1'`)
  expect((await api.call('GET', '/api/v1/exchanges/x-1')).json).toMatchObject({
    state: 'conflict',
    conflict: 'it is direct',
  })
  const names: string[] = []
  for (let after = ''; ; ) {
    const { json } = await api.call('GET', `/api/v1/exchanges?limit=2${after}`)
    names.push(...json.items.map(({ name }: { name: string }) => name))
    if (json.next === null) break
    after = `&after=${json.next}`
  }
  expect(names).toEqual(names.toSorted())
  expect(names).toEqual(expect.arrayContaining(['x-1', 'x-2', 'X-3']))
})
