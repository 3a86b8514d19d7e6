import { expect, test } from 'bun:test'
import { checked } from '../../src/api/validation.ts'
import { Problem } from '../../src/runtime/errors.ts'
import { checkTarget, type TargetChecks } from '../../src/submit/target-check.ts'
import { ConsumerTargetSchema } from '../../src/task/target/target.ts'

const checks: TargetChecks = {
  handlerNames: () => [],
  checkUrl: () => undefined,
  tables: { schema: 'data', onlySchema: true },
}

/** The places that are refused, and why. */
function refusal(target: unknown, with_: TargetChecks = checks): string[] | undefined {
  try {
    checkTarget(checked(ConsumerTargetSchema, target), with_)
    return undefined
  } catch (error) {
    if (!(error instanceof Problem)) throw error
    return error.errors.map(({ path, message }) => `${path} ${message}`)
  }
}

test.each([
  { type: 'table', table: 'orders' },
  {
    type: 'table',
    table: 'data.orders',
    columns: { a: '/a', b: { path: '/b/0', default: null }, c: { value: 1 }, all: '' },
  },
  { type: 'csv', path: 'shop/orders.csv' },
  { type: 'csv', path: 'orders.csv', columns: ['id', { name: 'who', path: '/customer/name' }], header: false },
  { type: 'csv', path: 'orders.csv', delimiter: ';', guardFormulas: true, rotate: { size: 1_024, every: 'day' } },
  { type: 'publish', routingKey: 'mails' },
  { type: 'publish', exchange: 'orders', routingKey: '', headers: { 'x-source': 'longshore' } },
])('%j is a target', (target) => expect(refusal(target)).toBeUndefined())

test.each<[unknown, string]>([
  [{ type: 'table', table: 'public.tasks' }, '/target/table "public.tasks" may not be written'],
  [{ type: 'table', table: 'a"b' }, '/target/table "a"b" is none'],
  [{ type: 'table', table: 'orders', columns: {} }, '/columns must have at least 1 field'],
  [{ type: 'table', table: 'orders', columns: { a: 'no pointer' } }, '/columns/a'],
  [{ type: 'table', table: 'orders', colums: {} }, '/colums is not a known field'],
  [{ type: 'csv', path: '../orders.csv' }, '/target/path must lie below DATA_DIR/out'],
  [{ type: 'csv', path: 'orders.3.csv' }, '/target/path is named like a file that is made by rotation'],
  [{ type: 'csv', path: 'orders.csv', header: false }, '/target/columns are needed without a header'],
  [{ type: 'csv', path: 'orders.csv', columns: ['a', { name: 'a', path: '/b' }] }, '/target/columns name "a" twice'],
  [{ type: 'csv', path: 'orders.csv', rotate: {} }, '/rotate must have at least 1 field'],
  [{ type: 'csv', path: 'orders.csv', rotate: { size: 10 } }, '/rotate/size must be at least 1024'],
  [
    { type: 'publish', routingKey: 'a', headers: { 'X-Longshore-Task': 'x' } },
    '/target/headers/X-Longshore-Task is set by Longshore',
  ],
  [{ type: 'publish' }, '/routingKey is required'],
])('%j is refused by its place', (target, message) => {
  expect(refusal(target)).toEqual([expect.stringContaining(message)])
})

test('a node that does not know which tables may be written leaves it to the target', () => {
  const { tables: _, ...without } = checks
  expect(refusal({ type: 'table', table: 'public.tasks' }, without)).toBeUndefined()
})
