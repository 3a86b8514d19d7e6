import { describe, expect, test } from 'bun:test'
import { checked } from '../../src/api/validation.ts'
import { Problem } from '../../src/runtime/errors.ts'
import { parseTime } from '../../src/submit/parse-time.ts'
import { readSubmission, type SubmissionRules } from '../../src/submit/validate.ts'
import { readSubmissionLines, readSubmissions } from '../../src/submit/validate-batch.ts'

const rules: SubmissionRules = {
  check: checked,
  handlerNames: () => ['known'],
  checkUrl: (url) => (url.includes('169.254') ? 'it is a metadata address' : undefined),
}
const HTTP = '"target":{"type":"http","url":"https://example.com/hook"}'
const read = (text: string, operate = true) => readSubmission(text, rules, { operate })

function problemOf(run: () => unknown): Problem {
  try {
    run()
  } catch (error) {
    if (error instanceof Problem) return error
    throw error
  }
  throw new Error('nothing was refused')
}
const refusal = (text: string, operate = true) => {
  const { code, errors } = problemOf(() => read(text, operate))
  return [code, errors[0]?.path]
}
const nested = (depth: number) => `${'['.repeat(depth)}${']'.repeat(depth)}`

describe('readSubmission', () => {
  test('keeps the payload as its very text and fills in what is missing', () => {
    const task = read(`{ ${HTTP}, "payload" : {"b": 1.0, "a":12345678901234567890} }`)
    expect(task).toMatchObject({
      queue: 'default',
      type: null,
      payload: '{"b": 1.0, "a":12345678901234567890}',
      target: '{"type":"http","url":"https://example.com/hook"}',
      priority: 0,
      dueAt: null,
      delayMs: null,
      maxAttempts: null,
      timeoutMs: null,
      idempotencyKey: null,
      fingerprint: null,
      parentId: null,
      origin: 'api',
    })
    expect(task.id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7/)
  })

  test('an address at an exchange needs no queue and no target, and is part of the fingerprint', () => {
    const sent = (fields: string) => read(`{"payload":1,"idempotencyKey":"k",${fields}}`)
    const task = sent('"exchange":"orders","routingKey":"eu.new"')
    expect(task).toMatchObject({ queue: 'exchange/orders', exchange: 'orders', routingKey: 'eu.new', target: null })
    expect(sent('"exchange":"orders"').routingKey).toBe('')
    expect(sent('"exchange":"orders","routingKey":""').fingerprint).toBe(sent('"exchange":"orders"').fingerprint)
    const other = ['"exchange":"orders"', '"exchange":"others","routingKey":"eu.new"', '"queue":"orders"'].map(sent)
    expect(new Set([task, ...other].map(({ fingerprint }) => fingerprint)).size).toBe(4)
  })

  test('reads every field', () => {
    const parentId = '019B7A3E-5C00-7000-8000-000000000001'
    const task = read(
      `{"queue":"q","type":"t","payload":null,"priority":9,"delay":"15m","maxAttempts":3,"timeout":"30s","idempotencyKey":"k","parentId":"${parentId}"}`,
    )
    expect(task).toMatchObject({
      queue: 'q',
      type: 't',
      payload: 'null',
      target: null,
      priority: 9,
      delayMs: 900_000,
      maxAttempts: 3,
      timeoutMs: 30_000,
      idempotencyKey: 'k',
      parentId: parentId.toLowerCase(),
      origin: 'child',
    })
  })

  const refused: [string, string, string, string | undefined][] = [
    ['an empty body', '', 'malformed-json', undefined],
    ['malformed JSON', '{"payload":', 'malformed-json', undefined],
    ['more than one value', '{"payload":1} 2', 'malformed-json', undefined],
    ['an array', '[]', 'validation', ''],
    ['a missing payload', '{"queue":"q"}', 'validation', '/payload'],
    ['an unknown field', '{"queue":"q","payload":1,"prio":1}', 'validation', '/prio'],
    ['a field named __proto__', '{"queue":"q","payload":1,"__proto__":{}}', 'validation', '/__proto__'],
    ['a field that stands twice', '{"queue":"q","payload":1,"payload":2}', 'validation', '/payload'],
    ['an exchange beside a queue', '{"queue":"q","payload":1,"exchange":"x"}', 'validation', '/queue'],
    ['an exchange without a name', '{"payload":1,"exchange":""}', 'validation', '/exchange'],
    ['a routing key without an exchange', '{"queue":"q","payload":1,"routingKey":"x"}', 'validation', '/routingKey'],
    [
      'a routing key of more bytes than AMQP has room for',
      `{"payload":1,"exchange":"x","routingKey":"${'ü'.repeat(128)}"}`,
      'validation',
      '/routingKey',
    ],
    ['a wrong type', '{"queue":1,"payload":1}', 'validation', '/queue'],
    ['a number written as a string', '{"queue":"q","payload":1,"priority":"5"}', 'validation', '/priority'],
    ['a fraction as priority', '{"queue":"q","payload":1,"priority":1.5}', 'validation', '/priority'],
    ['a priority out of range', '{"queue":"q","payload":1,"priority":10}', 'validation', '/priority'],
    ['null for a field that is optional', '{"queue":"q","payload":1,"type":null}', 'validation', '/type'],
    ['a NUL in the payload', '{"queue":"q","payload":"\\u0000"}', 'validation', '/payload'],
    ['a NUL in a name within the payload', '{"queue":"q","payload":{"\\u0000":1}}', 'validation', '/payload'],
    ['a NUL in a field', '{"queue":"q","payload":1,"type":"\\u0000"}', 'validation', '/type'],
    ['a lone surrogate in the payload', '{"queue":"q","payload":"\\ud800"}', 'validation', '/payload'],
    [
      'a lone surrogate in a field',
      '{"queue":"q","payload":1,"idempotencyKey":"\\udc00"}',
      'validation',
      '/idempotencyKey',
    ],
    ['a number out of range', '{"queue":"q","payload":1e400}', 'validation', '/payload'],
    ['an empty idempotency key', '{"queue":"q","payload":1,"idempotencyKey":""}', 'validation', '/idempotencyKey'],
    ['a parent that is no id', '{"queue":"q","payload":1,"parentId":"x"}', 'validation', '/parentId'],
    ['no attempts', '{"queue":"q","payload":1,"maxAttempts":0}', 'validation', '/maxAttempts'],
    [
      'dueAt beside delay',
      '{"queue":"q","payload":1,"dueAt":"2026-01-01T00:00:00Z","delay":"1s"}',
      'validation',
      '/delay',
    ],
    ['a delay that is none', '{"queue":"q","payload":1,"delay":"soon"}', 'validation', '/delay'],
    ['a delay over ten years', '{"queue":"q","payload":1,"delay":"3651d"}', 'validation', '/delay'],
    ['dueAt over ten years ahead', '{"queue":"q","payload":1,"dueAt":"9999-01-01T00:00:00Z"}', 'validation', '/dueAt'],
    ['dueAt without a zone', '{"queue":"q","payload":1,"dueAt":"2026-01-01T00:00:00"}', 'validation', '/dueAt'],
    ['dueAt on a day that is none', '{"queue":"q","payload":1,"dueAt":"2026-02-30T00:00:00Z"}', 'validation', '/dueAt'],
    ['nonsense as dueAt', '{"queue":"q","payload":1,"dueAt":"tomorrow"}', 'validation', '/dueAt'],
    ['no time at all as timeout', '{"queue":"q","payload":1,"timeout":"0s"}', 'validation', '/timeout'],
    ['a timeout over a week', '{"queue":"q","payload":1,"timeout":"8d"}', 'validation', '/timeout'],
    ['no target on the queue default', '{"payload":1}', 'unknown-target', '/target'],
    ['an unknown kind of target', '{"payload":1,"target":{"type":"smoke"}}', 'validation', '/target'],
    ['a target with an unknown field', '{"payload":1,"target":{"type":"noop","x":1}}', 'validation', '/target/x'],
    [
      'a header name that would break the request in two',
      '{"payload":1,"target":{"type":"http","url":"https://example.com","headers":{"x: 1\\r\\ny":"a"}}}',
      'validation',
      '/target/headers/x: 1\r\ny',
    ],
    [
      'a form field whose name holds a line break and whose value is no text',
      '{"payload":1,"target":{"type":"http","url":"https://example.com","format":"form","fields":{"a\\nb":{}}}}',
      'validation',
      '/target/fields/a\nb',
    ],
    [
      'an unknown handler',
      '{"payload":1,"target":{"type":"handler","name":"nobody"}}',
      'unknown-handler',
      '/target/name',
    ],
    [
      'a URL that is not allowed',
      '{"payload":1,"target":{"type":"http","url":"http://169.254.169.254/"}}',
      'unknown-target',
      '/target/url',
    ],
    [
      'a header that Longshore sets',
      '{"payload":1,"target":{"type":"http","url":"https://example.com","headers":{"Host":"x"}}}',
      'validation',
      '/target/headers/Host',
    ],
    [
      'form fields beside JSON',
      '{"payload":1,"target":{"type":"http","url":"https://example.com","fields":{"a":"b"}}}',
      'validation',
      '/target/fields',
    ],
    [
      'names for a form beside JSON',
      '{"payload":1,"target":{"type":"http","url":"https://example.com","rename":{"a":"b"}}}',
      'validation',
      '/target/rename',
    ],
    [
      'a delay that ends before it begins',
      '{"payload":1,"target":{"type":"noop","delay":{"min":"8s","max":"1s"}}}',
      'validation',
      '/target/delay/max',
    ],
    ['a delay that is none', '{"payload":1,"target":{"type":"noop","delay":"soon"}}', 'validation', '/target/delay'],
    [
      'a secret that is not what its prefix says',
      '{"payload":1,"target":{"type":"http","url":"https://example.com","secret":"whsec_not base64 at all"}}',
      'validation',
      '/target/secret',
    ],
    ['a payload that nests too deep', `{"queue":"q","payload":${nested(65)}}`, 'validation', '/payload'],
    ['a nesting bomb', `{"queue":"q","payload":${nested(200_000)}}`, 'validation', '/payload'],
  ]
  for (const [name, text, code, path] of refused) {
    test(`refuses ${name}`, () => {
      const [gotCode, gotPath] = refusal(text)
      expect(gotCode).toBe(code as never)
      if (path !== undefined) expect(gotPath?.startsWith(path)).toBe(true)
    })
  }

  test('takes a payload nested 64 levels deep, and one of exactly 1 MiB, and refuses a byte more', () => {
    expect(read(`{"queue":"q","payload":${nested(64)}}`).payload).toBe(nested(64))
    const full = `"${'é'.repeat((1024 * 1024 - 2) / 2)}"`
    expect(Buffer.byteLength(read(`{"queue":"q","payload":${full}}`).payload)).toBe(1024 * 1024)
    expect(refusal(`{"queue":"q","payload":"x${full.slice(1)}}`)).toEqual(['too-large', '/payload'])
  })

  test('a target other than http needs the scope operate', () => {
    expect(refusal('{"payload":1,"target":{"type":"noop"}}', false)).toEqual(['forbidden', '/target/type'])
    expect(read(`{"payload":1,${HTTP}}`, false).target).toContain('http')
    expect(read('{"payload":1,"target":{"type":"handler","name":"known"}}').target).toBe(
      '{"type":"handler","name":"known"}',
    )
  })

  test('a past or very old dueAt is taken', () => {
    expect(read('{"queue":"q","payload":1,"dueAt":"2020-02-29T23:59:59.5+02:00"}').dueAt).toBe(
      '2020-02-29T21:59:59.500Z',
    )
    expect(read('{"queue":"q","payload":1,"dueAt":"0000-01-01T00:00:00Z"}').dueAt).toBe('1970-01-01T00:00:00.000Z')
  })

  test('the fingerprint goes by meaning, and the payload by its text', () => {
    const print = (text: string) => read(`{"queue":"q","idempotencyKey":"k",${text}}`).fingerprint
    expect(print('"payload":1,"delay":"60s"')).toBe(print('"delay":"1m","payload":1'))
    expect(print('"payload":1,"target":{"type":"noop","delay":"1s"}')).toBe(
      print('"payload":1,"target":{"delay":"1s","type":"noop"}'),
    )
    expect(print('"payload":1')).not.toBe(print('"payload":1.0'))
    expect(print('"payload":1')).not.toBe(print('"payload":1,"priority":1'))
  })
})

