import { afterEach, beforeEach, expect, test } from 'bun:test'
import { v7 as uuidv7 } from 'uuid'
import type { Message } from '../../src/broker/broker.ts'
import { publishAsTask } from '../../src/submit/publish-as-task.ts'
import { makeExchange } from '../support/exchanges.ts'
import { type TestLedger, testLedger } from '../support/services.ts'

let ledger: TestLedger
let stored: string[]

beforeEach(async () => {
  ledger = await testLedger()
  stored = []
})

afterEach(() => ledger.drop())

const node = uuidv7()
const publish = (message: Partial<Message>) =>
  publishAsTask(
    { pool: ledger.database.pool, nodeId: () => node, onStored: (queue) => void stored.push(queue) },
    { exchange: '', routingKey: 'work', body: '{"amount": 10.10}', properties: {}, ...message },
  )

test('a message to a queue is a task of it, with the message as its payload', async () => {
  expect(await publish({ properties: { messageId: 'a', type: 'order', priority: 5 } })).toBe('confirmed')
  const { rows } = await ledger.database.pool.query(
    'select queue, type, payload::text, priority, origin, status from tasks',
  )
  expect(rows).toEqual([
    { queue: 'work', type: 'order', payload: '{"amount": 10.10}', priority: 5, origin: 'message', status: 'pending' },
  ])
  expect(stored).toEqual(['work'])
})

test('the same message again adds nothing, one without an id does', async () => {
  for (let time = 0; time < 3; time++) {
    expect(await publish({ properties: { messageId: 'a' }, body: `${time}` })).toBe('confirmed')
    expect(await publish({})).toBe('confirmed')
  }
  expect(await ledger.count('pending')).toBe(4)
})

test('a message to an exchange is a task of each bound queue, once', async () => {
  const { pool } = ledger.database
  await makeExchange({ pool }, 'orders', 'topic', { mail: ['eu.*'], audit: ['#'] })
  for (let time = 0; time < 2; time++)
    expect(await publish({ exchange: 'orders', routingKey: 'eu.new', properties: { messageId: 'a' } })).toBe(
      'confirmed',
    )
  expect(stored.sort()).toEqual(['audit', 'mail'])
  const { rows } = await pool.query('select queue, status, origin from tasks order by queue')
  expect(rows).toEqual([
    { queue: 'audit', status: 'pending', origin: 'child' },
    { queue: 'exchange/orders', status: 'running', origin: 'message' },
    { queue: 'mail', status: 'pending', origin: 'child' },
  ])
  expect(await publish({ exchange: 'orders', routingKey: 'us' })).toBe('confirmed')
  expect(stored).toContain('audit')
})

test('a message to no queue is returned', async () => {
  expect(await publish({ routingKey: 'nowhere' })).toBe('returned')
  expect(await publish({ exchange: 'orders' })).toBe('returned')
  expect(await ledger.count('pending')).toBe(0)
})
