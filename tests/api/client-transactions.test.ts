import { afterAll, beforeAll, beforeEach, expect, test } from 'bun:test'
import { connect } from 'node:net'
import { type ClientTransactionDeps, clientTransactionRoutes } from '../../src/api/compat/client-transactions.ts'
import { type HttpServer, serve } from '../../src/runtime/serve.ts'
import {
  CLIENT_TRANSACTIONS,
  insertClientTransaction,
  listClientTransactions,
} from '../../src/store/client-transactions.ts'
import { ensureDataTable } from '../../src/store/data-table.ts'
import { type TestDatabase, testDatabase } from '../support/database.ts'
import { silent } from '../support/services.ts'
import { until } from '../support/until.ts'
import { type ApiUnderTest, apiUnderTest } from './api-under-test.ts'

const PLACE = { url: undefined, schema: 'data' }
const ROW = { client_name: 'Ada', transaction_type: 'transfer', amount: '10.5', date: '2026-01-31', status: 'done' }

let database: TestDatabase
let api: ApiUnderTest
let server: HttpServer
let list: ClientTransactionDeps['listTransactions']
let logged: unknown[]
beforeAll(async () => {
  database = await testDatabase('server')
  const { pool } = database.database
  const tell = (line: unknown) => void logged.push(line)
  const deps: ClientTransactionDeps = {
    log: { ...silent, warn: tell, error: tell },
    ensureTransactions: () => ensureDataTable(pool, PLACE, CLIENT_TRANSACTIONS),
    listTransactions: (limit, after) => list(limit, after),
    insertTransaction: (row) => insertClientTransaction(pool, PLACE, row),
  }
  const routes: NonNullable<Parameters<typeof apiUnderTest>[1]>['compat'] = {
    withoutKey: false,
    routes: (access) => [clientTransactionRoutes(access, deps)],
  }
  api = await apiUnderTest('server', { test: database, compat: routes })
  server = serve({ fetch: api.api.fetch, host: '127.0.0.1', port: 0, log: silent })
})
afterAll(async () => {
  await server.stop(0)
  await api.close()
})
beforeEach(async () => {
  logged = []
  list = (limit, after) => listClientTransactions(database.database.pool, PLACE, limit, after)
  await database.database.pool.query('drop schema if exists data cascade')
})

const get = () => fetch(`${server.url}/client/api/list/`, { headers: { authorization: `Bearer ${api.keys.read}` } })
const post = (row: object) => api.call('POST', '/client/api/create/', { json: row })

test('all rows are listed in their order, however many there are', async () => {
  const { pool } = database.database
  expect(await (await get()).json()).toEqual([])
  for (const count of [1, 999, 1, 11_000]) {
    await pool.query(
      `insert into data.client_transaction (client_name, transaction_type, amount, date, status)
       select 'client ' || n, 'transfer', n, '2026-01-31', 'done' from generate_series(1, $1::int) n`,
      [count],
    )
    const { rows } = await pool.query<{ id: number }>('select id from data.client_transaction order by id')
    const listed = (await (await get()).json()) as { id: number }[]
    expect(listed.map(({ id }) => id)).toEqual(rows.map(({ id }) => id))
  }
})

test('a list that cannot be read to its end is cut off, and the log says why', async () => {
  list = async (_, after) => {
    if (after === 'second') throw new Error('the disk is gone')
    return { rows: [{ id: 1, ...ROW }], next: after === undefined ? 'first' : 'second' }
  }
  await expect(get().then((answer) => answer.text())).rejects.toThrow()
  expect(logged[0]).toMatchObject({ event: 'request-failed', path: '/client/api/list/' })
})

test('no more is read than the caller takes', async () => {
  /** How many pages each call has had. */
  const pages: number[] = []
  list = async (_, after) => {
    const call = after === undefined ? pages.push(0) - 1 : Number(after)
    const count = (pages[call] ?? 0) + 1
    pages[call] = count
    await new Promise(setImmediate)
    const row = { id: count, ...ROW, client_name: 'x'.repeat(1_000_000) }
    return { rows: [row], next: count < 100 ? String(call) : undefined }
  }
  const idle = connect(server.port, '127.0.0.1')
  idle.write(
    `GET /client/api/list/ HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${api.keys.read}\r\nConnection: close\r\n\r\n`,
  )
  await until(() => pages[0], { what: 'the first page' })
  expect(await (await get()).json()).toHaveLength(100)
  expect(pages[0]).toBeLessThan(50)
  idle.destroy()
  expect(logged).toEqual([])
})

test('a first page that fails has its status', async () => {
  list = () => Promise.reject(Object.assign(new Error('column "status" does not exist'), { code: '42703' }))
  expect((await get()).status).toBe(409)
})

test('an amount is never rounded, whether it comes as a number or as a text', async () => {
  for (const amount of ['10.559', '1e2', '10.5500', '123456789', '10.550000000000000000001', '-0.001']) {
    for (const text of [amount, `"${amount}"`]) {
      const body = JSON.stringify({ ...ROW, amount: null }).replace('null', text)
      const refused = await api.call('POST', '/client/api/create/', { body })
      expect([text, refused.status, refused.json]).toEqual([text, 400, { errors: { amount: [expect.any(String)] } }])
    }
  }
  for (const amount of [10.55, -0.1, 12345678.99, 7, '7', '-12345678.9']) {
    expect([amount, (await post({ ...ROW, amount })).status]).toEqual([amount, 201])
  }
  const listed = (await (await get()).json()) as { amount: string }[]
  expect(listed.map(({ amount }) => amount)).toEqual(['10.55', '-0.10', '12345678.99', '7.00', '7.00', '-12345678.90'])
})

test('a row that the older table does not take is refused with the reason, and is no failure of ours', async () => {
  await database.database.pool.query(`
    create schema data;
    create type data.state as enum ('done', 'open');
    create table data.client_transaction (
      id serial primary key, client_name varchar(5) not null unique, transaction_type text check (transaction_type <> 'theft'),
      amount numeric(4,2), date date, status data.state, branch text default 'main' not null
    )`)
  expect((await post(ROW)).status).toBe(201)
  for (const [row, field, text] of [
    [{ client_name: 'Ada Lovelace' }, 'non_field_errors', 'too long'],
    [{ client_name: 'Bob', transaction_type: 'theft' }, 'non_field_errors', 'violates check constraint'],
    [{ client_name: 'Bob', status: 'gone' }, 'non_field_errors', 'invalid input value for enum'],
    [{ client_name: 'Bob', amount: '100.25' }, 'amount', 'more digits'],
    [{ client_name: 'Bob', date: '2026-02-30' }, 'date', 'is not a date'],
  ] as const) {
    const { status, json } = await post({ ...ROW, ...row })
    expect([status, json]).toEqual([400, { errors: { [field]: [expect.stringContaining(text)] } }])
  }
  expect(await post(ROW)).toMatchObject({ status: 409, json: { code: 'conflict' } })
  await database.database.pool.query('alter table data.client_transaction alter branch drop default')
  const { status, json } = await post({ ...ROW, client_name: 'Bob' })
  expect([status, json]).toEqual([400, { errors: { branch: [expect.stringContaining('null value')] } }])
  expect(logged).toEqual([])
})
