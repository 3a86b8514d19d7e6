import { expect, test } from 'bun:test'
import { apiUnderTest } from './api-under-test.ts'

test('a key is shown once, opens what its scopes allow at once, and nothing after its deletion', async () => {
  const api = await apiUnderTest('server')
  try {
    const made = await api.call('POST', '/api/v1/keys', { json: { name: 'billing', scopes: ['submit'] } })
    expect(made.status).toBe(201)
    expect(made.json.key).toMatch(new RegExp(`^ls_${made.json.id}_[A-Za-z0-9_-]{43}$`))
    expect(made.headers.get('cache-control')).toBe('no-store')

    const headers = { authorization: `Bearer ${made.json.key}` }
    expect((await api.call('GET', '/api/v1/queues', { as: null, headers })).status).toBe(200)
    expect((await api.call('GET', '/api/v1/keys', { as: null, headers })).status).toBe(403)

    const list = await api.call('GET', '/api/v1/keys')
    expect(list.json.items).toHaveLength(6)
    expect(list.text).not.toContain(made.json.key.slice(-43))
    expect(list.text).not.toContain('hash')

    expect((await api.call('DELETE', `/api/v1/keys/${made.json.id}`)).status).toBe(204)
    expect((await api.call('GET', '/api/v1/queues', { as: null, headers })).status).toBe(401)
    expect((await api.call('DELETE', `/api/v1/keys/${made.json.id}`)).status).toBe(404)
  } finally {
    await api.close()
  }
})

test('the last admin key stays, however many deletions come at once', async () => {
  const api = await apiUnderTest('server')
  try {
    const first = api.keys.admin.split('_')[1]
    const second = (await api.call('POST', '/api/v1/keys', { json: { name: 'second', scopes: ['admin', 'work'] } }))
      .json.id
    const answers = await Promise.all([first, second].map((id) => api.call('DELETE', `/api/v1/keys/${id}`)))
    // The one that came second found either the last admin key, or its own key gone.
    expect(answers.filter(({ status }) => status === 204)).toHaveLength(1)
    const { rows } = await api.test.database.pool.query(`select id from keys where scopes @> '{admin}'`)
    expect(rows).toHaveLength(1)
  } finally {
    await api.close()
  }
})

test('a key without a name, without scopes, or with an unknown or doubled scope is refused', async () => {
  const api = await apiUnderTest('server')
  try {
    for (const json of [
      { scopes: ['read'] },
      { name: '', scopes: ['read'] },
      { name: 'a', scopes: [] },
      { name: 'a', scopes: ['root'] },
      { name: 'a', scopes: ['read', 'read'] },
    ]) {
      expect([json, (await api.call('POST', '/api/v1/keys', { json })).status]).toEqual([json, 422])
    }
  } finally {
    await api.close()
  }
})
