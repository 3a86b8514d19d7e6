import { expect, test } from 'bun:test'
import { Type } from '@sinclair/typebox'
import { Elysia } from 'elysia'
import { Problem } from '../../src/runtime/errors.ts'
import { until } from '../support/until.ts'
import { apiUnderTest } from './api-under-test.ts'

test('a bug is 500 without a word of what it was, and a log line with all of it', async () => {
  const api = await apiUnderTest('server', {
    routes: (access) => [
      new Elysia({ prefix: '/bugs' })
        .use(access)
        .get('/throw', () => Promise.reject(new Error('password=hunter2')), { scope: 'read' })
        .get('/odd', () => Promise.reject({ not: 'an error' }), { scope: 'read' })
        .get('/shape', () => ({ n: 'five' }) as never, { scope: 'read', response: Type.Object({ n: Type.Integer() }) }),
    ],
  })
  try {
    for (const path of ['/throw', '/odd', '/shape']) {
      const answer = await api.call('GET', `/api/v1/bugs${path}`)
      expect([path, answer.status, answer.json?.code]).toEqual([path, 500, 'internal'])
      expect(answer.text).not.toContain('hunter2')
    }
    const lines = api.logged.map((line) => JSON.parse(line))
    expect(lines.map(({ event, path, method }) => [event, method, path])).toEqual(
      ['/throw', '/odd', '/shape'].map((path) => ['request-failed', 'GET', `/api/v1/bugs${path}`]),
    )
    expect(lines[0].msg).toBe('password=hunter2')
  } finally {
    await api.close()
  }
})

test('with the database away a known key gets 503 with Retry-After, and an unknown one is not called wrong', async () => {
  const api = await apiUnderTest('server')
  try {
    expect((await api.call('GET', '/api/v1/queues')).status).toBe(200)
    await api.test.database.close()
    const known = await api.call('GET', '/api/v1/queues/some')
    expect([known.status, known.json.code]).toEqual([503, 'database-unavailable'])
    expect(Number(known.headers.get('retry-after'))).toBeGreaterThan(0)
    const unknown = await until(
      async () => {
        const answer = await api.call('GET', '/api/v1/queues', {
          as: null,
          headers: { authorization: 'Bearer ls_abc_def' },
        })
        return answer.status === 401 ? undefined : answer
      },
      { what: 'the keys to be older than a second' },
    )
    expect(unknown.status).toBe(503)
    expect((await api.call('GET', '/health/live', { as: null })).status).toBe(200)
  } finally {
    await api.close()
  }
})

test('a problem thrown by what a route calls reaches the caller as it is', async () => {
  const api = await apiUnderTest('server', {
    purge: () => Promise.reject(new Problem('shutting-down', 'The node is shutting down; ask another')),
  })
  try {
    await api.call('PUT', '/api/v1/queues/emails', { json: {} })
    const answer = await api.call('POST', '/api/v1/queues/emails/purge', { json: { confirm: 'emails' } })
    expect([answer.status, answer.json.code, answer.json.detail]).toEqual([
      503,
      'shutting-down',
      'The node is shutting down; ask another',
    ])
  } finally {
    await api.close()
  }
})

test('readiness names each check, and is 503 when one fails or none answers', async () => {
  let answer = Promise.resolve({ checks: [{ name: 'database', ok: false, detail: 'no round trip within 2 s' }] })
  const api = await apiUnderTest('server', { readiness: () => answer })
  try {
    const failing = await api.call('GET', '/health/ready', { as: null })
    expect([failing.status, failing.json.status, failing.json.checks[0].name]).toEqual([503, 'not-ready', 'database'])
    answer = new Promise(() => {})
    const silent = await api.call('GET', '/health/ready', { as: null })
    expect([silent.status, silent.json.status]).toEqual([503, 'not-ready'])
  } finally {
    await api.close()
  }
})
