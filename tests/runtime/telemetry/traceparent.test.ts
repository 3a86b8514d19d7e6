import { expect, test } from 'bun:test'
import {
  attemptContext,
  childContext,
  formatTraceparent,
  parseTraceparent,
} from '../../../src/runtime/telemetry/traceparent.ts'

const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736'
const SPAN = '00f067aa0ba902b7'

test('a traceparent is read as W3C says, and what is malformed counts as not sent', () => {
  expect(parseTraceparent(`00-${TRACE}-${SPAN}-01`)).toEqual({ traceId: TRACE, spanId: SPAN, sampled: true })
  expect(parseTraceparent(`00-${TRACE}-${SPAN}-00`)?.sampled).toBe(false)
  expect(parseTraceparent(`cc-${TRACE}-${SPAN}-03-later`)).toEqual({ traceId: TRACE, spanId: SPAN, sampled: true })
  const malformed = [
    ...['', 'nonsense', `00-${TRACE}-${SPAN}`, `00-${TRACE}-${SPAN}-01-more`, `ff-${TRACE}-${SPAN}-01`],
    ...[`00-${TRACE.toUpperCase()}-${SPAN}-01`, `00-${'0'.repeat(32)}-${SPAN}-01`, `00-${TRACE}-${'0'.repeat(16)}-01`],
    ...[` 00-${TRACE}-${SPAN}-01`, `00-${TRACE}-${SPAN}-1`, `01-${TRACE}-${SPAN}-01-${'x'.repeat(600)}`],
  ]
  for (const text of malformed) expect([text, parseTraceparent(text)]).toEqual([text, undefined])
})

test('what follows stays in its trace under a span of its own, and goes by whether its caller records', () => {
  const parent = { traceId: TRACE, spanId: SPAN, sampled: false }
  const child = childContext(parent)
  expect(child).toEqual({ traceId: TRACE, spanId: expect.stringMatching(/^[0-9a-f]{16}$/), sampled: false })
  expect(child.spanId).not.toBe(SPAN)
  expect(parseTraceparent(formatTraceparent(child))).toEqual(child)
})

test('an attempt of a task without a trace is found by the id of its task', () => {
  const id = '019B7A3E-5c00-7000-8000-000000000001'
  expect(attemptContext(id, 'nonsense')).toMatchObject({ traceId: '019b7a3e5c0070008000000000000001', sampled: true })
  expect(attemptContext(id, `00-${TRACE}-${SPAN}-01`)?.traceId).toBe(TRACE)
  expect(attemptContext('no uuid', null)).toBeUndefined()
})
