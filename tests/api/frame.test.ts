import { afterAll, beforeAll, expect, test } from 'bun:test'
import { allows, SCOPES, type Scope } from '../../src/task/scope.ts'
import { type ApiUnderTest, apiUnderTest, type Body } from './api-under-test.ts'

let api: ApiUnderTest
let paths: Record<string, Record<string, { 'x-scope'?: string; requestBody?: object }>>

beforeAll(async () => {
  api = await apiUnderTest('server')
  paths = (await api.call('GET', '/openapi.json')).json.paths
})
afterAll(() => api.close())

/** Every documented operation as method, path with its parameters filled in, and needed scope. */
function operations() {
  return Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({
      method: method.toUpperCase(),
      path: path.replaceAll(/\{\w+\}/g, 'some'),
      scope: operation['x-scope'],
      takesBody: operation.requestBody !== undefined,
    })),
  )
}

/** Every scope that opens neither of `needed`, which is written as in `work or operate`. */
function tooLow(needed = ''): Scope[] {
  const enough = needed.split(' or ') as Scope[]
  return SCOPES.filter((scope) => !enough.some((one) => allows({ keyId: '', name: '', scopes: [scope] }, one)))
}

test('no route but health answers without a key, whatever the body', async () => {
  const open: string[] = []
  expect(operations().length).toBeGreaterThan(20)
  for (const { method, path } of operations()) {
    const answer = await api.call(method, path, { as: null, ...(method !== 'GET' && { body: '{"broken' }) })
    if (answer.status !== 401) open.push(`${method} ${path}`)
    else {
      expect(answer.json.code).toBe('unauthenticated')
      expect(answer.headers.get('www-authenticate')).toBe('Basic realm="longshore"')
    }
  }
  expect(open.sort()).toEqual(['GET /health/live', 'GET /health/ready'])
})

test('every route refuses a key whose scope is too low before it looks at the body', async () => {
  for (const { method, path, scope } of operations()) {
    if (path.startsWith('/health')) continue
    expect(tooLow(scope)).not.toBeEmpty()
    for (const as of tooLow(scope)) {
      const answer = await api.call(method, path, { as, ...(method !== 'GET' && { body: '{"broken' }) })
      expect([method, path, as, answer.status, answer.json.code]).toEqual([method, path, as, 403, 'forbidden'])
    }
  }
})

test('a wrong key, an empty one and an unreadable header are 401', async () => {
  for (const authorization of [
    'Bearer nope',
    'Bearer ls_0000000000000000_AAAA',
    'Bearer',
    'Basic !!!',
    'Digest x',
    `Basic ${btoa('user:')}`,
  ]) {
    const answer = await api.call('GET', '/api/v1/queues', { as: null, headers: { authorization } })
    expect([authorization, answer.status]).toEqual([authorization, 401])
  }
})

test('a key whose id is right and whose secret is wrong is 401', async () => {
  const forged = api.keys.admin.slice(0, -3) + (api.keys.admin.endsWith('AAA') ? 'BBB' : 'AAA')
  const answer = await api.call('GET', '/api/v1/queues', { as: null, headers: { authorization: `Bearer ${forged}` } })
  expect(answer.status).toBe(401)
})

test('HTTP Basic takes the key as password', async () => {
  const authorization = `Basic ${btoa(`anybody:${api.keys.read}`)}`
  expect((await api.call('GET', '/api/v1/queues', { as: null, headers: { authorization } })).status).toBe(200)
})

test('a page of another site cannot change anything with the key that the browser keeps', async () => {
  const headers = { 'sec-fetch-site': 'cross-site' }
  const answer = await api.call('POST', '/api/v1/queues/default/pause', { headers })
  expect([answer.status, answer.json.code]).toEqual([403, 'forbidden'])
  expect(
    (await api.call('POST', '/api/v1/queues/none/pause', { headers: { 'sec-fetch-site': 'same-origin' } })).status,
  ).toBe(404)
})

test('a wrong method is 405 and names the right ones; an unknown path is 404; both need a key', async () => {
  const wrong = await api.call('PATCH', '/api/v1/queues/emails')
  expect([wrong.status, wrong.json.code, wrong.headers.get('allow')]).toEqual([
    405,
    'method-not-allowed',
    'DELETE, GET, HEAD, PUT',
  ])
  const unknown = await api.call('GET', '/api/v1/nothing')
  expect([unknown.status, unknown.json.code]).toEqual([404, 'not-found'])
  expect((await api.call('PATCH', '/api/v1/queues/emails', { as: null })).status).toBe(401)
  expect((await api.call('GET', '/api/v1/nothing', { as: null })).status).toBe(401)
})

test('HEAD answers as GET does, without a body', async () => {
  const answer = await api.call('HEAD', '/api/v1/queues')
  expect([answer.status, answer.text]).toEqual([200, ''])
  expect(answer.headers.get('content-type')).toContain('application/json')
})

test('a problem is application/problem+json with type, title, status, detail and code', async () => {
  const answer = await api.call('GET', '/api/v1/queues/none')
  expect(answer.headers.get('content-type')).toBe('application/problem+json')
  expect(answer.json).toEqual({
    type: 'urn:longshore:problem:not-found',
    title: 'Not found',
    status: 404,
    detail: 'There is no queue "none"',
    code: 'not-found',
  })
})

