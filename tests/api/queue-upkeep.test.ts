import { afterAll, beforeAll, beforeEach, expect, test } from 'bun:test'
import { v7 as uuidv7 } from 'uuid'
import { removeTasks } from '../../src/store/tasks/remove.ts'
import { type ApiUnderTest, apiUnderTest } from './api-under-test.ts'

let api: ApiUnderTest
beforeAll(async () => {
  api = await apiUnderTest('server')
})
afterAll(() => api.close())
beforeEach(() => {
  api.broker.status('up')
  api.broker.calls.length = 0
  api.rechecked.length = 0
  api.woken.length = 0
})

async function queue(name: string): Promise<string> {
  await api.call('PUT', `/api/v1/queues/${name}`, { json: {} })
  api.broker.queues.set(name, { name, type: 'quorum', maxPriority: null, deadLetter: true })
  return `/api/v1/queues/${name}`
}

async function task(name: string, status: string): Promise<string> {
  const id = uuidv7()
  await api.test.database.pool.query(
    `insert into tasks (id, queue, payload, status, priority, due_at, max_attempts, origin, publisher, publish_no)
     values ($1, $2, '{}', $3, 0, now(), 10, 'api', $1, 1)`,
    [id, name, status],
  )
  return id
}

async function statusOf(id: string): Promise<string> {
  return (await api.test.database.pool.query('select status from tasks where id = $1', [id])).rows[0]?.status
}

const codeOf = async (method: string, path: string, json?: unknown) => {
  const answer = await api.call(method, path, json === undefined ? {} : { json })
  return [answer.status, answer.json?.code]
}

test('a queue goes at the broker first, then its row; the built-in one never', async () => {
  expect(await codeOf('DELETE', '/api/v1/queues/default')).toEqual([409, 'conflict'])
  const path = await queue('gone')
  expect(await codeOf('DELETE', path)).toEqual([204, undefined])
  expect(api.broker.calls).toEqual(['inspect gone', 'remove queue gone'])
  expect(await codeOf('DELETE', path)).toEqual([404, 'not-found'])
})

test('consumers and live tasks keep a queue, and so do messages and consumers at the broker', async () => {
  const path = await queue('busy')
  const consumer = await api.call('POST', '/api/v1/consumers', { json: { queue: 'busy', target: { type: 'noop' } } })
  expect(await codeOf('DELETE', path)).toEqual([409, 'conflict'])
  await api.call('DELETE', `/api/v1/consumers/${consumer.json.id}`)
  const id = await task('busy', 'pending')
  expect(await codeOf('DELETE', `${path}?ifUnused=true`)).toEqual([409, 'queue-not-empty'])
  await api.test.database.pool.query(`update tasks set status = 'succeeded' where id = $1`, [id])
  api.broker.messages.set('busy', 2)
  expect(await codeOf('DELETE', path)).toEqual([409, 'queue-not-empty'])
  api.broker.messages.delete('busy')
  api.broker.consumers.set('busy', 1)
  expect(await codeOf('DELETE', path)).toEqual([409, 'conflict'])
  api.broker.consumers.delete('busy')
  expect(await codeOf('DELETE', path)).toEqual([204, undefined])
})

test('a guard is lifted by the name only', async () => {
  const path = await queue('careful')
  for (const query of ['ifEmpty=false', 'ifUnused=false', 'confirm=carefull', 'ifEmpty=no', 'force=true']) {
    expect([query, (await api.call('DELETE', `${path}?${query}`)).status]).toEqual([query, 422])
  }
  const id = await task('careful', 'pending')
  expect(await codeOf('DELETE', `${path}?confirm=careful&ifEmpty=true`)).toEqual([409, 'queue-not-empty'])
  expect(await statusOf(id)).toBe('pending')
})

test('by its name a queue goes with its consumers and its tasks, once none runs any more', async () => {
  const path = await queue('doomed')
  await api.call('POST', '/api/v1/consumers', { json: { queue: 'doomed', target: { type: 'noop' } } })
  const [pending, queued, running] = [
    await task('doomed', 'pending'),
    await task('doomed', 'queued'),
    await task('doomed', 'running'),
  ]
  api.broker.messages.set('doomed', 3)
  api.broker.consumers.set('doomed', 1)
  expect(await codeOf('DELETE', `${path}?confirm=doomed`)).toEqual([409, 'queue-not-empty'])
  expect([await statusOf(pending), await statusOf(queued), await statusOf(running)]).toEqual([
    'cancelled',
    'cancelled',
    'running',
  ])
  const { rows } = await api.test.database.pool.query('select cancel_requested as asked from tasks where id = $1', [
    running,
  ])
  expect(rows).toEqual([{ asked: true }])
  expect((await api.call('GET', '/api/v1/consumers?queue=doomed')).json.items).toEqual([])
  await api.test.database.pool.query(`update tasks set status = 'cancelled' where id = $1`, [running])
  expect(await codeOf('DELETE', `${path}?confirm=doomed`)).toEqual([204, undefined])
  expect(api.broker.queues.has('doomed')).toBe(false)
})

