import { afterAll, beforeAll, expect, test } from 'bun:test'
import { type ApiUnderTest, apiUnderTest } from './api-under-test.ts'

const SECRET = 'whsec_ZG9ub3RzaG93dGhpc3RvYW55Ym9keXQ'
let api: ApiUnderTest
beforeAll(async () => {
  api = await apiUnderTest('server')
  await api.call('PUT', '/api/v1/queues/emails', { json: {} })
})
afterAll(() => api.close())

const post = (json: object) =>
  api.call('POST', '/api/v1/consumers', { as: 'operate', json: { queue: 'emails', ...json } })

test('a consumer is made with defaults, read, changed, paused, resumed and deleted, and the node is told each time', async () => {
  const before = api.topologyChanges()
  const made = await post({ target: { type: 'noop' } })
  expect(made.status).toBe(201)
  expect(made.json).toMatchObject({
    queue: 'emails',
    target: { type: 'noop' },
    concurrency: 10,
    timeout: '30s',
    paused: false,
  })
  const path = `/api/v1/consumers/${made.json.id}`
  expect(made.headers.get('location')).toBe(path)
  expect((await api.call('GET', path, { as: 'read' })).json).toEqual(made.json)

  const changed = await api.call('PATCH', path, { json: { concurrency: 50, timeout: '2m' } })
  expect(changed.json).toMatchObject({ target: { type: 'noop' }, concurrency: 50, timeout: '2m', paused: false })
  expect((await api.call('POST', `${path}/pause`)).json.paused).toBe(true)
  expect((await api.call('POST', `${path}/resume`)).json).toMatchObject({ paused: false, concurrency: 50 })
  expect((await api.call('DELETE', path)).status).toBe(204)
  expect((await api.call('GET', path)).status).toBe(404)
  expect(api.topologyChanges()).toBe(before + 5)
})

test('a secret is stored and never shown', async () => {
  const made = await post({ target: { type: 'http', url: 'https://api.example.com/', secret: [SECRET, `${SECRET}=`] } })
  const path = `/api/v1/consumers/${made.json.id}`
  const answers = [
    made,
    await api.call('GET', path),
    await api.call('GET', '/api/v1/consumers'),
    await api.call('PATCH', path, { json: { concurrency: 5 } }),
    await api.call('POST', `${path}/pause`),
    await post({ target: { type: 'http', url: 'gopher://x', secret: SECRET } }),
  ]
  expect(answers.map(({ status }) => status)).toEqual([201, 200, 200, 200, 200, 422])
  for (const { text } of answers) expect(text).not.toContain(SECRET)
  expect(made.json.target.secret).toBe('[secret]')
  const { rows } = await api.test.database.pool.query(
    `select target ->> 'secret' as secret from consumers where id = $1`,
    [made.json.id],
  )
  expect(rows[0].secret).toContain(SECRET)
})

test('what a consumer cannot have is refused with its place', async () => {
  const cases: [object, number, string, string][] = [
    [{ target: { type: 'ftp' } }, 422, 'validation', '/target'],
    [{ target: { type: 'http', url: 'ftp://x' } }, 422, 'validation', '/target/url'],
    [{ target: { type: 'noop', dely: '1s' } }, 422, 'validation', '/target/dely'],
    [{ target: { type: 'http', url: 'http://169.254.169.254/' } }, 422, 'unknown-target', '/target/url'],
    [{ target: { type: 'handler', name: 'nobody' } }, 422, 'unknown-handler', '/target/name'],
    [{ target: { type: 'noop' }, queue: 'none' }, 422, 'unknown-queue', '/queue'],
    [{ target: { type: 'noop' }, concurrency: 10_001 }, 422, 'validation', '/concurrency'],
    [{ target: { type: 'noop' }, concurrency: '5' }, 422, 'validation', '/concurrency'],
    [{ target: { type: 'noop' }, timeout: '8d' }, 422, 'validation', '/timeout'],
    [{ target: { type: 'noop' }, timeout: '0s' }, 422, 'validation', '/timeout'],
    [{ target: { type: 'noop' }, rateLimit: {} }, 422, 'validation', '/rateLimit/count'],
    [{}, 422, 'validation', '/target'],
  ]
  for (const [json, status, code, path] of cases) {
    const answer = await post(json)
    expect([json, answer.status, answer.json.code, answer.json.errors[0].path]).toEqual([json, status, code, path])
  }
  expect((await post({ target: { type: 'handler', name: 'nobody' } })).json.detail).toContain('greet, resize')
  expect((await post({ target: { type: 'handler', name: 'greet' } })).status).toBe(201)
})

test('a change is checked as a new consumer is, and the queue stays', async () => {
  const { json } = await post({ target: { type: 'noop' } })
  const patch = async (change: object) =>
    (await api.call('PATCH', `/api/v1/consumers/${json.id}`, { json: change })).json.code
  expect(await patch({ queue: 'other' })).toBe('validation')
  expect(await patch({ target: { type: 'handler', name: 'nobody' } })).toBe('unknown-handler')
  expect(await patch({ target: { type: 'http', url: 'http://169.254.169.254/' } })).toBe('unknown-target')
  expect((await api.call('GET', `/api/v1/consumers/${json.id}`)).json.target).toEqual({ type: 'noop' })
})

test('an id that is unknown or no id at all is 404', async () => {
  for (const id of ['nope', '019b7a3e-5c00-7000-8000-000000000002']) {
    for (const [method, rest] of [
      ['GET', ''],
      ['PATCH', ''],
      ['DELETE', ''],
      ['POST', '/pause'],
    ] as const) {
      const answer = await api.call(
        method,
        `/api/v1/consumers/${id}${rest}`,
        method === 'PATCH' ? { json: { concurrency: 1 } } : {},
      )
      expect([id, method, answer.status]).toEqual([id, method, 404])
    }
  }
})

test('consumers are listed by queue, page by page', async () => {
  await api.call('PUT', '/api/v1/queues/pages', { json: {} })
  const made: string[] = []
  for (let i = 0; i < 3; i++) made.push((await post({ queue: 'pages', target: { type: 'noop' } })).json.id)
  const first = await api.call('GET', '/api/v1/consumers?queue=pages&limit=2')
  const second = await api.call('GET', `/api/v1/consumers?queue=pages&limit=2&after=${first.json.next}`)
  expect([...first.json.items, ...second.json.items].map(({ id }: { id: string }) => id)).toEqual(made)
  expect(second.json.next).toBeNull()
})
