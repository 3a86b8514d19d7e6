import { afterAll, afterEach, beforeAll, expect, test } from 'bun:test'
import { v7 } from 'uuid'
import { createKey } from '../../src/store/keys/keys.ts'
import { markSilentNodes } from '../../src/store/nodes.ts'
import type { DeliveryClaim } from '../../src/task/ledger.ts'
import { WORKER_LIMITS } from '../../src/task/worker-protocol.ts'
import { SUCCEEDED, type TaskLedger, taskLedger } from '../support/tasks.ts'
import { type Answer, type ApiUnderTest, apiUnderTest, type CallOptions } from './api-under-test.ts'

let tasks: TaskLedger
let api: ApiUnderTest
let otherKey: string

beforeAll(async () => {
  tasks = await taskLedger('server')
  api = await apiUnderTest('server', { test: tasks.test })
  otherKey = (await createKey(tasks.test.database.db, 'another', ['work'])).key
})
afterEach(async () => {
  await tasks.pool.query('delete from consumers')
  await tasks.clear()
})
afterAll(() => api.close())

const post = (path: string, json: unknown, options: CallOptions = {}): Promise<Answer> =>
  api.call('POST', `/api/v1${path}`, { as: 'work', json, ...options })
const asAnother = (): CallOptions => ({ as: null, headers: { authorization: `Bearer ${otherKey}` } })

async function join(options: CallOptions = {}): Promise<string> {
  const node = v7()
  const { status, json } = await post('/beats', { node, join: { name: 'test', version: '1' } }, options)
  expect([status, json.alive]).toEqual([200, true])
  return node
}

async function queued(payload = '{}', parentId: string | null = null): Promise<DeliveryClaim & { id: string }> {
  const id = await tasks.insert({ payload, parentId, origin: parentId ? 'child' : 'api' })
  await tasks.pool.query(`update tasks set status = 'queued' where id = $1`, [id])
  return { kind: 'task', id, attempt: 1 }
}

const claim = (node: string, deliveries: object[], options: CallOptions = {}) =>
  post('/claims', { claimId: v7(), node, queue: 'default', deliveries }, options)

async function claimed(node: string): Promise<string> {
  const delivery = await queued()
  expect((await claim(node, [delivery])).json.answers[0].kind).toBe('claimed')
  return delivery.id
}

const settle = (node: string, id: string, outcome: object = SUCCEEDED, options: CallOptions = {}) =>
  post('/outcomes', { node, settlements: [{ id, attempt: 1, outcome }] }, options)

const CALLS: [string, object][] = [
  ['/claims', { claimId: v7(), node: v7(), queue: 'default', deliveries: [{ kind: 'task', id: v7(), attempt: 1 }] }],
  ['/outcomes', { node: v7() }],
  ['/beats', { node: v7() }],
  ['/tokens', { consumer: v7(), count: 1 }],
  ['/locks', { node: v7(), name: 'a', hold: true }],
]

test('the protocol is there for keys with the scope work, and for no others', async () => {
  for (const [path, body] of CALLS) {
    for (const scope of ['read', 'submit', 'operate', 'admin'] as const) {
      expect([path, scope, (await post(path, body, { as: scope })).status]).toEqual([path, scope, 403])
    }
    expect([path, (await post(path, body, { as: null })).status]).toEqual([path, 401])
    expect([path, (await post(path, body)).json?.code ?? 'fine']).not.toEqual([path, 'forbidden'])
  }
})

test('a key with the scope work alone opens nothing else but the report of a status', async () => {
  const { paths } = (await api.call('GET', '/openapi.json')).json
  const opened: string[] = []
  for (const [path, operations] of Object.entries(paths as Record<string, Record<string, { security?: unknown[] }>>)) {
    if (!path.startsWith('/api/v1/')) continue
    for (const method of Object.keys(operations)) {
      const given = path.replace(/\{[^}]+\}/g, v7()).replace(/notices$/, 'notices?within=0ms')
      const { json } = await api.call(method.toUpperCase(), given, { as: 'work' })
      if (json?.code !== 'forbidden') opened.push(`${method} ${path}`)
    }
  }
  expect(opened.sort()).toEqual([
    'get /api/v1/notices',
    'post /api/v1/beats',
    'post /api/v1/claims',
    'post /api/v1/locks',
    'post /api/v1/outcomes',
    'post /api/v1/tokens',
    'put /api/v1/tasks/{id}/status',
    'put /api/v1/update-task-status',
  ])
})

