import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { ENGINES } from '../support/database.ts'
import { type CallOptions, type TasksUnderTest, tasksUnderTest } from './tasks-under-test.ts'

describe.each(ENGINES)('messages to a queue on %s', (engine) => {
  let api: TasksUnderTest
  beforeAll(async () => {
    api = await tasksUnderTest(engine)
  }, 60_000)
  afterEach(() => api.query('delete from tasks'))
  afterAll(() => api?.close())

  const send = (queue: string, options: CallOptions) =>
    api.call('POST', `/queues/${queue}/messages`, { as: 'submit', ...options })

  test('a message is a task of the queue: its body is the payload, as the very text, and its headers stay with it', async () => {
    const body =
      '{"headers":{"tenant":"acme","n":1.5,"ok":true},"priority":7,"body":{"b": 1.0,"a":12345678901234567890}}'
    const sent = await send('emails', { body })
    expect([sent.status, sent.headers.get('location')]).toEqual([201, `/api/v1/tasks/${sent.json.id}`])
    const read = await api.call('GET', `/tasks/${sent.json.id}`)
    for (const answer of [sent, read]) {
      expect(answer.text).toContain('"payload":{"b": 1.0,"a":12345678901234567890}')
      expect(answer.json).toMatchObject({
        ...{ queue: 'emails', priority: 7, status: 'pending', origin: 'api', maxAttempts: 3 },
        message: { exchange: '', routingKey: 'emails', headers: { tenant: 'acme', n: 1.5, ok: true } },
      })
    }
    expect((await send('emails', { json: { body: null } })).json).toMatchObject({ payload: null, message: null })
  })

  test('an unknown queue is 404, and what is wrong is named where it stands in the message', async () => {
    const refused = async (queue: string, options: CallOptions) => {
      const { status, json } = await send(queue, options)
      return [status, json.code, json.errors?.[0].path]
    }
    expect(await refused('nowhere', { json: { body: 1 } })).toEqual([404, 'not-found', undefined])
    expect(await refused('a%20b', { json: { body: 1 } })).toEqual([404, 'not-found', undefined])
    expect(await refused('emails', { json: {} })).toEqual([422, 'validation', '/body'])
    expect(await refused('emails', { body: '{"body":"\\u0000"}' })).toEqual([422, 'validation', '/body'])
    expect(await refused('emails', { body: '{"body":1,"body":2}' })).toEqual([422, 'validation', '/body'])
    expect(await refused('emails', { json: { body: 1, priority: 10 } })).toEqual([422, 'validation', '/priority'])
    expect(await refused('emails', { json: { body: 'x'.repeat(1024 * 1024) } })).toEqual([413, 'too-large', '/body'])
    expect(await refused('emails', { json: { body: 1, payload: 1 } })).toEqual([422, 'validation', '/payload'])
    expect(await refused('default', { json: { body: 1 } })).toEqual([422, 'unknown-target', '/target'])
    expect((await send('emails', { json: { body: 1 }, as: 'read' })).status).toBe(403)
  })

  test('headers that say where a message has been, nested or too large ones are refused', async () => {
    const status = async (headers: unknown) => (await send('emails', { json: { body: 1, headers } })).status
    for (const name of [
      'x-longshore-task',
      'x-death',
      'x-first-death-queue',
      'x-delivery-count',
      'CC',
      'BCC',
      '',
      'ä'.repeat(128),
    ]) {
      expect([name, await status({ [name]: 'x' })]).toEqual([name, 422])
    }
    expect(await status({ deep: { er: 1 } })).toBe(422)
    expect(await status({ 'x-mine': 'x', CCC: 'y' })).toBe(201)
    const many = Object.fromEntries(Array.from({ length: 5 }, (_, n) => [`h${n}`, 'x'.repeat(4_000)]))
    expect(await status(many)).toBe(413)
  })
})
