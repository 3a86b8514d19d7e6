import { expect, test } from 'bun:test'
import { withoutSecret } from '../../src/task/target.ts'

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
})