test('a worker belongs to the key that it joined with: no other key speaks for it', async () => {
  const mine = await join()
  const task = await claimed(mine)
  const foreign = [
    claim(mine, [await queued()], asAnother()),
    settle(mine, task, SUCCEEDED, asAnother()),
    post('/beats', { node: mine }, asAnother()),
    post('/beats', { node: mine, leave: true }, asAnother()),
    post('/beats', { node: mine, join: { name: 'test', version: '1' } }, asAnother()),
    post('/locks', { node: mine, name: 'a', hold: true }, asAnother()),
  ]
  for (const answer of await Promise.all(foreign)) {
    expect([answer.status, answer.json.code]).toEqual([403, 'foreign-node'])
  }
  expect(await tasks.row(task)).toMatchObject({ status: 'running', node: mine })
  expect((await post('/beats', { node: mine, held: [task] })).json.alive).toBe(true)
})

test('no key speaks for a node that has a database', async () => {
  const { json, status } = await post('/beats', { node: tasks.node, join: { name: 'test', version: '1' } })
  expect([status, json.code]).toEqual([403, 'foreign-node'])
})

test('a worker cannot settle the task of another one under the same key', async () => {
  const [mine, theirs] = [await join(), await join()]
  const task = await claimed(theirs)
  expect((await settle(mine, task)).json).toEqual({ settled: [{ id: task, late: true }] })
  expect(await tasks.status(task)).toBe('running')
})

test('an id that never joined claims nothing, and all that it settles is late', async () => {
  const nobody = v7()
  const delivery = await queued()
  const answer = await claim(nobody, [delivery])
  expect([answer.status, answer.json.code]).toEqual([409, 'unknown-node'])
  expect(await tasks.status(delivery.id)).toBe('queued')
  expect((await settle(nobody, delivery.id)).json).toEqual({ settled: [{ id: delivery.id, late: true }] })
  expect((await post('/locks', { node: nobody, name: 'a', hold: true })).json).toEqual({ held: false })
})

test('joining may be repeated; one that left or was declared dead is not alive again', async () => {
  const node = await join()
  const again = { node, join: { name: 'test', version: '1' } }
  expect((await post('/beats', again)).json.alive).toBe(true)
  expect((await post('/beats', { node, leave: true })).json.alive).toBe(false)
  const { rows } = await tasks.pool.query('select name, roles, left_at is not null as left from nodes where id = $1', [
    node,
  ])
  expect(rows).toEqual([{ name: 'test', roles: ['worker'], left: true }])

  const silent = await join()
  await tasks.pool.query(`update nodes set beat_at = now() - interval '1 min' where id = $1`, [silent])
  const rescuer = await tasks.join()
  await tasks.pool.query(`update nodes set steady_since = now() - interval '1 min' where id = $1`, [rescuer])
  await markSilentNodes(tasks.pool, rescuer, 15_000)
  expect((await post('/beats', { ...again, node: silent })).json.alive).toBe(false)
})

test('a worker whose broker is not the server’s is refused, and says which is which', async () => {
  const join = (broker: string) => post('/beats', { node: v7(), join: { name: 'test', version: '1', broker } })
  const refused = await join('rabbitmq /elsewhere')
  expect([refused.status, refused.json.code]).toEqual([409, 'other-broker'])
  expect(refused.json.detail).toBe('The worker’s broker is "rabbitmq /elsewhere", and the server’s is "in-process"')
  expect((await join('in-process')).json.alive).toBe(true)
})

