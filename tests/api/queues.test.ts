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

test('a policy is taken and shown as a whole, and what is left out takes its default', async () => {
  const json = {
    maxPriority: 5,
    window: 500,
    settlement: 'outcome',
    deadLetter: false,
    order: 'random',
    reportWithin: '600s',
  }
  const made = await api.call('PUT', '/api/v1/queues/policies', { json })
  const shown = { ...json, type: 'classic', reportWithin: '10m', state: 'ready', conflict: null }
  expect([made.status, made.json]).toEqual([201, expect.objectContaining(shown)])
  expect((await api.call('GET', '/api/v1/queues/policies')).json).toMatchObject(shown)
  expect((await api.call('PUT', '/api/v1/queues/policies', { json: {} })).json).toMatchObject({
    ...{ type: 'quorum', maxPriority: null, window: null, settlement: 'outcome', deadLetter: true },
    ...{ order: 'due', reportWithin: null },
  })
})

test('what does not go together is refused with the field that is wrong', async () => {
  const wrong = async (json: object) => {
    const { status, json: problem } = await api.call('PUT', '/api/v1/queues/emails', { json })
    return [status, problem.errors?.[0].path]
  }
  expect(await wrong({ type: 'quorum', maxPriority: 3 })).toEqual([422, '/maxPriority'])
  expect(await wrong({ maxPriority: 10 })).toEqual([422, '/maxPriority'])
  expect(await wrong({ window: 0 })).toEqual([422, '/window'])
  expect(await wrong({ settlement: 'never' })).toEqual([422, '/settlement'])
  expect(await wrong({ settlement: 'confirm', reportWithin: '1m' })).toEqual([422, '/reportWithin'])
  for (const reportWithin of ['999ms', '366d', 'soon']) {
    expect(await wrong({ reportWithin })).toEqual([422, '/reportWithin'])
  }
  expect(await wrong({ conflict: null })).toEqual([422, '/conflict'])
  expect((await api.call('PUT', '/api/v1/queues/emails', { json: { type: 'classic', maxPriority: 3 } })).status).toBe(
    200,
  )
})

test('a conflict with the broker shows on the queue', async () => {
  await api.call('PUT', '/api/v1/queues/differs', { json: {} })
  await api.test.database.pool.query(`update queues set conflict = 'it is classic: delete it' where name = 'differs'`)
  expect((await api.call('GET', '/api/v1/queues/differs')).json).toMatchObject({
    state: 'conflict',
    conflict: 'it is classic: delete it',
  })
})

test('19: a queue that the confirm settles takes no consumers, and with consumers it cannot become one', async () => {
  await api.call('PUT', '/api/v1/queues/sent', { json: { settlement: 'confirm' } })
  const consumer = { queue: 'sent', target: { type: 'noop' } }
  const refused = await api.call('POST', '/api/v1/consumers', { json: consumer })
  expect([refused.status, refused.json.code]).toEqual([409, 'conflict'])
  expect((await api.call('PUT', '/api/v1/queues/sent', { json: {} })).status).toBe(200)
  expect((await api.call('POST', '/api/v1/consumers', { json: consumer })).status).toBe(201)
  const changed = await api.call('PUT', '/api/v1/queues/sent', { json: { settlement: 'confirm', window: 7 } })
  expect([changed.status, changed.json.code]).toEqual([409, 'conflict'])
  expect((await api.call('GET', '/api/v1/queues/sent')).json).toMatchObject({ settlement: 'outcome', window: null })
})

test('a name of the broker, of dead letters, or with odd characters is refused', async () => {
  for (const name of ['amq.topic', 'longshore.dlx', 'emails.dlq', 'a b', 'a%2Fb', 'ä', 'x'.repeat(129)]) {
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

test('messages are the waiting tasks in the order of dispatch, with the payload as it came, page by page', async () => {
  await api.call('PUT', '/api/v1/queues/line', { json: {} })
  const low = await waiting('line', '{"b":1.0,"a":12345678901234567890}')
  const retrying = await waiting('line', '[]', { status: 'retrying' })
  const high = await waiting('line', '"x"', { priority: 9 })
  const queued = await waiting('line', '2', { status: 'queued' })
  await waiting('line', '1', { status: 'running' })
  const first = await api.call('GET', '/api/v1/queues/line/messages?limit=3', { as: 'read' })
  expect(first.json.items.map((task: { id: string }) => task.id)).toEqual([queued, high, low])
  expect(first.text).toContain('"payload":{"b":1.0,"a":12345678901234567890}')
  expect(first.json.items[1]).toMatchObject({ status: 'pending', priority: 9, attempt: 0, failures: 0, parentId: null })
  const one = await api.call('GET', '/api/v1/queues/line/messages?limit=1')
  const rest = await api.call('GET', `/api/v1/queues/line/messages?after=${one.json.next}`)
  expect(rest.json.items.map((task: { id: string }) => task.id)).toEqual([high, low, retrying])
  const second = await api.call('GET', `/api/v1/queues/line/messages?limit=3&after=${first.json.next}`)
  expect([second.json.items.map((task: { id: string }) => task.id), second.json.next]).toEqual([[retrying], null])
  expect((await api.call('GET', '/api/v1/queues/none/messages')).status).toBe(404)
})