test('a broker that is away keeps the queue, its consumers and its tasks as they are', async () => {
  const path = await queue('kept')
  await api.call('POST', '/api/v1/consumers', { json: { queue: 'kept', target: { type: 'noop' } } })
  const id = await task('kept', 'queued')
  api.broker.status('down')
  for (const [method, at, json] of [
    ['DELETE', `${path}?confirm=kept`],
    ['POST', `${path}/purge`, { confirm: 'kept' }],
    ['POST', `${path}/purge`, { confirm: 'kept', queued: 'return' }],
  ] as const) {
    const answer = await api.call(method, at, json ? { json } : {})
    expect([answer.status, answer.json.code]).toEqual([503, 'broker-unavailable'])
    expect(answer.headers.get('retry-after')).toBeTruthy()
    expect(answer.json.detail).toContain('refuses connections')
  }
  expect(await statusOf(id)).toBe('queued')
  expect((await api.call('GET', '/api/v1/consumers?queue=kept')).json.items).toHaveLength(1)
  expect((await api.call('GET', path)).status).toBe(200)
})

test('a task that comes while the queue goes keeps it, and the broker gets its queue again', async () => {
  const path = await queue('raced')
  const { remove } = api.brokerPort
  api.brokerPort.remove = async (removal) => {
    const removed = await remove(removal)
    await task('raced', 'pending')
    return removed
  }
  expect(await codeOf('DELETE', path)).toEqual([409, 'queue-not-empty'])
  api.brokerPort.remove = remove
  expect(api.rechecked).toEqual(['raced'])
})

test('purge wants the name once more, cancels what no worker has, and empties the broker', async () => {
  const path = await queue('old')
  const wrong = await api.call('POST', `${path}/purge`, { json: { confirm: 'odl' } })
  expect([wrong.status, wrong.json.errors[0].path, api.broker.calls]).toEqual([422, '/confirm', []])
  expect(await codeOf('POST', '/api/v1/queues/none/purge', { confirm: 'none' })).toEqual([404, 'not-found'])

  const ids = [await task('old', 'pending'), await task('old', 'retrying'), await task('old', 'queued')]
  const running = await task('old', 'running')
  api.broker.messages.set('old', 9)
  const purged = await api.call('POST', `${path}/purge`, { as: 'operate', json: { confirm: 'old' } })
  expect(purged.json).toEqual({ cancelled: 3, returned: 0 })
  for (const id of ids) expect(await statusOf(id)).toBe('cancelled')
  expect([await statusOf(running), api.broker.messages.has('old')]).toEqual(['running', false])
  // Nothing of theirs is in the broker, for which they would have to stay.
  const removed = await removeTasks(api.test.database.pool, uuidv7(), ids)
  expect(removed.map(({ outcome }) => outcome)).toEqual(['deleted', 'deleted', 'deleted'])
})

test('purge can spare the tasks: what the broker held waits in Postgres again', async () => {
  const path = await queue('spared')
  const [pending, queued] = [await task('spared', 'pending'), await task('spared', 'queued')]
  api.broker.messages.set('spared', 1)
  const purged = await api.call('POST', `${path}/purge`, { json: { confirm: 'spared', queued: 'return' } })
  expect(purged.json).toEqual({ cancelled: 0, returned: 1 })
  expect([await statusOf(pending), await statusOf(queued)]).toEqual(['pending', 'pending'])
  expect([api.broker.messages.has('spared'), api.woken]).toEqual([false, ['spared']])
})

test('resend sends again what somebody took from the broker, and needs no broker for it', async () => {
  const path = await queue('lost')
  const [queued, running] = [await task('lost', 'queued'), await task('lost', 'running')]
  api.broker.status('down')
  expect((await api.call('POST', `${path}/resend`, { as: 'operate' })).json).toEqual({ returned: 1 })
  expect([await statusOf(queued), await statusOf(running), api.woken]).toEqual(['pending', 'running', ['lost']])
  expect((await api.call('POST', `${path}/resend`)).json).toEqual({ returned: 0 })
  expect(await codeOf('POST', '/api/v1/queues/none/resend')).toEqual([404, 'not-found'])
})
