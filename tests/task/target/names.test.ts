import { expect, test } from 'bun:test'
import { csvPathRefusal, readTableName } from '../../../src/task/target/names.ts'

const OWN = { schema: 'data', onlySchema: true }
const ANY = { schema: 'public', onlySchema: false }

test('a table without a schema lies in the one that the rules name', () => {
  expect(readTableName('orders', OWN)).toEqual({ schema: 'data', table: 'orders' })
  expect(readTableName('data.orders', OWN)).toEqual({ schema: 'data', table: 'orders' })
  expect(readTableName('orders', ANY)).toEqual({ schema: 'public', table: 'orders' })
  expect(readTableName('Sales Data.Big Orders', ANY)).toEqual({ schema: 'Sales Data', table: 'Big Orders' })
})

test.each(['public.tasks', 'pg_catalog.pg_class', 'Data.orders', 'data.longshore_applied', 'longshore_applied'])(
  'beside the ledger %s may not be written',
  (name) => expect(readTableName(name, OWN)).toMatchObject({ reason: expect.stringContaining('may not be written') }),
)

test.each(['', '.', 'a.', '.a', 'a.b.c', '"a"', 'a"b', 'a\0', 'a\nb', 'x'.repeat(64)])('%j is no table', (name) => {
  expect(readTableName(name, ANY)).toMatchObject({ reason: expect.stringContaining('is none') })
})

test.each(['orders.csv', 'shop/2026/orders.txt', 'Bestellungen März.csv', 'a..b.csv', 'x-2026.csv'])(
  '%s is a path for a csv target',
  (path) => expect(csvPathRefusal(path)).toBeUndefined(),
)

test.each([
  '',
  '/etc/passwd.csv',
  '../out.csv',
  'a/../../out.csv',
  './out.csv',
  'a//b.csv',
  'a/',
  '.hidden.csv',
  'a/.ssh/keys.csv',
  'a\\b.csv',
  'a\0.csv',
  'a\nb.csv',
  'noending',
  'orders.csv.journal',
  'orders.csv.journal.1',
  'orders.2.csv',
  'orders-2026-11-25.csv',
])('%j is none', (path) => expect(csvPathRefusal(path)).toBeString())
