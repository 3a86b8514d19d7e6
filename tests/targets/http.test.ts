import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import { Webhook } from 'standardwebhooks'
import manifest from '../../package.json'
import { type Sink, type SinkRequest, startSink } from '../support/sink.ts'
import { attemptHttp, httpTarget, TASK_ID } from './http-attempt.ts'

let sink: Sink
beforeAll(async () => {
  sink = await startSink()
})
afterAll(() => sink.close())
beforeEach(() => {
  sink.requests.length = 0
  sink.reply = () => ({})
})
const received = (): SinkRequest => {
  const [request] = sink.requests
  if (!request || sink.requests.length !== 1) throw new Error(`the sink got ${sink.requests.length} requests, not one`)
  return request
}

describe('the request', () => {
  test('carries the payload as it was submitted, and who sends it', async () => {
    const payload = '{"b": 1.0, "a":12345678901234567890, "ü":"€"}'
    const outcome = await attemptHttp({ url: sink.url('/hook?x=1') }, { payload, attempt: 3 })
    expect(outcome).toEqual({ kind: 'succeeded', response: { status: 200, body: '' } })
    const { method, path, body, headers } = received()
    expect([method, path, body]).toEqual(['POST', '/hook?x=1', payload])
    expect(headers).toMatchObject({
      host: `127.0.0.1:${sink.port}`,
      'content-type': 'application/json',
      'content-length': String(Buffer.byteLength(payload)),
      'user-agent': `longshore/${manifest.version}`,
      'idempotency-key': TASK_ID,
      'webhook-id': TASK_ID,
      'x-longshore-attempt': '3',
    })
    expect(Math.abs(Number(headers['webhook-timestamp']) - Date.now() / 1000)).toBeLessThan(10)
    expect(headers['webhook-signature']).toBeUndefined()
    expect(headers['transfer-encoding']).toBeUndefined()
  })

  test('belongs to one trace per task, with a span of its own per attempt', async () => {
    const run = httpTarget()
    for (const attempt of [1, 2]) await attemptHttp({ url: sink.url() }, { run, attempt })
    const parents = sink.requests.map(({ headers }) => headers.traceparent ?? '')
    for (const parent of parents)
      expect(parent).toMatch(new RegExp(`^00-${TASK_ID.replaceAll('-', '')}-[0-9a-f]{16}-01$`))
    expect(new Set(parents).size).toBe(2)
  })

  test.each(['POST', 'PUT', 'PATCH', 'DELETE'])('%s sends the payload', async (method) => {
    await attemptHttp({ url: sink.url(), method })
    expect(received()).toMatchObject({ method, body: '{"n":1}' })
  })

  test('GET sends no body', async () => {
    await attemptHttp({ url: sink.url(), method: 'GET' })
    const { method, body, headers } = received()
    expect([method, body, headers['content-length'], headers['content-type']]).toEqual([
      'GET',
      '',
      undefined,
      undefined,
    ])
  })

  test('a form holds the top-level fields as they were written, and constant fields win', async () => {
    const payload =
      '{"name":"Ä & B","n":12345678901234567890,"f":1.0,"yes":true,"none":null,"deep":{"a": [1]},"token":"forged"}'
    const outcome = await attemptHttp(
      { url: sink.url(), format: 'form', fields: { token: 't=1', extra: 'x' } },
      { payload },
    )
    expect(outcome.kind).toBe('succeeded')
    const { headers, body } = received()
    expect(headers['content-type']).toBe('application/x-www-form-urlencoded')
    expect(Object.fromEntries(new URLSearchParams(body))).toEqual({
      name: 'Ä & B',
      n: '12345678901234567890',
      f: '1.0',
      yes: 'true',
      none: '',
      deep: '{"a": [1]}',
      token: 't=1',
      extra: 'x',
    })
  })

  test.each(['[1]', '"text"', '7'])('a form cannot be made of %s', async (payload) => {
    const outcome = await attemptHttp({ url: sink.url(), format: 'form' }, { payload })
    expect(outcome).toMatchObject({ kind: 'failed', retryable: false })
    expect(outcome).toHaveProperty('error', expect.stringContaining('a payload that is a JSON object'))
    expect(sink.requests).toEqual([])
  })

  test("takes the target's own headers, which may replace the defaults", async () => {
    const headers = { Authorization: 'Bearer x', 'Content-Type': 'application/vnd.api+json', 'User-Agent': 'mine' }
    await attemptHttp({ url: sink.url(), headers: { ...headers, 'Idempotency-Key': 'mine-too' } })
    expect(received().headers).toMatchObject({
      authorization: 'Bearer x',
      'content-type': 'application/vnd.api+json',
      'user-agent': 'mine',
      'idempotency-key': 'mine-too',
    })
  })

  test.each([
    'Host',
    'content-length',
    'Transfer-Encoding',
    'connection',
    'Webhook-Id',
    'webhook-signature',
    'X-Longshore-Attempt',
    'Upgrade',
    'expect',
    'TE',
  ])('refuses a target that sets the header %s', async (name) => {
    const outcome = await attemptHttp({ url: sink.url(), headers: { [name]: '1' } })
    expect(outcome).toMatchObject({ kind: 'failed', retryable: false })
    expect(outcome).toHaveProperty('error', expect.stringContaining(`the header "${name}" is set by Longshore`))
    expect(sink.requests).toEqual([])
  })

  test('a header that would break the line is not sent', async () => {
    const outcome = await attemptHttp({ url: sink.url(), headers: { 'x-a': '1\r\nx-b: 2' } })
    expect(outcome).toMatchObject({ kind: 'failed', retryable: false })
    expect(sink.requests).toEqual([])
  })
})

