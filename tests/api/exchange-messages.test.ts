import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { ENGINES } from '../support/database.ts'
import { makeExchange } from '../support/exchanges.ts'
import { type CallOptions, type TasksUnderTest, tasksUnderTest } from './tasks-under-test.ts'

describe.each(ENGINES)('addresses at exchanges on %s', (engine) => {
  let api: TasksUnderTest
  beforeAll(async () => {
    api = await tasksUnderTest(engine)
    const pool = { query: api.query } as unknown as Parameters<typeof makeExchange>[0]['pool']
    await makeExchange({ pool }, 'orders', 'topic', { emails: ['*.eu'], audit: ['#.eu'] })
    await makeExchange({ pool }, 'files', 'direct', { csv: ['csv'] })
  }, 60_000)
  afterAll(() => api?.close())

  const send = (exchange: string, options: CallOptions) =>
    api.call('POST', `/exchanges/${exchange}/messages`, { as: 'submit', ...options })

  test('a task for several queues shows where it was addressed to, and how far its children are', async () => {
    const json = { exchange: 'orders', routingKey: 'new.eu', payload: { n: 1 }, idempotencyKey: 'k', priority: 3 }
    const sent = await api.call('POST', '/tasks', { as: 'submit', json })
    expect(sent.status).toBe(201)
    expect(sent.json).toMatchObject({
      ...{ queue: 'exchange/orders', exchange: 'orders', routingKey: 'new.eu', status: 'running', attempt: 0 },
      children: { total: 2, succeeded: 0, dead: 0, live: 2 },
      waitingFor: { cause: 'children' },
    })
    expect((await api.call('GET', `/tasks/${sent.json.id}`)).json).toEqual(sent.json)
    const { json: children } = await api.call('GET', `/tasks?parentId=${sent.json.id}`)
    expect(children.items.map(({ queue }: { queue: string }) => queue).sort()).toEqual(['audit', 'emails'])
    expect(children.items[0]).toMatchObject({ exchange: null, routingKey: 'new.eu', origin: 'child', priority: 3 })
    const again = await api.call('POST', '/tasks', { as: 'submit', json })
    expect([again.status, again.json.id]).toEqual([200, sent.json.id])
    const other = await api.call('POST', '/tasks', { as: 'submit', json: { ...json, routingKey: 'old.eu' } })
    expect([other.status, other.json.code]).toEqual([409, 'idempotency-mismatch'])
    const { json: listed } = await api.call('GET', '/tasks?queue=exchange/orders')
    expect(listed.items).toHaveLength(1)
  })

  test('a task for one queue is that queue’s', async () => {
    const { status, json } = await api.call('POST', '/tasks', {
      as: 'submit',
      json: { exchange: 'files', routingKey: 'csv', payload: 1 },
    })
    expect([status, json.queue, json.exchange, json.routingKey]).toEqual([201, 'csv', 'files', 'csv'])
    expect(json).toMatchObject({ status: 'pending', children: null })
  })

  test('what leads nowhere is refused, alone and in a batch, by the place where it stands', async () => {
    const refused = async (json: object) => {
      const answer = await api.call('POST', '/tasks', { as: 'submit', json: { payload: 1, ...json } })
      return [answer.status, answer.json.code, answer.json.errors?.[0].path]
    }
    expect(await refused({ exchange: 'nowhere' })).toEqual([422, 'unknown-exchange', '/exchange'])
    expect(await refused({ exchange: 'orders', routingKey: 'us' })).toEqual([422, 'unroutable', '/routingKey'])
    expect(await refused({ exchange: 'orders', queue: 'emails' })).toEqual([422, 'validation', '/queue'])
    const lines = ['{"queue":"emails","payload":1}', '{"exchange":"files","routingKey":"xml","payload":1}']
    const batch = await api.call('POST', '/tasks/batch', {
      body: lines.join('\n'),
      headers: { 'content-type': 'application/x-ndjson' },
    })
    expect([batch.status, batch.json.code, batch.json.errors[0].path]).toEqual([422, 'unroutable', '/1/routingKey'])
    const good = await api.call('POST', '/tasks/batch', {
      body: [lines[0], '{"exchange":"orders","routingKey":"a.eu","payload":1}'].join('\n'),
      headers: { 'content-type': 'application/x-ndjson' },
    })
    expect([good.status, good.json.ids.length]).toEqual([201, 2])
    const parent = await api.call('POST', '/tasks', {
      json: { queue: 'emails', payload: 1, parentId: good.json.ids[1] },
    })
    expect([parent.status, parent.json.code]).toEqual([409, 'parent-final'])
  })

  test('a message to an exchange is a task for its queues, whose messages bear its headers', async () => {
    const sent = await send('orders', {
      body: '{"headers":{"tenant":"acme"},"routingKey":"new.eu","priority":7,"body":{"b": 1.0}}',
    })
    expect([sent.status, sent.headers.get('location')]).toEqual([201, `/api/v1/tasks/${sent.json.id}`])
    expect(sent.text).toContain('"payload":{"b": 1.0}')
    const { json: children } = await api.call('GET', `/tasks?parentId=${sent.json.id}`)
    for (const task of [(await api.call('GET', `/tasks/${sent.json.id}`)).json, ...children.items])
      expect(task).toMatchObject({
        priority: 7,
        message: { exchange: 'orders', routingKey: 'new.eu', headers: { tenant: 'acme' } },
      })
    expect(children.items).toHaveLength(2)
    expect((await send('files', { json: { body: null, routingKey: 'csv' } })).json).toMatchObject({ queue: 'csv' })
  })

  test('an unknown exchange is 404, and what is wrong is named where it stands in the message', async () => {
    const refused = async (exchange: string, options: CallOptions) => {
      const { status, json } = await send(exchange, options)
      return [status, json.code, json.errors?.[0].path]
    }
    expect(await refused('nowhere', { json: { body: 1 } })).toEqual([404, 'not-found', undefined])
    expect(await refused('a%20b', { json: { body: 1 } })).toEqual([404, 'not-found', undefined])
    expect(await refused('x'.repeat(200), { json: { body: 1 } })).toEqual([404, 'not-found', undefined])
    expect(await refused('orders', { json: { body: 1 } })).toEqual([422, 'unroutable', '/routingKey'])
    expect(await refused('orders', { json: { routingKey: 'a' } })).toEqual([422, 'validation', '/body'])
    expect(await refused('orders', { json: { body: 1, routingKey: 'ü'.repeat(200) } })).toEqual([
      422,
      'validation',
      '/routingKey',
    ])
    expect(await refused('orders', { body: '{"body":"\\u0000"}' })).toEqual([422, 'validation', '/body'])
    expect((await send('orders', { json: { body: 1 }, as: 'read' })).status).toBe(403)
  })
})
