import { expect, test } from 'bun:test'
import fc from 'fast-check'
import type { Delivery } from '../../src/broker/broker.ts'
import { readDeadStray, readStray } from '../../src/broker/stray.ts'
import { fanOutMessage, identityOf, taskMessage } from '../../src/broker/wire-form.ts'
import { LIMITS } from '../../src/task/limits.ts'
import { messageProperties } from './arbitraries.ts'

const delivery = (body: string | Uint8Array, changes: Partial<Delivery> = {}): Delivery => ({
  queue: 'orders',
  exchange: '',
  routingKey: 'orders',
  body: typeof body === 'string' ? Buffer.from(body) : body,
  properties: {},
  redelivered: false,
  ...changes,
})

test('a JSON body is the payload, to the letter, and its bytes are not kept twice', () => {
  const read = readStray(delivery('{"b":1.0,"a":9007199254740993}'))
  expect(read).toMatchObject({ payload: '{"b":1.0,"a":9007199254740993}', type: null, priority: 0 })
  expect(read.reason).toBeUndefined()
  expect(read.message.body).toBeUndefined()
  expect(readDeadStray(delivery('null'), undefined, 'rejected').message.unreadable).toBeUndefined()
})

test('a body that is text becomes { raw }, and its bytes are kept', () => {
  const read = readStray(delivery('hello, wörld'))
  expect(JSON.parse(read.payload)).toEqual({ raw: 'hello, wörld' })
  expect(Buffer.from(read.message.body ?? '', 'base64').toString()).toBe('hello, wörld')
})

test('headers and properties are kept as Postgres takes them, whatever they hold', () => {
  const escaped = JSON.stringify({ a: '\0' })
  const { message } = readStray(
    delivery('1', {
      properties: { correlationId: escaped, headers: { escaped, 'n\0l': ['a\0b', 12n, '\ud800'] } as never },
    }),
  )
  expect(message).toMatchObject({
    properties: { correlationId: escaped },
    headers: { escaped, 'n\uFFFDl': ['a\uFFFDb', '12', '\uFFFD'] },
  })
  const deep = { a: JSON.parse(`${'['.repeat(500)}1${']'.repeat(500)}`) }
  expect(JSON.stringify(readStray(delivery('1', { properties: { headers: deep } })).message)).toContain('[cut]')
  fc.assert(
    fc.property(messageProperties, (properties) => {
      const kept = readStray(delivery('1', { properties })).message
      const told = JSON.stringify(kept)
      expect(told.isWellFormed()).toBe(true)
      // An escape of NUL has an odd number of backslashes.
      expect(told).not.toMatch(/(?<!\\)(\\\\)*\\u(0000|d[89a-f])/i)
    }),
  )
})

test.each([
  ['not UTF-8', new Uint8Array([0xff, 0xfe, 0x41])],
  ['JSON with NUL', '{"a":"\\u0000"}'],
  ['JSON that is too deep', `${'['.repeat(100)}${']'.repeat(100)}`],
  ['text with NUL', 'a\0b'],
  ['more than a payload may have', `"${'x'.repeat(LIMITS.payloadBytes)}"`],
])('a body that cannot be kept as a payload has a reason, and its bytes are kept: %s', (_, body) => {
  const read = readStray(delivery(body))
  expect(read.reason).toBeString()
  expect([read.payload, read.message.unreadable]).toEqual(['null', true])
  expect(readDeadStray(delivery(body), undefined, 'rejected').message).toEqual(read.message)
  const kept = Buffer.from(read.message.body ?? '', 'base64')
  expect(kept.equals(Buffer.from(body as string).subarray(0, LIMITS.payloadBytes))).toBe(true)
})

test('PROTOCOL 17: the same message id on the same queue is the same task, on another queue another one', () => {
  const id = (queue: string, messageId?: string) => readStray(delivery('1', { queue, properties: { messageId } })).id
  expect(id('orders', 'm-1')).toBe(id('orders', 'm-1'))
  expect(id('orders', 'm-1')).not.toBe(id('mails', 'm-1'))
  expect(id('orders', 'm-1')).not.toBe(id('orders', 'm-2'))
  expect(id('orders')).not.toBe(id('orders'))
  expect(id('orders', '')).not.toBe(id('orders', ''))
})

test('whatever bytes and properties come, something is read that Postgres can hold', () => {
  const table = fc.dictionary(fc.string({ unit: 'binary' }), fc.string({ unit: 'binary' }))
  fc.assert(
    fc.property(
      fc.oneof(
        fc.uint8Array(),
        fc.json().map((text) => Buffer.from(text)),
      ),
      fc.record({
        type: fc.string({ unit: 'binary' }),
        messageId: fc.string({ unit: 'binary' }),
        priority: fc.integer({ min: -5, max: 300 }),
        headers: table,
      }),
      (body, properties) => {
        const { payload, type, priority, message } = readStray(delivery(body, { properties }))
        expect(priority).toBeGreaterThanOrEqual(0)
        expect(priority).toBeLessThanOrEqual(9)
        const texts = [payload, type ?? '', JSON.stringify(message)]
        for (const text of texts) {
          expect(text.isWellFormed()).toBe(true)
          expect(text).not.toMatch(/\0|(?<!\\)(\\\\)*\\u0000/)
        }
        expect(() => JSON.parse(payload)).not.toThrow()
      },
    ),
  )
})

test('tables that are too large are cut and say so', () => {
  const read = readDeadStray(delivery('1', { properties: { headers: { big: 'x'.repeat(100_000) } } }), undefined, 'why')
  expect(JSON.stringify(read.message.headers).length).toBeLessThan(20_000)
  expect(read.message.headers).toHaveProperty('cut')
  expect(read).toMatchObject({ reason: 'why', message: { body: Buffer.from('1').toString('base64') } })
})

test('a task’s message carries its payload and nothing else, and tells its attempt to whoever reads it', () => {
  const task = {
    id: '01a213b3-5cef-74dd-a855-4a79faaa3b41',
    queue: 'orders',
    type: 'order',
    payload: '{"a":1.0}',
    priority: 3,
    attempt: 2,
    parentId: null,
    createdAt: '2026-01-01T00:00:00.000Z',
  }
  const message = taskMessage(task)
  expect(message).toMatchObject({ exchange: '', routingKey: 'orders', body: '{"a":1.0}' })
  expect(identityOf(message)).toEqual({ kind: 'task', id: task.id, attempt: 2 })
  const copy = fanOutMessage(task, 'events', 'order.made')
  expect(copy).toMatchObject({ exchange: 'events', routingKey: 'order.made', body: '{"a":1.0}' })
  expect(identityOf(copy)).toEqual({ kind: 'copy', parentId: task.id })
})

test.each([
  [{ 'x-longshore-task': 'no uuid', 'x-longshore-attempt': 1 }],
  [{ 'x-longshore-task': '01a213b3-5cef-74dd-a855-4a79faaa3b41', 'x-longshore-attempt': 0 }],
  [{ 'x-longshore-task': '01a213b3-5cef-74dd-a855-4a79faaa3b41', 'x-longshore-attempt': '1' }],
  [{ 'x-longshore-task': '01a213b3-5cef-74dd-a855-4a79faaa3b41', 'x-longshore-attempt': 2 ** 31 }],
  [{ 'x-longshore-task': '01a213b3-5cef-74dd-a855-4a79faaa3b41' }],
  [{ 'x-longshore-parent': 5 }],
  [{}],
])('headers that are not well-formed make a message somebody else’s: %j', (headers) => {
  expect(identityOf({ properties: { headers } })).toEqual({ kind: 'foreign' })
})