test('a payload, a target and a result are JSON text in a string, and stay what they were', async () => {
  const payload = '{"n":12345678901234567890,"x":1.0,  "s":"\\u2603\u2028"}'
  const node = await join()
  const delivery = await queued(payload)
  const answer = await claim(node, [delivery])
  expect(JSON.parse(answer.text).answers[0].task.payload).toBe(payload)
  await settle(node, delivery.id, { kind: 'succeeded', result: '[1.0, 12345678901234567890]' })
  expect((await tasks.row(delivery.id)).result).toBe('[1.0, 12345678901234567890]')
})

test('texts for people are cut to what is kept; a result that cannot be kept is refused by its place', async () => {
  const node = await join()
  const failed = await claimed(node)
  const error = `\0${'e'.repeat(10_000)}`
  const response = { status: 500, body: 'b'.repeat(10_000) }
  expect((await settle(node, failed, { kind: 'failed', retryable: false, error, response })).status).toBe(200)
  const row = await tasks.row(failed)
  expect(row.error).toMatch(/^\uFFFDe{4000}.* \[cut\]$/)
  expect(row.error?.length).toBeLessThanOrEqual(4_096)

  const task = await claimed(node)
  for (const [result, message] of [
    ['{"a":', 'is no JSON text that can be kept'],
    ['"\\u0000"', 'is no JSON text that can be kept'],
    [`"${'r'.repeat(65_536)}"`, 'may have at most 65536 bytes'],
  ] as const) {
    const answer = await settle(node, task, { kind: 'succeeded', result })
    expect([answer.status, answer.json.code]).toEqual([422, 'unstorable'])
    expect(answer.json.errors[0]).toMatchObject({ path: '/settlements/0/outcome/result' })
    expect(answer.json.errors[0].message).toContain(message)
  }
  expect(await tasks.status(task)).toBe('running')
})

test('a foreign payload that is no JSON is refused by its place, and nothing of the batch is written', async () => {
  const node = await join()
  const delivery = await queued()
  const message = { exchange: '', routingKey: 'default', properties: {}, headers: {} }
  const answer = await claim(node, [delivery, { kind: 'foreign', id: v7(), payload: 'hello', message }])
  expect([answer.status, answer.json.code]).toEqual([422, 'unstorable'])
  expect(answer.json.errors[0].path).toBe('/deliveries/1/payload')
  expect(await tasks.status(delivery.id)).toBe('queued')
})

test('unknown fields and wrong shapes are refused', async () => {
  const node = await join()
  const id = await claimed(node)
  const wrong: [string, object, string][] = [
    ['/claims', { ...CALLS[0]?.[1], node, deliveries: [] }, '/deliveries'],
    ['/claims', { ...CALLS[0]?.[1], node, deliveries: [{ kind: 'task', id, attempt: 0 }] }, '/deliveries/0/attempt'],
    ['/outcomes', { node, settlements: [{ id, attempt: 1, outcome: { kind: 'won' } }] }, '/settlements/0/outcome'],
    [
      '/outcomes',
      { node, settlements: [{ id, attempt: 1, outcome: SUCCEEDED, parentId: v7() }] },
      '/settlements/0/parentId',
    ],
    [
      '/outcomes',
      { node, settlements: [{ id, attempt: 1, outcome: { kind: 'snoozed', delayMs: -1 } }] },
      '/settlements/0/outcome/delayMs',
    ],
    ['/beats', { node: 'me' }, '/node'],
    ['/beats', { node, roles: ['dispatcher'] }, '/roles'],
    ['/tokens', { consumer: v7(), count: 0 }, '/count'],
    ['/locks', { node, name: '', hold: true }, '/name'],
  ]
  for (const [path, body, at] of wrong) {
    const answer = await post(path, body)
    expect([path, answer.status, answer.json.code]).toEqual([path, 422, 'validation'])
    expect(answer.json.errors.map((error: { path: string }) => error.path)).toContain(at)
  }
  expect(await tasks.status(id)).toBe('running')
})

