import { afterAll, beforeAll, expect, test } from 'bun:test'
import { connect } from 'node:net'
import { pino } from 'pino'
import { type HttpServer, serve } from '../../src/runtime/serve.ts'
import { until } from '../support/until.ts'
import { type ApiUnderTest, apiUnderTest } from './api-under-test.ts'

let api: ApiUnderTest
let server: HttpServer
beforeAll(async () => {
  api = await apiUnderTest('embedded')
  server = serve({ fetch: api.api.fetch, host: '127.0.0.1', port: 0, log: pino({ level: 'silent' }) })
}, 60_000)
afterAll(async () => {
  await server.stop(0)
  await api.close()
})

const authorization = () => ({ authorization: `Bearer ${api.keys.admin}` })

/** What the server says to raw bytes, until it has said `enough`. */
async function raw(send: (write: (data: string) => void) => void, enough: RegExp): Promise<string> {
  const socket = connect(server.port, '127.0.0.1')
  let said = ''
  socket.on('data', (data) => {
    said += data
  })
  socket.on('error', () => undefined)
  send((data) => socket.write(data))
  try {
    await until(() => enough.test(said), { what: `${enough} from the server` })
    return said
  } finally {
    socket.destroy()
  }
}

test('a queue and its consumer are made and read over a real connection, on embedded Postgres', async () => {
  const headers = { ...authorization(), 'content-type': 'application/json' }
  const queue = await fetch(`${server.url}/api/v1/queues/emails`, { method: 'PUT', headers, body: '{}' })
  expect(queue.status).toBe(201)
  const body = JSON.stringify({ queue: 'emails', target: { type: 'noop' } })
  const consumer = await fetch(`${server.url}/api/v1/consumers`, { method: 'POST', headers, body })
  expect(consumer.status).toBe(201)
  const read = await fetch(`${server.url}${consumer.headers.get('location')}`, { headers })
  expect(await read.json()).toEqual(await consumer.json())
  for (const path of ['nodes', 'accounting', 'keys', 'queues/emails/messages']) {
    expect([path, (await fetch(`${server.url}/api/v1/${path}`, { headers })).status]).toEqual([path, 200])
  }
})

test('HEAD says how long the answer to GET would be and sends none of it', async () => {
  const answer = await fetch(`${server.url}/openapi.json`, { method: 'HEAD', headers: authorization() })
  expect([answer.status, await answer.text()]).toEqual([200, ''])
})

test('a chunked body without a length is refused while it is still coming', async () => {
  const said = await raw((write) => {
    write(`PUT /api/v1/queues/big HTTP/1.1\r\nHost: x\r\nAuthorization: ${authorization().authorization}\r\n`)
    write('Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n')
    // Never ended: an answer can only come from counting.
    for (let i = 0; i < 8; i++) write(`10000\r\n${' '.repeat(0x10000)}\r\n`)
  }, /too-large/)
  expect(said).toStartWith('HTTP/1.1 413')
})

test('an announced length over the limit is refused before the body', async () => {
  const said = await raw((write) => {
    write(`PUT /api/v1/queues/big HTTP/1.1\r\nHost: x\r\nAuthorization: ${authorization().authorization}\r\n`)
    write('Content-Type: application/json\r\nContent-Length: 99999999\r\n\r\n')
  }, /too-large/)
  expect(said).toStartWith('HTTP/1.1 413')
})

test('an anonymous caller with a huge body gets 401', async () => {
  const said = await raw((write) => {
    write(
      'PUT /api/v1/queues/big HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99999999\r\n\r\n',
    )
  }, /unauthenticated/)
  expect(said).toStartWith('HTTP/1.1 401')
})

test('a short or missing host name is served like any other', async () => {
  for (const host of ['a', 'x:1', 'localhost']) {
    const said = await raw((write) => write(`GET /health/live HTTP/1.1\r\nHost: ${host}\r\n\r\n`), /"status":"ok"/)
    expect(said).toStartWith('HTTP/1.1 200')
  }
})

test('the log of a failed request names its caller', async () => {
  const broken = await apiUnderTest('server', { purge: () => Promise.reject(new Error('a bug')) })
  const other = serve({ fetch: broken.api.fetch, host: '127.0.0.1', port: 0, log: pino({ level: 'silent' }) })
  try {
    const headers = { authorization: `Bearer ${broken.keys.admin}`, 'content-type': 'application/json' }
    await fetch(`${other.url}/api/v1/queues/q`, { method: 'PUT', headers, body: '{}' })
    const answer = await fetch(`${other.url}/api/v1/queues/q/purge`, {
      method: 'POST',
      headers,
      body: '{"confirm":"q"}',
    })
    expect(answer.status).toBe(500)
    expect(JSON.parse(broken.logged[0] ?? '{}')).toMatchObject({ peer: '127.0.0.1', path: '/api/v1/queues/q/purge' })
  } finally {
    await other.stop(0)
    await broken.close()
  }
})