test('a body that is not JSON, not UTF-8, of another type or empty is told so', async () => {
  const put = async (body: Body, type = 'application/json') => {
    const answer = await api.call('PUT', '/api/v1/queues/emails', { body, headers: { 'content-type': type } })
    return [answer.status, answer.json.code]
  }
  expect(await put('{"type":')).toEqual([400, 'malformed-json'])
  expect(await put('')).toEqual([400, 'malformed-json'])
  expect(await put('['.repeat(100_000))).toEqual([400, 'malformed-json'])
  expect(await put(new Uint8Array([0x22, 0xff, 0xfe, 0x22]))).toEqual([400, 'bad-request'])
  expect(await put('type=quorum', 'application/x-www-form-urlencoded')).toEqual([415, 'unsupported-media-type'])
  expect(await put('null')).toEqual([422, 'validation'])
})

test('every wrong field is named by a JSON Pointer and a sentence', async () => {
  const json = {
    size: 3,
    type: 'lazy',
    retry: { maxAttempts: 'x', backoff: { kind: 'fixed', base: 'soon', factor: 2 } },
  }
  const answer = await api.call('PUT', '/api/v1/queues/emails', { json })
  expect(answer.status).toBe(422)
  expect(answer.json.errors).toEqual([
    { path: '/size', message: 'is not a known field' },
    { path: '/type', message: 'must be "quorum" or "classic"' },
    { path: '/retry/maxAttempts', message: 'must be of type integer' },
    { path: '/retry/backoff/factor', message: 'is not a known field' },
    { path: '/retry/backoff/base', message: 'must be a duration such as 250ms, 30s, 15m, 2h or 7d' },
  ])
})

test('text that Postgres cannot hold is refused, in bodies, queries and paths', async () => {
  const name = await api.call('POST', '/api/v1/keys', { json: { name: 'a\0b', scopes: ['read'] } })
  expect(name.json.errors).toEqual([{ path: '/name', message: 'must not hold NUL or lone surrogates' }])
  const lone = await api.call('POST', '/api/v1/keys', { body: '{"name":"\\ud800","scopes":["read"]}' })
  expect(lone.status).toBe(422)
  expect((await api.call('GET', '/api/v1/consumers?queue=%00')).status).toBe(422)
  expect((await api.call('GET', '/api/v1/queues/a%00')).status).toBe(400)
  expect((await api.call('GET', '/api/v1/queues/a%ff')).status).toBe(400)
})

test('a query parameter that is unknown, repeated, out of range or a forged place is refused', async () => {
  for (const query of [
    'limt=5',
    'limit=0',
    'limit=501',
    'limit=1.5',
    'limit=',
    'limit=5&limit=6',
    'after=zzz',
    'after=WzFd',
  ]) {
    expect([query, (await api.call('GET', `/api/v1/queues?${query}`)).status]).toEqual([query, 422])
  }
})

test('a forged place that Postgres cannot read is refused by every list', async () => {
  const id = '019b7a3e-5c00-7000-8000-000000000001'
  await api.call('PUT', '/api/v1/queues/forged', { json: {} })
  for (const [list, place] of [
    ['queues', ['a\0']],
    ['keys', ['a\0']],
    ['tasks', ['2026-02-31T00:00:00.000000Z', id]],
    ['queues/forged/messages', [0, '2026-02-31 00:00:00+00', id]],
    ['queues/forged/messages', [0, '0000-01-01 00:00:00+00', id]],
  ] as const) {
    const after = Buffer.from(JSON.stringify(place)).toString('base64url')
    const answer = await api.call('GET', `/api/v1/${list}?after=${after}`)
    expect([list, answer.status, answer.json.errors?.[0]?.path]).toEqual([list, 422, '/after'])
  }
})

test('a request whose Host is no host is 400, and nothing is logged as our mistake', async () => {
  // What Bun makes of `Host: a b` and `Host: [`.
  for (const url of ['/api/v1/queues', 'http://[/health/live']) {
    const request = new Request('http://127.0.0.1/')
    Object.defineProperty(request, 'url', { value: url })
    const answer = await api.api.fetch(request)
    expect([url, answer.status, ((await answer.json()) as { code: string }).code]).toEqual([url, 400, 'bad-request'])
  }
  expect(api.logged.filter((line) => line.includes('Invalid URL'))).toEqual([])
})

test('a value of a field that takes several kinds is told what is wrong with the kind that was sent', async () => {
  const target = { type: 'http', url: 'https://example.com', secret: 'short' }
  const answer = await api.call('POST', '/api/v1/consumers', { json: { queue: 'default', target } })
  expect(answer.json.errors).toEqual([{ path: '/target/secret', message: 'must have at least 16 characters' }])
})

test('a body is counted while it comes in, and refused as soon as it is too large', async () => {
  let sent = 0
  const endless = new ReadableStream<Uint8Array>({
    pull(controller) {
      sent += 64 * 1024
      controller.enqueue(new Uint8Array(64 * 1024).fill(0x20))
    },
  })
  const answer = await api.call('PUT', '/api/v1/queues/emails', {
    body: endless,
    headers: { 'content-type': 'application/json' },
  })
  expect([answer.status, answer.json.code]).toEqual([413, 'too-large'])
  expect(sent).toBeLessThan(1024 * 1024)
})