test('a batch has bounds, in rows and in bytes', async () => {
  const node = await join()
  const deliveries = Array.from({ length: WORKER_LIMITS.deliveries + 1 }, () => ({
    kind: 'task',
    id: v7(),
    attempt: 1,
  }))
  expect((await claim(node, deliveries)).json.code).toBe('validation')
  const answer = await post('/outcomes', undefined, {
    body: `{"node":"${node}","settlements":[${' '.repeat(WORKER_LIMITS.batchBytes)}]}`,
    headers: { 'content-type': 'application/json' },
  })
  expect([answer.status, answer.json.code]).toEqual([413, 'too-large'])
})

test('an attempt that is there twice in a batch ends once, also for its parent', async () => {
  const node = await join()
  const parent = await tasks.insert()
  const child = await queued('{}', parent)
  await queued('{}', parent)
  await tasks.run(parent, SUCCEEDED)
  await claim(node, [child])
  const settlement = { id: child.id, attempt: 1, outcome: SUCCEEDED }
  const { json } = await post('/outcomes', { node, settlements: [settlement, settlement] })
  expect(json.settled.map(({ late }: { late: boolean }) => late)).toEqual([false, true])
  expect(await tasks.row(parent)).toMatchObject({ status: 'running', children_total: 2, children_succeeded: 1 })
})

test('progress and lines of a call are written before its outcomes', async () => {
  const node = await join()
  const id = await claimed(node)
  await post('/outcomes', {
    node,
    reports: [{ id, attempt: 1, progress: { done: 2, total: 2, message: 'ready' }, lines: ['one', 'l'.repeat(5_000)] }],
    settlements: [{ id, attempt: 1, outcome: SUCCEEDED }],
  })
  const row = await tasks.row(id)
  expect(row.status).toBe('succeeded')
  expect(row.logs?.[0]).toBe('one')
  expect(row.logs?.[1]?.length).toBe(1_024)
  expect(JSON.parse(row.progress ?? '')).toEqual({ done: 2, total: 2, message: 'ready' })
})

test('what workers go by comes with a beat that has another digest, with its secrets', async () => {
  const node = await join()
  expect((await post('/beats', { node })).json.topology).toBeUndefined()
  const { json: first } = await post('/beats', { node, topology: null })
  expect(first.topology).toMatchObject({ queues: [{ name: 'default', paused: false, conflict: null }], consumers: [] })
  const { digest } = first.topology
  expect((await post('/beats', { node, topology: digest })).json.topology).toBeUndefined()

  const target = { type: 'http', url: 'https://a.example/', secret: 'a secret of sixteen' }
  await tasks.pool.query(
    `insert into consumers (id, queue, target, concurrency, timeout_ms, rate_limit)
     values ($1, 'default', $2, 3, 1500, '{"count":5,"per":"1s"}')`,
    [v7(), target],
  )
  const { topology } = (await post('/beats', { node, topology: digest })).json
  expect(topology.digest).not.toBe(digest)
  expect(topology.consumers).toMatchObject([
    { queue: 'default', target, concurrency: 3, timeoutMs: 1_500, paused: false, rateLimit: { count: 5, per: '1s' } },
  ])
  expect((await post('/beats', { node, topology: topology.digest })).json.topology).toBeUndefined()
})

test('news is told to who waits, and to who comes back after it', async () => {
  const ask = (query: string) => api.call('GET', `/api/v1/notices?${query}`, { as: 'work' })
  const { json: first } = await ask('within=0ms')
  expect(first).toEqual({ notice: false, position: expect.any(String) })
  const waiting = ask(`within=1m&after=${first.position}`)
  api.notices.tell()
  expect((await waiting).json.notice).toBe(true)
  expect((await ask(`within=1m&after=${first.position}`)).json).toEqual((await waiting).json)
  expect((await ask(`within=0ms&after=${(await waiting).json.position}`)).json.notice).toBe(false)
  expect((await ask('within=0ms&after=another-node/7')).json.notice).toBe(false)
  expect((await ask('within=2m')).status).toBe(422)
})

test('a secret of a target is in no log line, whatever a worker asks', async () => {
  expect(api.logged.join('\n')).not.toContain('a secret of sixteen')
})
