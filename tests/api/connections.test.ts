import { afterAll, beforeAll, beforeEach, expect, test } from 'bun:test'
import type { BrokerConnection, ReadConnections } from '../../src/broker/connections.ts'
import { type ApiUnderTest, apiUnderTest } from './api-under-test.ts'

let managed: ReadConnections = async () => ({ connections: [], reason: null })
let api: ApiUnderTest
/** Without the management API. */
let bare: ApiUnderTest
beforeAll(async () => {
  api = await apiUnderTest('server', { managementConnections: () => managed() })
  bare = await apiUnderTest('server')
})
afterAll(async () => {
  await api.close()
  await bare.close()
})
beforeEach(async () => {
  for (const { test } of [api, bare]) await test.database.pool.query('delete from nodes')
})

const SINCE = '2026-01-01T00:00:00.000Z'

async function node(at: ApiUnderTest, name: string, broker: 'rabbitmq' | 'in-process', silentS = 0): Promise<void> {
  const connections = (['publish', 'consume'] as const).map((purpose) => {
    return { name: `longshore ${name} ${purpose}`, host: 'rabbit:5672', purpose, since: SINCE }
  })
  const link = { status: 'up', since: SINCE, reason: null, connections }
  const state = { broker, consumers: [], ...(broker === 'rabbitmq' && { link }) }
  await at.test.database.pool.query(
    `insert into nodes (id, name, version, roles, broker, beat_at, state)
     values (gen_random_uuid(), $1, '0', '{worker}', $2, now() - make_interval(secs => $3), $4)`,
    [name, broker === 'rabbitmq' ? 'rabbitmq:/' : broker, silentS, JSON.stringify(state)],
  )
}

const foreign = (name: string, port: number): BrokerConnection => {
  return { name, peer: `10.0.0.9:${port}`, user: 'pika', client: 'pika 1.3.2', since: SINCE, channels: 1 }
}

test('the broker inside the process has no connections', async () => {
  await node(bare, 'one', 'in-process')
  expect((await bare.call('GET', '/api/v1/connections', { as: 'read' })).json).toEqual({
    items: [],
    next: null,
    complete: true,
    reason: null,
  })
})

test('without the management API those of the nodes that live are shown, and that there may be others', async () => {
  await node(bare, 'one', 'rabbitmq')
  await node(bare, 'gone', 'rabbitmq', 20)
  const { json } = await bare.call('GET', '/api/v1/connections')
  expect(json.items.map(({ name }: { name: string }) => name)).toEqual([
    'longshore one consume',
    'longshore one publish',
  ])
  expect(json.items[1]).toMatchObject({
    ...{ ours: true, nodeName: 'one', purpose: 'publish', host: 'rabbit:5672', since: SINCE },
    ...{ peer: null, user: null, client: null, channels: null },
  })
  expect([json.complete, json.reason]).toEqual([false, expect.stringContaining('RABBITMQ_MANAGEMENT_URL')])
})

test('with it all are shown, and which are ours; foreign ones that share a name, too, page by page', async () => {
  await node(api, 'one', 'rabbitmq')
  const ours = {
    ...foreign('longshore one publish', 5),
    user: 'longshore',
    client: 'amqp-client.js 4.1.1',
    channels: 3,
  }
  managed = async () => ({ connections: [foreign('script', 2), ours, foreign('script', 1)], reason: null })
  const { json } = await api.call('GET', '/api/v1/connections')
  expect([json.complete, json.reason]).toEqual([true, null])
  expect(json.items.map((one: Record<string, unknown>) => [one.name, one.ours, one.peer, one.purpose])).toEqual([
    ['longshore one consume', true, null, 'consume'],
    ['longshore one publish', true, '10.0.0.9:5', 'publish'],
    ['script', false, '10.0.0.9:1', null],
    ['script', false, '10.0.0.9:2', null],
  ])
  expect(json.items[1]).toMatchObject({ user: 'longshore', channels: 3, nodeName: 'one', host: 'rabbit:5672' })

  const names: string[] = []
  let after = ''
  for (;;) {
    const page = await api.call('GET', `/api/v1/connections?limit=1${after}`)
    names.push(...page.json.items.map((one: { name: string; peer: string }) => `${one.name} ${one.peer}`))
    if (page.json.next === null) break
    after = `&after=${page.json.next}`
  }
  expect(names).toEqual(json.items.map((one: { name: string; peer: string }) => `${one.name} ${one.peer}`))
})

test('a management API that cannot be asked costs what it alone knows', async () => {
  await node(api, 'one', 'rabbitmq')
  managed = () => Promise.reject(new Error('connect ECONNREFUSED 127.0.0.1:15672'))
  const { status, json } = await api.call('GET', '/api/v1/connections')
  expect([status, json.items.length, json.complete]).toEqual([200, 2, false])
  expect(json.reason).toContain('ECONNREFUSED')
})

test('a management API that does not show all is not taken for complete', async () => {
  await node(api, 'one', 'rabbitmq')
  managed = async () => ({ connections: [], reason: 'has neither tag' })
  const { json } = await api.call('GET', '/api/v1/connections')
  expect([json.items.length, json.complete, json.reason]).toEqual([2, false, 'has neither tag'])
})

test('a node shows its broker and how it stands with it', async () => {
  await node(bare, 'one', 'rabbitmq')
  const { json } = await bare.call('GET', '/api/v1/nodes')
  expect(json.items).toMatchObject([{ broker: 'rabbitmq:/', state: { link: { status: 'up', reason: null } } }])
})