describe('batches', () => {
  const batch = (text: string) => readSubmissions(text, rules, { operate: true })

  test('an array keeps order and payload texts', () => {
    expect(
      batch('[{"queue":"q","payload":1.0}, {"queue":"q","payload":{"a" :2}}]').map(({ payload }) => payload),
    ).toEqual(['1.0', '{"a" :2}'])
  })

  test('lines are read one by one, empty ones are passed over', () => {
    const lines = readSubmissionLines('{"queue":"q","payload":1}\r\n\n{"queue":"q","payload":2}\n', rules, {
      operate: true,
    })
    expect(lines.map(({ payload }) => payload)).toEqual(['1', '2'])
  })

  test('every wrong task is named by its place', () => {
    const problem = problemOf(() => batch('[{"queue":"q","payload":1},{"queue":1,"payload":1},{"queue":"q"}]'))
    expect(problem.code).toBe('validation')
    expect(problem.errors.map(({ path }) => path)).toEqual(['/1/queue', '/2/payload'])
    const lines = problemOf(() => readSubmissionLines('{"queue":"q","payload":1}\n{"queue"', rules, { operate: true }))
    expect([lines.code, lines.errors[0]?.path]).toEqual(['malformed-json', '/1'])
  })

  test('refuses no tasks, too many tasks, and what is no array', () => {
    expect(problemOf(() => batch('[]')).code).toBe('validation')
    expect(problemOf(() => batch('{}')).code).toBe('validation')
    expect(problemOf(() => batch(`[${Array(10_001).fill('{"queue":"q","payload":1}').join(',')}]`)).code).toBe(
      'too-large',
    )
  })
})

describe('parseTime', () => {
  test('takes RFC 3339 only', () => {
    expect(parseTime('2026-01-01T00:00:00Z')).toBe(Date.UTC(2026, 0, 1))
    expect(parseTime('2026-01-01t01:30:00.123456+01:30')).toBe(Date.UTC(2026, 0, 1) + 123)
    expect(parseTime('2026-01-01T00:00:00-00:30')).toBe(Date.UTC(2026, 0, 1, 0, 30))
    for (const text of [
      '2026-01-01',
      '2026-01-01T24:00:00Z',
      '2026-13-01T00:00:00Z',
      '2026-01-01T00:00:60Z',
      '2026-01-01T00:00:00+24:00',
      '2025-02-29T00:00:00Z',
      ' 2026-01-01T00:00:00Z',
      '1767225600',
      '',
    ]) {
      expect(parseTime(text)).toBeUndefined()
    }
  })
})
