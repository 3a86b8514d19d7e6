import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { v7 } from 'uuid'
import { ENGINES } from '../support/database.ts'
import { type TasksUnderTest, tasksUnderTest } from './tasks-under-test.ts'

const NOBODY = '019b7a3e-5c00-7000-8000-000000000001'

describe.each(ENGINES)('dead letters over HTTP on %s', (engine) => {
  let api: TasksUnderTest
  beforeAll(async () => {
    api = await tasksUnderTest(engine)
  }, 60_000)
  afterEach(() => api.query('delete from tasks'))
  afterAll(() => api?.close())

  async function dead(fields: Record<string, unknown> = {}): Promise<string> {
    const { json } = await api.call('POST', '/tasks', { json: { queue: 'emails', payload: { n: 1 }, ...fields } })
    await api.query(
      `update tasks set status = 'dead', finished_at = now(), attempt = 1, error = 'no way' where id = $1`,
      [json.id],
    )
    return json.id
  }

  test('a dead letter of a message shows its bytes, properties, headers and where it came from', async () => {
    const id = v7()
    const message = {
      body: Buffer.from([0xff, 0xfe, 0x00]).toString('base64'),
      ...{ exchange: 'orders', routingKey: 'eu.new' },
      properties: { appId: 'script', contentType: 'text/plain' },
      headers: { 'x-retries': 3 },
    }
    await api.query(
      `insert into tasks (id, queue, payload, priority, due_at, max_attempts, origin, status, error, message, exchange, routing_key)
       values ($1, 'emails', 'null', 0, now(), 3, 'message', 'dead', 'not UTF-8', $2, 'events', 'a.b')`,
      [id, JSON.stringify(message)],
    )
    const { json } = await api.call('GET', `/tasks/${id}`, { as: 'read' })
    expect(json).toMatchObject({ status: 'dead', message, exchange: 'events', routingKey: 'a.b', error: 'not UTF-8' })
    expect((await api.call('GET', '/tasks?origin=message')).json.items[0].message).toEqual(message)
    const plain = await api.call('GET', `/tasks/${await dead()}`)
    expect(plain.json).toMatchObject({ message: null, exchange: null, routingKey: null })
  })

  test('mended and replayed, a dead letter is delivered with the new payload, as the very text', async () => {
    const id = await dead()
    const body = '{ "payload": {"n": 12345678901234567890, "m": 1.0} }'
    const mended = await api.call('PATCH', `/tasks/${id}`, { as: 'operate', body })
    expect([mended.status, mended.json.status]).toEqual([200, 'dead'])
    expect(mended.text).toContain('"payload":{"n": 12345678901234567890, "m": 1.0}')
    expect(mended.json.logs).toEqual([
      expect.stringMatching(/^payload replaced by key "operate" \(.+\); it was: \{"n":1\}$/),
    ])
    const replayed = await api.call('POST', `/tasks/${id}/replay`, { as: 'operate' })
    expect([replayed.status, replayed.json.status, replayed.json.attempt]).toEqual([200, 'pending', 1])
    expect(replayed.text).toContain('"payload":{"n": 12345678901234567890, "m": 1.0}')
  })

  test('a dead letter that has no payload is counted by itself in a replay of many, and says what to do in its own', async () => {
    const [whole, poison] = [await dead(), await dead()]
    await api.query('update tasks set message = $2 where id = $1', [
      poison,
      '{"unreadable":true,"body":"//5B","exchange":"","routingKey":"emails","properties":{},"headers":{}}',
    ])
    const many = { action: 'replay', filter: { status: ['dead'] } }
    const { json } = await api.call('POST', '/tasks/actions', { json: many })
    expect(json.outcomes).toEqual({ replayed: 1, unreadable: 1 })
    expect((await api.call('GET', `/tasks/${whole}`)).json.status).toBe('pending')
    const refused = await api.call('POST', `/tasks/${poison}/replay`)
    expect([refused.status, refused.json.code]).toEqual([409, 'illegal-transition'])
    expect(refused.json.detail).toContain(`give it a payload first (PATCH /api/v1/tasks/${poison})`)
    await api.call('PATCH', `/tasks/${poison}`, { json: { payload: 1 } })
    expect((await api.call('POST', `/tasks/${poison}/replay`)).json.status).toBe('pending')
  })

  test('a payload that cannot be kept, or a task that cannot be mended, is refused', async () => {
    const id = await dead()
    const mend = async (body: string, of = id) => {
      const { status, json } = await api.call('PATCH', `/tasks/${of}`, { body })
      return [status, json.code, json.errors?.[0].path]
    }
    expect(await mend('{}')).toEqual([422, 'validation', '/payload'])
    expect(await mend('{"payload":1,"status":"pending"}')).toEqual([422, 'validation', '/status'])
    expect(await mend('{"payload":"\\u0000"}')).toEqual([422, 'validation', '/payload'])
    expect(await mend(`{"payload":"${'x'.repeat(1024 * 1024)}"}`)).toEqual([413, 'too-large', '/payload'])
    expect(await mend('{"payload":1}', NOBODY)).toEqual([404, 'not-found', undefined])
    await api.call('POST', `/tasks/${id}/replay`)
    expect(await mend('{"payload":1}')).toEqual([409, 'illegal-transition', undefined])
    expect((await api.call('PATCH', `/tasks/${id}`, { as: 'submit', json: { payload: 1 } })).status).toBe(403)
  })

  test('a replay can name another queue, in a body that may be left out', async () => {
    const id = await dead({ idempotencyKey: 'k' })
    const nowhere = await api.call('POST', `/tasks/${id}/replay`, { json: { queue: 'nowhere' } })
    expect([nowhere.status, nowhere.json.code, nowhere.json.errors[0].path]).toEqual([422, 'unknown-queue', '/queue'])
    const noTarget = await api.call('POST', `/tasks/${id}/replay`, { json: { queue: 'default' } })
    expect([noTarget.status, noTarget.json.code]).toEqual([409, 'conflict'])
    expect((await api.call('POST', `/tasks/${id}/replay`, { json: { rate: 1 } })).status).toBe(422)
    await api.query(`insert into queues (name, retry, retention) values ('again', '{}', '{}') on conflict do nothing`)
    const moved = await api.call('POST', `/tasks/${id}/replay`, { json: { queue: 'again' } })
    expect(moved.json).toMatchObject({ queue: 'again', status: 'pending', idempotencyKey: null })
    expect((await api.call('POST', `/tasks/${await dead()}/replay`, { json: {} })).json.queue).toBe('emails')
  })

  test('many are replayed at a rate, to another queue', async () => {
    for (let n = 0; n < 6; n++) await dead({ payload: { n } })
    await api.query(`insert into queues (name, retry, retention) values ('again', '{}', '{}') on conflict do nothing`)
    const action = {
      action: 'replay',
      filter: { queue: 'emails', status: ['dead'] },
      ratePerSecond: 0.05,
      queue: 'again',
    }
    const dry = await api.call('POST', '/tasks/actions', { json: { ...action, dryRun: true } })
    expect(dry.json).toMatchObject({ matched: 6, outcomes: {}, until: null })
    const { json } = await api.call('POST', '/tasks/actions', { json: action })
    expect([json.outcomes, json.next]).toEqual([{ replayed: 6 }, null])
    const { json: list } = await api.call('GET', '/tasks?queue=again')
    const due = list.items.map(({ dueAt }: { dueAt: string }) => Date.parse(dueAt)).toSorted()
    const until = Date.parse(json.until)
    expect(due.slice(1).map((at: number) => until - at)).toEqual([80_000, 60_000, 40_000, 20_000, 0])
    // The first one was due when the call came.
    expect(until - (due[0] ?? 0)).toBeWithin(90_000, 100_001)
    expect(list.items.at(-1).waitingFor.cause).toBe('due-later')
  })

  test('the next call goes on where the rate has come, and a place that is made up is refused', async () => {
    const id = await dead()
    const place = (parts: unknown[]) => Buffer.from(JSON.stringify(parts)).toString('base64url')
    const startAt = new Date(Date.now() + 60_000).toISOString()
    const replay = (after: string) =>
      api.call('POST', '/tasks/actions', {
        json: { action: 'replay', filter: { status: ['dead'] }, ratePerSecond: 10, after },
      })
    const newest = '2999-01-01T00:00:00.000000Z'
    for (const parts of [
      [newest, NOBODY, startAt, -1],
      [newest, NOBODY, 'soon', 3],
      [newest, 'x', startAt, 3],
      [1, 2, 3],
    ]) {
      expect([parts, (await replay(place(parts))).status]).toEqual([parts, 422])
    }
    const { json } = await replay(place([newest, NOBODY, startAt, 40]))
    expect([json.outcomes, json.until]).toEqual([{ replayed: 1 }, new Date(Date.parse(startAt) + 4_000).toISOString()])
    expect((await api.call('GET', `/tasks/${id}`)).json.dueAt).toBe(json.until)
  })
})
