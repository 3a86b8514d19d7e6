import { expect, test } from 'bun:test'
import { affinityOf, type Target, withoutSecret } from '../../../src/task/target/target.ts'

test('a target is shown without its secret and without the credentials in its headers and fields', () => {
  const target = {
    type: 'http' as const,
    url: 'https://api.example.com/hook',
    headers: { Authorization: 'Bearer abc', 'X-Api-Key': 'abc', cookie: 'a=b', accept: 'text/plain' },
    fields: { secret_key: 'abc', client_id: '7' },
    secret: 'a secret of 16 and more',
  }
  expect(withoutSecret(target)).toEqual({
    type: 'http',
    url: 'https://api.example.com/hook',
    headers: { Authorization: '[secret]', 'X-Api-Key': '[secret]', cookie: '[secret]', accept: 'text/plain' },
    fields: { secret_key: '[secret]', client_id: '7' },
    secret: '[secret]',
  })
})

test('a target that has nothing to hide is shown as it is', () => {
  const plain = { type: 'http' as const, url: 'https://api.example.com/hook' }
  expect(withoutSecret(plain)).toEqual(plain)
  expect(withoutSecret({ type: 'noop', delay: '1s' })).toEqual({ type: 'noop', delay: '1s' })
  const message = { type: 'publish' as const, routingKey: 'mails' }
  expect(withoutSecret(message)).toEqual(message)
  expect(withoutSecret({ ...message, headers: { 'api-key': 'abc', a: 'b' } })).toEqual({
    ...message,
    headers: { 'api-key': '[secret]', a: 'b' },
  })
})

test('tasks of one table and of one file have one affinity, and those of others none', () => {
  const targets: Target[] = [
    { type: 'table', table: 'orders' },
    { type: 'table', table: 'sales.orders' },
    { type: 'csv', path: 'orders.csv' },
    { type: 'csv', path: 'orders.csv', header: false, columns: ['a'] },
    { type: 'publish', routingKey: 'orders' },
    { type: 'noop' },
  ]
  const affinities = ['table:orders', 'table:sales.orders', 'csv:orders.csv', 'csv:orders.csv', null, null]
  expect(targets.map((target) => affinityOf(target))).toEqual(affinities)
})
