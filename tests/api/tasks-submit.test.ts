import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { ENGINES } from '../support/database.ts'
import { type CallOptions, type TasksUnderTest, tasksUnderTest } from './tasks-under-test.ts'

const NOBODY = '019b7a3e-5c00-7000-8000-000000000001'

for (const engine of ENGINES) {
  describe(`submitting over HTTP on ${engine}`, () => {
    let api: TasksUnderTest
    const post = (json: unknown, options: CallOptions = {}) => api.call('POST', '/tasks', { json, ...options })
    const count = async () => (await api.query<{ n: number }>('select count(*)::int as n from tasks'))[0]?.n

    beforeAll(async () => {
      api = await tasksUnderTest(engine)
    }, 60_000)
    afterEach(() => api.query('delete from tasks'))
    afterAll(() => api?.close())

    test('a task is answered with 201, its Location, and the same that GET tells', async () => {
      const made = await post({
        type: 'greeting',
        payload: { n: 1 },
        target: { type: 'http', url: 'http://127.0.0.1:9000/hook', secret: 'sixteen-characters' },
        delay: '1h',
        timeout: '90s',
        idempotencyKey: 'k',
      })
      expect(made.status).toBe(201)
      expect(made.headers.get('location')).toBe(`/api/v1/tasks/${made.json.id}`)
      expect(made.json).toMatchObject({
        queue: 'default',
        type: 'greeting',
        payload: { n: 1 },
        status: 'pending',
        attempt: 0,
        maxAttempts: 10,
        timeout: '90s',
        origin: 'api',
        target: { type: 'http', url: 'http://127.0.0.1:9000/hook', secret: '[secret]' },
        waitingFor: { cause: 'due-later', until: made.json.dueAt },
        children: null,
        logs: [],
        attempts: [],
      })
      expect(made.text).not.toContain('sixteen-characters')
      const read = await api.call('GET', `/tasks/${made.json.id}`, { as: 'read' })
      expect(read.json).toEqual(made.json)
    })

    test('a task that is due now says what it waits for', async () => {
      const made = await post({ queue: 'emails', payload: 1 })
      expect(made.json.waitingFor.cause).toBe('no-consumer')
    })

    test('the payload comes back as the very text that was sent', async () => {
      const payload = '{"z":1.0,  "a":[12345678901234567890,"\\u00e9"]}'
      const made = await api.call('POST', '/tasks', { body: `{"queue":"emails","payload":${payload}}` })
      expect(made.text).toContain(`"payload":${payload},`)
      expect((await api.call('GET', `/tasks/${made.json.id}`)).text).toContain(`"payload":${payload},`)
    })

    test('the same idempotency key gives the first task with 200, another body 409', async () => {
      const first = await post({ queue: 'emails', payload: { n: 1 }, idempotencyKey: 'k' })
      const again = await post({ queue: 'emails', payload: { n: 1 }, idempotencyKey: 'k' })
      expect([first.status, again.status]).toEqual([201, 200])
      expect(again.json.id).toBe(first.json.id)
      expect(again.headers.get('location')).toBe(`/api/v1/tasks/${first.json.id}`)
      const other = await post({ queue: 'emails', payload: { n: 2 }, idempotencyKey: 'k' })
      expect([other.status, other.json.code]).toEqual([409, 'idempotency-mismatch'])
      expect(await count()).toBe(1)
    })

    const bad: [name: string, body: string, status: number, code: string][] = [
      ['malformed JSON', '{"payload":', 400, 'malformed-json'],
      ['an empty body', '', 400, 'malformed-json'],
      ['a wrong type', '{"queue":"emails","payload":1,"priority":"1"}', 422, 'validation'],
      ['an unknown field', '{"queue":"emails","payload":1,"colour":"red"}', 422, 'validation'],
      ['a NUL', '{"queue":"emails","payload":"\\u0000"}', 422, 'validation'],
      ['a lone surrogate', '{"queue":"emails","payload":"\\ud800"}', 422, 'validation'],
      [
        'a nesting bomb',
        `{"queue":"emails","payload":${'['.repeat(100_000)}${']'.repeat(100_000)}}`,
        422,
        'validation',
      ],
      ['a number out of range', '{"queue":"emails","payload":1e999}', 422, 'validation'],
      ['an unknown queue', '{"queue":"nowhere","payload":1}', 422, 'unknown-queue'],
      ['an unknown target', '{"payload":1,"target":{"type":"smoke"}}', 422, 'validation'],
      ['no target on the queue default', '{"payload":1}', 422, 'unknown-target'],
      [
        'a target that is not allowed',
        '{"payload":1,"target":{"type":"http","url":"http://169.254.169.254/"}}',
        422,
        'unknown-target',
      ],
      ['an unknown handler', '{"payload":1,"target":{"type":"handler","name":"nobody"}}', 422, 'unknown-handler'],
      ['a payload over the limit', `{"queue":"emails","payload":"${'x'.repeat(1024 * 1024)}"}`, 413, 'too-large'],
      ['a body far over the limit', `{"queue":"emails","payload":"${'x'.repeat(3 * 1024 * 1024)}"}`, 413, 'too-large'],
      ['an absurd dueAt', '{"queue":"emails","payload":1,"dueAt":"2999-01-01T00:00:00Z"}', 422, 'validation'],
      ['nonsense as dueAt', '{"queue":"emails","payload":1,"dueAt":"yesterday"}', 422, 'validation'],
      ['an unknown parent', `{"queue":"emails","payload":1,"parentId":"${NOBODY}"}`, 422, 'unknown-parent'],
    ]
    for (const [name, body, status, code] of bad) {
      test(`${name} is refused with ${status} ${code}, and nothing is stored`, async () => {
        const answer = await api.call('POST', '/tasks', { body, headers: { 'content-type': 'application/json' } })
        expect([answer.status, answer.json.code]).toEqual([status, code])
        expect(answer.headers.get('content-type')).toBe('application/problem+json')
        expect(await count()).toBe(0)
      })
    }

    test('bytes that are no UTF-8, and a body that is no JSON by its type, are refused', async () => {
      const bytes = new Uint8Array([...new TextEncoder().encode('{"queue":"emails","payload":"'), 0xff, 0x22, 0x7d])
      expect((await api.call('POST', '/tasks', { body: bytes })).status).toBe(400)
      const text = await api.call('POST', '/tasks', { body: 'payload=1', headers: { 'content-type': 'text/plain' } })
      expect([text.status, text.json.code]).toEqual([415, 'unsupported-media-type'])
    })

    test('a past dueAt means now', async () => {
      const made = await post({ queue: 'emails', payload: 1, dueAt: '1999-01-01T00:00:00Z' })
      expect(made.status).toBe(201)
      expect(made.json.dueAt).toBe(made.json.createdAt)
    })

    test('a missing or wrong key is 401 before the body is looked at, a scope that is too low 403', async () => {
      expect((await post('rubbish', { as: null })).status).toBe(401)
      expect((await post('rubbish', { headers: { authorization: 'Bearer ls_0_wrong' } })).status).toBe(401)
      expect((await post('rubbish', { as: 'read' })).status).toBe(403)
      expect((await post('rubbish', { as: 'work' })).status).toBe(403)
      const noop = { payload: 1, target: { type: 'noop' } }
      const low = await post(noop, { as: 'submit' })
      expect([low.status, low.json.code]).toEqual([403, 'forbidden'])
      expect((await post(noop, { as: 'operate' })).status).toBe(201)
    })

    test('a wrong method is 405 and says which are right', async () => {
      const answer = await api.call('PUT', '/tasks', { json: {} })
      expect([answer.status, answer.headers.get('allow')]).toEqual([405, 'GET, HEAD, POST'])
    })

    test('one bad task among good ones, sent at once, harms nobody else', async () => {
      const answers = await Promise.all(
        Array.from({ length: 60 }, (_, n) => post({ queue: n % 10 === 5 ? 'nowhere' : 'emails', payload: { n } })),
      )
      expect(answers.filter(({ status }) => status === 201)).toHaveLength(54)
      expect(answers.filter(({ json }) => json.code === 'unknown-queue')).toHaveLength(6)
      expect(await count()).toBe(54)
    })

    test('a batch is stored in one commit, as JSON and as lines', async () => {
      const json = await api.call('POST', '/tasks/batch', {
        json: [1, 2, 3].map((n) => ({ queue: 'emails', payload: { n } })),
      })
      expect(json.status).toBe(201)
      const lines = await api.call('POST', '/tasks/batch', {
        body: '{"queue":"emails","payload":4}\n{"queue":"emails","payload":5}\n',
        headers: { 'content-type': 'application/x-ndjson' },
      })
      expect(lines.status).toBe(201)
      const stored = await api.query<{ id: string; payload: string }>('select id, payload from tasks')
      const payloads = new Map(stored.map(({ id, payload }) => [id, payload]))
      expect([...json.json.ids, ...lines.json.ids].map((id: string) => payloads.get(id))).toEqual([
        '{"n":1}',
        '{"n":2}',
        '{"n":3}',
        '4',
        '5',
      ])
    })

    test('a batch with a bad task is refused as a whole, and the task is named', async () => {
      const good = { queue: 'emails', payload: 1 }
      const shape = await api.call('POST', '/tasks/batch', { json: [good, { ...good, priority: 99 }] })
      expect([shape.status, shape.json.errors[0].path]).toEqual([422, '/1/priority'])
      const queue = await api.call('POST', '/tasks/batch', { json: [good, good, good, { ...good, queue: 'nowhere' }] })
      expect([queue.status, queue.json.code, queue.json.errors[0].path]).toEqual([422, 'unknown-queue', '/3/queue'])
      const many = await api.call('POST', '/tasks/batch', { json: Array(10_001).fill(good) })
      expect(many.status).toBe(413)
      expect(await count()).toBe(0)
    })

    test('children are counted at their parent', async () => {
      const parent = await post({ queue: 'emails', payload: 1 })
      const child = { queue: 'emails', payload: 2, parentId: parent.json.id }
      await api.call('POST', '/tasks/batch', { json: [child, child] })
      const read = await api.call('GET', `/tasks/${parent.json.id}`)
      expect(read.json.children).toEqual({ total: 2, succeeded: 0, dead: 0, live: 2 })
      const children = await api.call('GET', `/tasks?parentId=${parent.json.id}`)
      expect(children.json.items.map((item: { origin: string }) => item.origin)).toEqual(['child', 'child'])
      await api.query(`update tasks set status = 'dead' where id = $1`, [parent.json.id])
      const late = await post(child)
      expect([late.status, late.json.code]).toEqual([409, 'parent-final'])
    })
  })
}
