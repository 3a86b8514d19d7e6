import { afterAll, beforeAll, beforeEach, expect, test } from 'bun:test'
import { v7 as uuidv7 } from 'uuid'
import { followOrderApi, orderTarget } from '../../src/api/compat/consumer-management/order-target.ts'
import { Secret } from '../../src/runtime/log.ts'
import { consumerById, insertConsumer } from '../../src/store/topology/consumers.ts'
import { insertQueue } from '../../src/store/topology/queues.ts'
import type { ConsumerTarget } from '../../src/task/target/target.ts'
import { type TestDatabase, testDatabase } from '../support/database.ts'
import { silent } from '../support/services.ts'

const URL = 'https://orders.example.com/process'
const MOVED = 'https://elsewhere.example.com/process'
const ORDER_API = { url: URL, secret: new Secret('hush') }
const ORDERS = { queue: 'orders', concurrency: 1, timeoutMs: 1_000, paused: false }

let database: TestDatabase
let warned: unknown[]
beforeAll(async () => {
  database = await testDatabase('server')
  await insertQueue(database.database.db, 'orders')
})
afterAll(() => database.drop())
beforeEach(() => {
  warned = []
})

const deps = {
  checkUrl: (url: string) => (url.includes('169.254.') ? 'link-local addresses are never allowed' : undefined),
  log: { ...silent, warn: (line: unknown) => void warned.push(line) },
}

async function made(target: ConsumerTarget, id: string = uuidv7()): Promise<string> {
  await insertConsumer(database.database.db, { id, target, ...ORDERS })
  return id
}

async function madeForOrders(): Promise<string> {
  const id = uuidv7()
  return made(orderTarget(ORDER_API, id, deps.checkUrl), id)
}

const targetOf = async (id: string) => (await consumerById(database.database.db, id))?.target

test('consumers of orders follow the URL and the secret, and lose a secret that is no more; others stay', async () => {
  const { db } = database.database
  const id = await madeForOrders()
  const before = await targetOf(id)
  const other = await made({ type: 'http', url: URL, fields: { consumerId: 'somebody', secret_key: 'hush' } })
  const untouched = await targetOf(other)

  expect(await followOrderApi(db, ORDER_API, deps)).toBe(0)
  expect(await followOrderApi(db, { url: MOVED, secret: new Secret('new') }, deps)).toBe(1)
  expect(await targetOf(id)).toEqual({
    ...before,
    url: MOVED,
    fields: { consumerId: id, secret_key: 'new' },
  } as ConsumerTarget)
  expect(await followOrderApi(db, { url: undefined, secret: new Secret('newer') }, deps)).toBe(1)
  expect(await targetOf(id)).toMatchObject({ url: MOVED, fields: { secret_key: 'newer' } })
  expect(await followOrderApi(db, { url: URL, secret: undefined }, deps)).toBe(1)
  expect(await targetOf(id)).toEqual({ ...before, fields: { consumerId: id } } as ConsumerTarget)
  expect(await targetOf(other)).toEqual(untouched as ConsumerTarget)
  expect(warned).toEqual([])
})

test('a URL that cannot be delivered to is told in the log, and takes no secret anywhere; where nothing is set, all stays', async () => {
  const { db } = database.database
  const id = await madeForOrders()
  const before = (await targetOf(id)) as ConsumerTarget
  const refused = { url: 'http://169.254.169.254/', secret: new Secret('new') }
  expect(await followOrderApi(db, refused, deps)).toBe(0)
  expect(warned).toMatchObject([{ event: 'order-url-refused' }])
  expect(await followOrderApi(db, { url: undefined, secret: undefined }, deps)).toBe(0)
  expect(await targetOf(id)).toEqual(before)
})
