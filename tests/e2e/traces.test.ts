import { expect, test } from 'bun:test'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { startSink } from '../support/sink.ts'
import { until } from '../support/until.ts'
import { install, makeQueue, reached, submit, type Task } from './installation.ts'

const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736'
const CALLER = `00-${TRACE}-00f067aa0ba902b7-01`
const HANDLER = 'export default (_, { task }) => task.traceparent'

interface Span {
  traceId: string
  spanId: string
  parentSpanId?: string
  name: string
  startTimeUnixNano: string
  endTimeUnixNano: string
  status: { code: number }
}

async function withTrace(
  node: { headers(): Record<string, string>; listening: Promise<string> },
  task: object,
  traceparent: string,
) {
  const response = await fetch(`${await node.listening}/api/v1/tasks`, {
    method: 'POST',
    headers: { ...node.headers(), traceparent },
    body: JSON.stringify(task),
  })
  return ((await response.json()) as Task).id
}

test('a caller’s trace goes with the task to its target and its handler, in every attempt, without a collector too', async () => {
  await using home = await install('server')
  await using sink = await startSink({ reply: ({ attempt }) => ({ status: attempt === 1 ? 500 : 200 }) })
  const node = await home.start()
  await writeFile(join(node.handlersDir, 'trace.mjs'), HANDLER)
  await makeQueue(node, 'quick')
  const call = { queue: 'quick', payload: 1, target: { type: 'http', url: sink.url() } }

  await reached(node, await withTrace(node, call, CALLER))
  const sent = sink.requests.map(({ headers }) => headers.traceparent)
  expect(sent).toHaveLength(2)
  for (const one of sent) expect(one).toMatch(new RegExp(`^00-${TRACE}-[0-9a-f]{16}-01$`))
  expect(new Set([...sent, CALLER]).size).toBe(3)

  const handled = { ...call, target: { type: 'handler', name: 'trace' } }
  expect((await reached(node, await withTrace(node, handled, CALLER))).result).toStartWith(`00-${TRACE}-`)
  // Malformed counts as none: the trace is that of the task's id.
  const id = await withTrace(node, handled, '00-nonsense')
  expect((await reached(node, id)).result).toStartWith(`00-${id.replaceAll('-', '')}-`)
  await node.stop()
}, 150_000)

test('spans of submit, attempt and request reach the collector as one trace, and its outage costs nothing but spans', async () => {
  await using home = await install('server')
  await using target = await startSink({ reply: ({ attempt }) => ({ status: attempt === 1 ? 500 : 200 }) })
  await using collector = await startSink()
  const node = await home.start({
    OTEL_EXPORTER_OTLP_ENDPOINT: collector.url('/otlp'),
    OTEL_EXPORTER_OTLP_HEADERS: 'x-key=a%20key',
    OTEL_SERVICE_NAME: 'shore',
  })
  await makeQueue(node, 'quick')
  const call = { queue: 'quick', type: 'mail', payload: 1, target: { type: 'http', url: target.url('/secret-path') } }
  const id = await withTrace(node, call, CALLER)
  await reached(node, id)
  const spans = () =>
    collector.requests.flatMap(({ body }) =>
      (JSON.parse(body) as { resourceSpans: { scopeSpans: { spans: Span[] }[] }[] }).resourceSpans.flatMap((resource) =>
        resource.scopeSpans.flatMap((scope) => scope.spans),
      ),
    )
  await until(() => spans().length >= 5, { what: 'five spans', timeoutMs: 30_000 })
  expect(collector.requests[0]).toMatchObject({ path: '/otlp/v1/traces', headers: { 'x-key': 'a key' } })
  expect(collector.requests[0]?.body).toContain('{"key":"service.name","value":{"stringValue":"shore"}}')
  const named = (name: string) => spans().filter((span) => span.name.startsWith(name))
  const [submitted] = named('submit')
  expect(submitted).toMatchObject({ traceId: TRACE, parentSpanId: '00f067aa0ba902b7' })
  const attempts = named('attempt quick')
  expect(attempts.map(({ status }) => status.code)).toEqual([2, 0])
  for (const attempt of attempts) {
    expect(attempt).toMatchObject({ traceId: TRACE, parentSpanId: submitted?.spanId as string })
    expect(BigInt(attempt.endTimeUnixNano)).toBeGreaterThanOrEqual(BigInt(attempt.startTimeUnixNano))
  }
  const requests = named('http request POST')
  expect(requests.map(({ parentSpanId }) => parentSpanId)).toEqual(attempts.map(({ spanId }) => spanId))
  expect(target.requests.map(({ headers }) => headers.traceparent)).toEqual(
    requests.map(({ traceId, spanId }) => `00-${traceId}-${spanId}-01`),
  )

  const before = spans().length
  await reached(node, await withTrace(node, call, `00-${TRACE}-00f067aa0ba902b7-00`))
  await collector.close()
  await reached(node, await submit(node, call))
  await until(() => node.logged('spans-lost').length === 1, {
    what: 'the outage to be logged once',
    timeoutMs: 30_000,
  })
  expect(spans().length).toBe(before)
  await node.stop()
}, 150_000)
