import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { ENGINES } from '../support/database.ts'
import { type TasksUnderTest, tasksUnderTest } from './tasks-under-test.ts'

const NOBODY = '019b7a3e-5c00-7000-8000-000000000001'

for (const engine of ENGINES) {
  describe(`tasks over HTTP on ${engine}`, () => {
    let api: TasksUnderTest
    const submit = async (fields: Record<string, unknown> = {}) => {
      const { json } = await api.call('POST', '/tasks', { json: { queue: 'emails', payload: { n: 1 }, ...fields } })
      return json.id as string
    }
    const become = (id: string, status: string) =>
      api.query(
        `update tasks set status = $2::text::task_status, finished_at = case when $2::text in ('succeeded', 'dead', 'cancelled') then now() end where id = $1`,
        [id, status],
      )
    const act = (id: string, action: string) => api.call('POST', `/tasks/${id}/${action}`, { as: 'operate' })

    beforeAll(async () => {
      api = await tasksUnderTest(engine)
    }, 60_000)
    afterEach(() => api.query('delete from tasks'))
    afterAll(() => api?.close())

    test('an id that is unknown, or none at all, is 404 on every route', async () => {
      for (const id of [NOBODY, 'x', "'; drop table tasks"]) {
        const path = `/tasks/${encodeURIComponent(id)}`
        const answers = await Promise.all([
          api.call('GET', path),
          api.call('DELETE', path),
          ...['cancel', 'replay', 'run-now'].map((action) => api.call('POST', `${path}/${action}`)),
          api.call('PUT', `${path}/status`, { json: { status: 'running' } }),
        ])
        expect(answers.map(({ status, json }) => [status, json.code])).toEqual(answers.map(() => [404, 'not-found']))
      }
    })

    test('scopes: reading needs read, changing needs operate, reporting takes work as well', async () => {
      const id = await submit()
      const statusOf = async (
        method: string,
        path: string,
        as: 'read' | 'submit' | 'work' | 'operate' | null,
        json?: unknown,
      ) => (await api.call(method, path, { as, json })).status
      expect(await statusOf('GET', '/tasks', null)).toBe(401)
      expect(await statusOf('GET', `/tasks/${id}`, 'work')).toBe(403)
      expect(await statusOf('GET', `/tasks/${id}`, 'read')).toBe(200)
      for (const path of ['cancel', 'replay', 'run-now'])
        expect(await statusOf('POST', `/tasks/${id}/${path}`, 'submit')).toBe(403)
      expect(await statusOf('DELETE', `/tasks/${id}`, 'submit')).toBe(403)
      expect(await statusOf('POST', '/tasks/actions', 'submit', {})).toBe(403)
      expect(await statusOf('PUT', `/tasks/${id}/status`, 'submit', { status: 'running' })).toBe(403)
      expect(await statusOf('PUT', `/tasks/${id}/status`, 'work', { status: 'running' })).toBe(200)
    })

    test('a list is newest first, paged, filtered, and its items leave logs and attempts out', async () => {
      const ids: string[] = []
      for (let n = 0; n < 5; n++) ids.unshift(await submit({ payload: { n }, ...(n === 2 && { type: 'welcome' }) }))
      const first = await api.call('GET', '/tasks?limit=3', { as: 'read' })
      const second = await api.call('GET', `/tasks?limit=3&after=${first.json.next}`)
      expect([...first.json.items, ...second.json.items].map(({ id }) => id)).toEqual(ids)
      expect(second.json.next).toBeNull()
      expect(first.json.items[0].payload).toEqual({ n: 4 })
      expect(Object.keys(first.json.items[0])).not.toContain('attempts')
      const idsOf = async (query: string) =>
        (await api.call('GET', `/tasks?${query}`)).json.items.map(({ id }: { id: string }) => id)
      expect(await idsOf('type=welcome&status=pending,dead&queue=emails&origin=api')).toEqual([ids[2]])
      expect(await idsOf('status=dead')).toEqual([])
      expect(await idsOf('createdAfter=2999-01-01T00:00:00Z')).toEqual([])
    })

    test('a payload search says how far it looked', async () => {
      const id = await submit({ payload: { invoice: 1042, lines: [1, 2] } })
      await submit({ payload: { invoice: 1043 } })
      const found = await api.call('GET', `/tasks?payload=${encodeURIComponent('{"invoice":1042}')}`)
      expect(found.json).toMatchObject({ items: [{ id }], next: null, scanned: 2, complete: true })
    })

    test('a filter that is none is 422 and names the field', async () => {
      for (const [query, path] of [
        ['status=lost', '/status'],
        ['parentId=x', '/parentId'],
        ['origin=moon', '/origin'],
        ['createdAfter=yesterday', '/createdAfter'],
        ['payload={', '/payload'],
        ['payload="%5Cu0000"', '/payload'],
        ['limit=501', '/limit'],
        ['after=x', '/after'],
        ['colour=red', '/colour'],
        ['queue=%00', '/queue'],
      ]) {
        const answer = await api.call('GET', `/tasks?${query}`)
        expect([query, answer.status, answer.json.errors?.[0]?.path]).toEqual([query, 422, path])
      }
    })

    test('a waiting task is cancelled at once, a running one is asked, a final one is 409', async () => {
      const [waiting, running, done] = [await submit(), await submit(), await submit()]
      await become(running, 'running')
      await become(done, 'succeeded')
      const cancelled = await act(waiting, 'cancel')
      expect([cancelled.status, cancelled.json.status]).toEqual([200, 'cancelled'])
      const asked = await act(running, 'cancel')
      expect([asked.status, asked.json.status]).toEqual([202, 'running'])
      const late = await act(done, 'cancel')
      expect([late.status, late.json.code]).toEqual([409, 'illegal-transition'])
    })

    test('dead and cancelled tasks are replayed, others are 409', async () => {
      const [dead, live, done] = [await submit(), await submit(), await submit()]
      await become(dead, 'dead')
      await become(done, 'succeeded')
      const replayed = await act(dead, 'replay')
      expect([replayed.status, replayed.json.status]).toEqual([200, 'pending'])
      expect((await act(live, 'replay')).json.code).toBe('illegal-transition')
      expect((await act(done, 'replay')).json.code).toBe('illegal-transition')
    })

    test('a waiting task is made due now, a running one is 409', async () => {
      const [later, running] = [await submit({ delay: '1h' }), await submit()]
      await become(running, 'running')
      const due = await act(later, 'run-now')
      expect(due.status).toBe(200)
      expect(Date.parse(due.json.dueAt)).toBeLessThan(Date.now() + 60_000)
      expect((await act(running, 'run-now')).status).toBe(409)
    })

    test('what was cancelled while RabbitMQ had its message is kept, one by one and in a discard of many', async () => {
      const { json } = await api.call('POST', '/tasks', { json: { queue: 'emails', type: 'late', payload: {} } })
      await api.query(
        `update tasks set status = 'cancelled', finished_at = now(), publisher = id, publish_no = 1 where id = $1`,
        [json.id],
      )
      const refused = await api.call('DELETE', `/tasks/${json.id}`)
      expect([refused.status, refused.json.code]).toEqual([409, 'conflict'])
      expect(refused.json.detail).toContain('RabbitMQ may still have the message')
      const discard = { action: 'discard', filter: { type: 'late' } }
      expect((await api.call('POST', '/tasks/actions', { json: discard })).json.outcomes).toEqual({ 'in-broker': 1 })
    })

    test('final tasks are deleted, live ones and parents with children are 409', async () => {
      const parent = await submit()
      const child = await submit({ parentId: parent })
      const remove = (id: string) => api.call('DELETE', `/tasks/${id}`, { as: 'operate' })
      expect((await remove(child)).json.code).toBe('illegal-transition')
      await become(parent, 'dead')
      expect((await remove(parent)).json.code).toBe('conflict')
      await become(child, 'dead')
      expect((await remove(child)).status).toBe(204)
      expect((await remove(parent)).status).toBe(204)
      expect((await remove(parent)).status).toBe(404)
    })

    test('an action on many tasks counts outcomes, shows a sample, and changes nothing as a dry run', async () => {
      const ids = await Promise.all(Array.from({ length: 12 }, (_, n) => submit({ payload: { n } })))
      await become(ids[0] as string, 'succeeded')
      const cancel = { action: 'cancel', filter: { queue: 'emails' } }
      const dry = await api.call('POST', '/tasks/actions', { as: 'operate', json: { ...cancel, dryRun: true } })
      expect(dry.json).toMatchObject({ matched: 11, dryRun: true, outcomes: {}, more: false, next: null })
      expect(dry.json.sample).toHaveLength(10)
      expect((await api.call('GET', '/tasks?status=cancelled')).json.items).toEqual([])

      const one = await api.call('POST', '/tasks/actions', {
        json: { action: 'cancel', filter: { payload: { n: 3 } } },
      })
      expect(one.json).toMatchObject({
        matched: 1,
        outcomes: { cancelled: 1 },
        sample: [{ id: ids[3], status: 'pending' }],
      })
      const all = await api.call('POST', '/tasks/actions', { json: cancel })
      expect(all.json).toMatchObject({ matched: 10, outcomes: { cancelled: 10 } })
      const replay = await api.call('POST', '/tasks/actions', {
        json: { action: 'replay', filter: { queue: 'emails', status: ['cancelled'] } },
      })
      expect(replay.json.outcomes).toEqual({ replayed: 11 })
      const discard = await api.call('POST', '/tasks/actions', {
        json: { action: 'discard', filter: { queue: 'emails' } },
      })
      expect(discard.json.outcomes).toEqual({ deleted: 1 })
    })

    test('an action without a filter, with a status it is not for, or with what is of no use to it is 422', async () => {
      for (const json of [
        { action: 'cancel', filter: {} },
        { action: 'cancel' },
        { action: 'cancel', filter: { status: ['dead'] } },
        { action: 'explode', filter: { queue: 'emails' } },
        { action: 'cancel', filter: { queue: 'emails' }, ratePerSecond: 5 },
        { action: 'discard', filter: { queue: 'emails' }, queue: 'default' },
        { action: 'replay', filter: { queue: 'emails' }, ratePerSecond: 0 },
        { action: 'replay', filter: { queue: 'emails', colour: 'red' } },
      ]) {
        expect([json, (await api.call('POST', '/tasks/actions', { json })).status]).toEqual([json, 422])
      }
    })

    test('a foreign consumer takes a task and settles it with its result as the very text', async () => {
      const id = await submit()
      const report = (body: string) => api.call('PUT', `/tasks/${id}/status`, { as: 'work', body })
      const taken = await report('{"status":"running"}')
      expect([taken.status, taken.json.status, taken.json.attempt, taken.json.waitingFor]).toEqual([
        200,
        'running',
        1,
        null,
      ])
      const other = await api.call('PUT', `/tasks/${id}/status`, { as: 'operate', json: { status: 'succeeded' } })
      expect([other.status, other.json.code]).toEqual([409, 'illegal-transition'])
      const done = await report('{"status":"succeeded","attempt":1,"result":{"b": 1.0,"a":12345678901234567890}}')
      expect(done.text).toContain('"result":{"b": 1.0,"a":12345678901234567890}')
      expect(done.json).toMatchObject({
        status: 'succeeded',
        waitingFor: null,
        attempts: [{ number: 1, outcome: 'succeeded' }],
      })
      expect(done.json.attempts[0].finishedAt).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
      const late = await report('{"status":"dead"}')
      expect([late.status, late.json.code]).toEqual([409, 'illegal-transition'])
    })

    test('a report that is none is refused', async () => {
      const id = await submit()
      const statusOf = async (body: string) => (await api.call('PUT', `/tasks/${id}/status`, { body })).status
      expect(await statusOf('{"status":"finished"}')).toBe(422)
      expect(await statusOf('{"status":"succeeded","result":"\\u0000"}')).toBe(422)
      expect(await statusOf(`{"status":"succeeded","result":"${'x'.repeat(65 * 1024)}"}`)).toBe(413)
      expect(await statusOf('{"status":')).toBe(400)
      expect(await statusOf('{"status":"succeeded","attempt":7}')).toBe(409)
    })

    test('a wrong method is 405 and says which are right', async () => {
      const answer = await api.call('PUT', `/tasks/${NOBODY}`, { json: {} })
      expect([answer.status, answer.headers.get('allow')]).toEqual([405, 'DELETE, GET, HEAD, PATCH'])
    })
  })
}
