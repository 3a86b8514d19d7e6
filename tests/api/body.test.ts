import { describe, expect, test } from 'bun:test'
import { checkEnvelope, memberText } from '../../src/api/body.ts'
import type { Problem } from '../../src/runtime/errors.ts'
import { LIMITS } from '../../src/task/limits.ts'

function refusalOf(read: () => unknown) {
  try {
    read()
  } catch (error) {
    const { code, errors } = error as Problem
    return { code, errors }
  }
  return undefined
}

const nested = (levels: number) => `{"body":${'['.repeat(levels)}${']'.repeat(levels)}}`

describe('the text of a member', () => {
  test('is the very text, without the space around it', () => {
    expect(memberText('{ "id": 1, "body" : {"big": 12345678901234567890.0 } }', 'body')).toBe(
      '{"big": 12345678901234567890.0 }',
    )
    expect(memberText('{"b\\u006fdy":null}', 'body')).toBe('null')
  })

  test('is undefined without it, and where there are no members', () => {
    expect(memberText('{"id":1}', 'body')).toBeUndefined()
    expect(memberText('["body"]', 'body')).toBeUndefined()
  })

  test('is refused when any name stands there twice', () => {
    const message = 'stands in the object more than once'
    for (const [text, path] of [
      ['{"body":1,"body":2}', '/body'],
      ['{"body":1,"id":1,"\\u0069d":2}', '/id'],
    ] as const) {
      expect(refusalOf(() => memberText(text, 'body'))).toEqual({ code: 'validation', errors: [{ path, message }] })
    }
  })
})

test('a body may be one level deeper than the value in it, and holds nothing that cannot be stored', () => {
  expect(refusalOf(() => checkEnvelope(nested(LIMITS.jsonDepth)))).toBeUndefined()
  expect(refusalOf(() => checkEnvelope(nested(LIMITS.jsonDepth + 1)))).toMatchObject({ code: 'validation' })
  expect(refusalOf(() => checkEnvelope('{"body":["\\u0000"]}'))).toMatchObject({
    code: 'validation',
    errors: [{ path: '/body/0' }],
  })
})
