import { afterAll, beforeAll, expect, test } from 'bun:test'
import { v7 as uuidv7 } from 'uuid'
import { type ApiUnderTest, apiUnderTest } from './api-under-test.ts'

let api: ApiUnderTest
beforeAll(async () => {
  api = await apiUnderTest('server')
})
afterAll(() => api.close())

async function waiting(queue: string, payload: string, { priority = 0, status = 'pending' } = {}): Promise<string> {
  const id = uuidv7()
  await api.test.database.pool.query(
    `insert into tasks (id, queue, payload, status, priority, due_at, max_attempts, origin)
     values ($1, $2, $3, $4, $5, now() - interval '1 s', 10, 'api')`,
    [id, queue, payload, status, priority],
  )
  return id
}

test('PUT makes a queue with defaults (201) and replaces it (200), and the node is told', async () => {
  const before = api.topologyChanges()
  const made = await api.call('PUT', '/api/v1/queues/emails', { as: 'operate', json: {} })
  expect([made.status, made.headers.get('location')]).toEqual([201, '/api/v1/queues/emails'])
  expect(made.json).toMatchObject({
    name: 'emails',
    type: 'quorum',
    retention: { succeeded: '7d', cancelled: '7d', dead: '90d' },
    paused: false,
    oldestWaitingMs: null,
    rate: 0,
  })
  expect(made.json.retry.maxAttempts).toBe(10)

  const json = {
    retry: { maxAttempts: 2, backoff: { kind: 'delays', delays: ['1s', '1m'] } },
    retention: { dead: '1d' },
  }
  const replaced = await api.call('PUT', '/api/v1/queues/emails', { json })
  expect(replaced.status).toBe(200)
  expect(replaced.json).toMatchObject({ ...json, retention: { succeeded: '7d', cancelled: '7d', dead: '1d' } })
  expect((await api.call('GET', '/api/v1/queues/emails', { as: 'read' })).json.retry).toEqual(json.retry)
  expect(api.topologyChanges()).toBe(before + 2)
})

test('fields that do not work yet are refused by name', async () => {
  for (const field of ['maxPriority', 'window', 'settlement', 'deadLetter']) {
    const answer = await api.call('PUT', '/api/v1/queues/emails', { json: { [field]: 1 } })
    expect(answer.json.errors).toEqual([{ path: `/${field}`, message: 'is not a known field' }])
  }
})

test('a name of the broker, of dead letters, or with odd characters is refused', async () => {
  for (const name of ['amq.topic', 'emails.dlq', 'a b', 'a%2Fb', 'ä', 'x'.repeat(129)]) {
    expect([name, (await api.call('PUT', `/api/v1/queues/${name}`, { json: {} })).status]).toEqual([name, 422])
  }
})

test('a page of queues ends where the next begins', async () => {
  for (const name of ['p-1', 'p-2', 'P-3', 'p:4']) await api.call('PUT', `/api/v1/queues/${name}`, { json: {} })
  const names: string[] = []
  let after: string | null = null
  do {
    const page: { json: { items: { name: string }[]; next: string | null } } = await api.call(
      'GET',
      `/api/v1/queues?limit=2${after ? `&after=${after}` : ''}`,
    )
    expect(page.json.items.length).toBeLessThanOrEqual(2)
    names.push(...page.json.items.map(({ name }) => name))
    after = page.json.next
  } while (after)
  expect(new Set(names).size).toBe(names.length)
  expect(names).toEqual(expect.arrayContaining(['p-1', 'p-2', 'P-3', 'p:4']))
})

test('pause and resume say what now holds; an unknown queue is 404', async () => {
  await api.call('PUT', '/api/v1/queues/breaks', { json: {} })
  expect((await api.call('POST', '/api/v1/queues/breaks/pause', { as: 'operate' })).json.paused).toBe(true)
  expect((await api.call('GET', '/api/v1/queues/breaks')).json.paused).toBe(true)
  await api.call('PUT', '/api/v1/queues/breaks', { json: { type: 'classic' } })
  expect((await api.call('POST', '/api/v1/queues/breaks/pause')).json).toMatchObject({ paused: true, type: 'classic' })
  expect((await api.call('POST', '/api/v1/queues/breaks/resume')).json.paused).toBe(false)
  expect((await api.call('POST', '/api/v1/queues/none/pause')).status).toBe(404)
})

test('purge wants the name once more', async () => {
  await api.call('PUT', '/api/v1/queues/old', { json: {} })
  const wrong = await api.call('POST', '/api/v1/queues/old/purge', { json: { confirm: 'odl' } })
  expect([wrong.status, wrong.json.errors[0].path, api.purged]).toEqual([422, '/confirm', []])
  expect((await api.call('POST', '/api/v1/queues/none/purge', { json: { confirm: 'none' } })).status).toBe(404)
  expect((await api.call('POST', '/api/v1/queues/old/purge', { json: { confirm: 'old' } })).json).toEqual({
    cancelled: 1,
  })
  expect(api.purged).toEqual(['old'])
})

test('a queue is deleted only when it is idle, and the built-in one never', async () => {
  const builtIn = await api.call('DELETE', '/api/v1/queues/default')
  expect([builtIn.status, builtIn.json.code]).toEqual([409, 'conflict'])

  await api.call('PUT', '/api/v1/queues/busy', { json: {} })
  const consumer = await api.call('POST', '/api/v1/consumers', { json: { queue: 'busy', target: { type: 'noop' } } })
  expect((await api.call('DELETE', '/api/v1/queues/busy')).json.code).toBe('conflict')
  await api.call('DELETE', `/api/v1/consumers/${consumer.json.id}`)

  const id = await waiting('busy', '{}')
  expect((await api.call('DELETE', '/api/v1/queues/busy')).json.code).toBe('queue-not-empty')
  await api.test.database.pool.query(`update tasks set status = 'succeeded' where id = $1`, [id])
  expect((await api.call('DELETE', '/api/v1/queues/busy')).status).toBe(204)
  expect((await api.call('DELETE', '/api/v1/queues/busy')).status).toBe(404)
  expect((await api.call('GET', '/api/v1/queues/busy')).status).toBe(404)
})

test('messages are the waiting tasks in the order of dispatch, with the payload as it came, page by page', async () => {
  await api.call('PUT', '/api/v1/queues/line', { json: {} })
  const low = await waiting('line', '{"b":1.0,"a":12345678901234567890}')
  const retrying = await waiting('line', '[]', { status: 'retrying' })
  const high = await waiting('line', '"x"', { priority: 9 })
  await waiting('line', '1', { status: 'running' })
  const first = await api.call('GET', '/api/v1/queues/line/messages?limit=2', { as: 'read' })
  expect(first.json.items.map((task: { id: string }) => task.id)).toEqual([high, low])
  expect(first.text).toContain('"payload":{"b":1.0,"a":12345678901234567890}')
  expect(first.json.items[0]).toMatchObject({ status: 'pending', priority: 9, attempt: 0, failures: 0, parentId: null })
  const second = await api.call('GET', `/api/v1/queues/line/messages?limit=2&after=${first.json.next}`)
  expect([second.json.items.map((task: { id: string }) => task.id), second.json.next]).toEqual([[retrying], null])
  expect((await api.call('GET', '/api/v1/queues/none/messages')).status).toBe(404)
})