describe('the signature', () => {
  const base64 = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'
  const verify = (webhook: Webhook) => webhook.verify(received().body, received().headers)

  test('is accepted by the official library, for a whsec_ secret and for a plain one', async () => {
    const payload = '{"b": 1.0, "ü":"€"}'
    await attemptHttp({ url: sink.url(), secret: base64 }, { payload })
    expect(verify(new Webhook(base64))).toEqual({ b: 1, ü: '€' })
    expect(() => verify(new Webhook('whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA'))).toThrow()

    sink.requests.length = 0
    await attemptHttp({ url: sink.url(), secret: 'a plain secret text' }, { payload })
    verify(new Webhook('a plain secret text', { format: 'raw' }))
  })

  test('while rotating is accepted by holders of either secret', async () => {
    await attemptHttp({ url: sink.url(), secret: [base64, 'the older secret'] })
    expect(received().headers['webhook-signature']?.split(' ')).toHaveLength(2)
    verify(new Webhook(base64))
    verify(new Webhook('the older secret', { format: 'raw' }))
  })

  test('covers the form as it is sent', async () => {
    await attemptHttp({ url: sink.url(), secret: base64, format: 'form' })
    const { body, headers } = received()
    expect(body).toBe('n=1')
    // The library parses what it has verified as JSON: only the parsing may fail.
    expect(() => new Webhook(base64).verify(body, headers)).toThrow(SyntaxError)
  })

  test('a secret that is not base64 behind whsec_ fails the task for good', async () => {
    const outcome = await attemptHttp({ url: sink.url(), secret: 'whsec_not*base64*at*all' })
    expect(outcome).toMatchObject({ kind: 'failed', retryable: false })
    expect(JSON.stringify(outcome)).not.toContain('not*base64')
  })
})

