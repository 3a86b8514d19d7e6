import { afterEach, expect, test } from 'bun:test'
import { connect } from 'node:net'
import { pino } from 'pino'
import { type HttpServer, type ServeOptions, serve } from '../../src/runtime/serve.ts'
import { until } from '../support/until.ts'

const log = pino({ level: 'silent' })
const running: HttpServer[] = []
afterEach(async () => {
  for (const server of running.splice(0)) await server.stop(0)
})

function listen(fetch: ServeOptions['fetch'], port = 0): HttpServer {
  const server = serve({ fetch, host: '127.0.0.1', port, log })
  running.push(server)
  return server
}

test('the handler gets the request and the address of its caller', async () => {
  const server = listen(async (request, peer) => Response.json({ peer, body: await request.text() }))
  expect(server.url).toBe(`http://127.0.0.1:${server.port}`)
  const answer = await fetch(`${server.url}/x`, { method: 'POST', body: 'hello' })
  expect(await answer.json()).toEqual({ peer: '127.0.0.1', body: 'hello' })
})

test('a taken port is an error that says what to do', () => {
  const { port } = listen(() => new Response())
  expect(() => listen(() => new Response(), port)).toThrow(
    `Cannot listen on http://127.0.0.1:${port}: the port is taken (is another Longshore running? PORT chooses another)`,
  )
})

test('stop lets a request in hand end, and takes no other', async () => {
  let release = () => {}
  const server = listen(
    () =>
      new Promise((resolve) => {
        release = () => resolve(new Response('done'))
      }),
  )
  const before = release
  const answer = fetch(server.url)
  await until(() => release !== before, { what: 'the request to arrive' })
  const stopped = server.stop(10_000)
  await until(() => refused(server.port), { what: 'new connections to be refused' })
  release()
  expect(await (await answer).text()).toBe('done')
  await stopped
})

test('stop cuts a request that does not end before the deadline', async () => {
  let arrived = false
  const server = listen(() => {
    arrived = true
    return new Promise(() => {})
  })
  const answer = fetch(server.url).then(
    () => 'answered',
    () => 'cut',
  )
  await until(() => arrived, { what: 'the request to arrive' })
  const startedAt = performance.now()
  await server.stop(200)
  expect(performance.now() - startedAt).toBeLessThan(10_000)
  expect(await answer).toBe('cut')
})

test('stop does not wait for connections that are kept open and idle', async () => {
  const server = listen(() => new Response('ok'))
  const socket = connect(server.port, '127.0.0.1')
  let got = ''
  socket.on('data', (data) => {
    got += data
  })
  socket.on('error', () => undefined)
  socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n')
  await until(() => got.endsWith('ok'), { what: 'the answer' })
  const startedAt = performance.now()
  await server.stop(20_000)
  expect(performance.now() - startedAt).toBeLessThan(10_000)
  socket.destroy()
})

test('a handler that throws is a 500 and the server goes on', async () => {
  let calls = 0
  const server = listen(() => {
    if (calls++ === 0) throw new Error('a bug')
    return new Response('ok')
  })
  const first = await fetch(server.url)
  expect([first.status, await first.text()]).toEqual([500, ''])
  expect((await fetch(server.url)).status).toBe(200)
})

function refused(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    socket.on('connect', () => {
      socket.destroy()
      resolve(false)
    })
    socket.on('error', () => resolve(true))
  })
}