describe('the outcome', () => {
  const answering = (status: number, headers: Record<string, string> = {}, body = 'said') => {
    sink.reply = () => ({ status, headers, body })
    return attemptHttp({ url: sink.url('/hook?key=secret') })
  }

  test.each([200, 201, 202, 299])('%i succeeds and keeps the response', async (status) => {
    expect(await answering(status)).toEqual({ kind: 'succeeded', response: { status, body: 'said' } })
  })

  test('204 succeeds with an empty response', async () => {
    expect(await answering(204, {}, '')).toEqual({ kind: 'succeeded', response: { status: 204, body: '' } })
  })

  test.each([408, 425, 429, 500, 502, 503, 504, 599])('%i is tried again', async (status) => {
    const outcome = await answering(status)
    expect(outcome).toMatchObject({ kind: 'failed', retryable: true, response: { status, body: 'said' } })
    expect(outcome).toHaveProperty('retryAfterMs', undefined)
    expect(outcome).toHaveProperty(
      'error',
      expect.stringContaining(`POST http://127.0.0.1:${sink.port}/hook answered ${status}`),
    )
  })

  test.each([300, 304, 400, 401, 403, 404, 409, 410, 413, 422, 451])('%i is dead at once', async (status) => {
    const body = status === 304 ? '' : 'said'
    expect(await answering(status, {}, body)).toMatchObject({
      kind: 'failed',
      retryable: false,
      response: { status, body },
    })
  })

  test.each([301, 302, 303, 307, 308])(
    'a redirect by %i is not followed, and the error says where it leads',
    async (status) => {
      const outcome = await answering(status, { location: `http://u:p@localhost:${sink.port}/else?token=secret#part` })
      expect(outcome).toMatchObject({ kind: 'failed', retryable: false, response: { status } })
      const { error } = outcome as { error: string }
      expect(error).toContain(`a redirect to http://localhost:${sink.port}/else; redirects are not followed`)
      expect(error).not.toContain('secret')
      expect(sink.requests).toHaveLength(1)
    },
  )

  test('a relative redirect is named whole', async () => {
    expect(await answering(302, { location: '../login?x' })).toHaveProperty(
      'error',
      expect.stringContaining(`a redirect to http://127.0.0.1:${sink.port}/login;`),
    )
  })

  test("the target's own success list replaces 200 to 299", async () => {
    sink.reply = ({ path }) => ({ status: Number(path.slice(1)) })
    const kinds = await Promise.all(
      [302, 404, 503, 200].map(async (status) => {
        const outcome = await attemptHttp({ url: sink.url(`/${status}`), success: [302, 404, 503] })
        return outcome.kind
      }),
    )
    expect(kinds).toEqual(['succeeded', 'succeeded', 'succeeded', 'failed'])
  })

  test('informational responses are passed over', async () => {
    sink.reply = () => (response) => {
      response.writeProcessing()
      response.writeEarlyHints({ link: '</a.css>; rel=preload' })
      response.writeHead(201).end('done')
    }
    expect(await attemptHttp({ url: sink.url() })).toEqual({
      kind: 'succeeded',
      response: { status: 201, body: 'done' },
    })
  })

  test('an answer that switches protocols is dead at once', async () => {
    sink.reply = () => (_, socket) =>
      socket.write('HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n')
    expect(await attemptHttp({ url: sink.url() })).toMatchObject({
      kind: 'failed',
      retryable: false,
      response: { status: 101 },
    })
  })

  test.each([
    ['seconds', { 'retry-after': '7' }, 7_000],
    [
      'a date, counted from the Date of the response',
      { 'retry-after': 'Wed, 21 Oct 2015 07:28:30 GMT', date: 'Wed, 21 Oct 2015 07:28:00 GMT' },
      30_000,
    ],
    [
      'a date in the past',
      { 'retry-after': 'Wed, 21 Oct 2015 07:27:00 GMT', date: 'Wed, 21 Oct 2015 07:28:00 GMT' },
      undefined,
    ],
    ['zero', { 'retry-after': '0' }, undefined],
    ['a negative number', { 'retry-after': '-5' }, undefined],
    ['a fraction', { 'retry-after': '1.5' }, undefined],
    ['a number with a unit', { 'retry-after': '5s' }, undefined],
    ['a date that does not exist', { 'retry-after': 'Tue, 31 Feb 2040 07:28:00 GMT' }, undefined],
    ['a date in another form', { 'retry-after': '2040-01-01T00:00:00Z' }, undefined],
    ['too many digits', { 'retry-after': '99999999999999' }, undefined],
  ])('Retry-After as %s', async (_, headers, expected) => {
    expect(await answering(503, headers as Record<string, string>)).toHaveProperty('retryAfterMs', expected)
  })

  test('Retry-After as a date counts from now when the response has no Date', async () => {
    sink.reply = () => (response) => {
      response.sendDate = false
      response.writeHead(429, { 'retry-after': new Date(Date.now() + 60_000).toUTCString() }).end()
    }
    const { retryAfterMs = 0 } = (await attemptHttp({ url: sink.url() })) as { retryAfterMs?: number }
    expect(retryAfterMs).toBeGreaterThan(50_000)
    expect(retryAfterMs).toBeLessThanOrEqual(60_000)
  })

  test('Retry-After means nothing beside a status that is not tried again', async () => {
    expect(await answering(404, { 'retry-after': '7' })).not.toHaveProperty('retryAfterMs')
  })
})
