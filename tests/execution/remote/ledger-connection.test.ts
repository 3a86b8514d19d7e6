import { afterEach, beforeEach, expect, test } from 'bun:test'
import { pino } from 'pino'
import {
  createLedgerConnection,
  isRefusedByLedger,
  type LedgerConnection,
  LedgerUnavailable,
} from '../../../src/execution/remote/ledger-connection.ts'
import { ManualClock } from '../../../src/runtime/clock.ts'
import { type HttpServer, serve } from '../../../src/runtime/serve.ts'
import { silent, turns } from '../../support/services.ts'
import { until } from '../../support/until.ts'

type Answer = (request: Request) => Response | Promise<Response>

const problem = (status: number, code: string, headers: Record<string, string> = {}) =>
  new Response(JSON.stringify({ status, code, detail: `it is ${code}` }), {
    status,
    headers: { 'content-type': 'application/problem+json', ...headers },
  })
const fine: Answer = () => Response.json({ fine: true })

/** Remembers the delays of its timers. */
class AskedClock extends ManualClock {
  readonly asked: number[] = []
  override after(delayMs: number, run: () => void): () => void {
    this.asked.push(delayMs)
    return super.after(delayMs, run)
  }
}

const TIMEOUT_MS = 30_000

let clock: AskedClock
let server: HttpServer
let connection: LedgerConnection
let answer: Answer
let requests: { path: string; authorization: string | null; body: unknown }[]
let logged: { level: number; event: string; error?: string }[]

beforeEach(() => {
  clock = new AskedClock()
  requests = []
  logged = []
  answer = fine
  server = serve({
    host: '127.0.0.1',
    port: 0,
    log: silent,
    async fetch(request) {
      const { pathname } = new URL(request.url)
      requests.push({ path: pathname, authorization: request.headers.get('authorization'), body: await request.json() })
      return answer(request)
    },
  })
  const log = pino({}, { write: (line: string) => void logged.push(JSON.parse(line)) })
  // The shortest of the pauses that chance may choose.
  connection = createLedgerConnection({ url: `${server.url}/`, key: 'ls_k_s', clock, log, random: () => 0 })
})
afterEach(async () => {
  connection.close()
  await server.stop(0)
})

const failure = (work: Promise<unknown>) =>
  work.then(
    () => undefined,
    (error: unknown) => error,
  )

/** How long the next call waits before it goes; it must fail. */
async function pauseBeforeNextCall(): Promise<number> {
  const call = failure(connection.post('/beats', {}))
  await turns()
  // Either the pause, or, for a call that went at once, its time-out.
  const asked = clock.asked.at(-1) ?? 0
  if (asked !== TIMEOUT_MS) clock.advance(asked)
  await call
  return asked === TIMEOUT_MS ? 0 : asked
}

test('a call posts JSON with the key, and gives the answer', async () => {
  expect(await connection.post<object>('/claims', { queue: 'emails', payload: '1.0' })).toEqual({ fine: true })
  expect(requests).toEqual([
    { path: '/api/v1/claims', authorization: 'Bearer ls_k_s', body: { queue: 'emails', payload: '1.0' } },
  ])
})

test('while the server fails, each pause is twice the one before, up to seconds; an answer ends it', async () => {
  answer = () => problem(503, 'overloaded')
  const pauses: number[] = []
  for (let tries = 0; tries < 8; tries++) pauses.push(await pauseBeforeNextCall())
  expect(pauses).toEqual([0, 200, 400, 800, 1_600, 2_500, 2_500, 2_500])
  answer = fine
  const back = connection.post('/beats', {})
  clock.advance(5_000)
  await back
  expect(connection.away()).toBeUndefined()
  expect(logged.map(({ event }) => event)).toEqual(['ledger-away', 'ledger-back'])
  answer = () => problem(503, 'overloaded')
  expect(await pauseBeforeNextCall()).toBe(0)
  expect(await pauseBeforeNextCall()).toBe(200)
})

test('calls that fail together are one failure', async () => {
  const open = Promise.withResolvers<void>()
  answer = async () => {
    await open.promise
    return problem(503, 'database-unavailable')
  }
  const calls = [1, 2, 3, 4, 5].map((n) => failure(connection.post('/claims', { n })))
  await until(() => requests.length === 5)
  open.resolve()
  await Promise.all(calls)
  expect(await pauseBeforeNextCall()).toBe(200)
})

test('an answer to what was asked before the last failure does not end the outage', async () => {
  const { promise, resolve } = Promise.withResolvers<void>()
  answer = async (request) => {
    if (!request.url.endsWith('/late')) return problem(503, 'overloaded')
    await promise
    return fine(request)
  }
  const late = connection.post('/late', {})
  await connection.post('/now', {}).catch(() => {})
  resolve()
  expect(await late).toEqual({ fine: true })
  expect(connection.away()?.reason).toContain('overloaded')
  expect(logged.map(({ event }) => event)).toEqual(['ledger-away'])
})

test('the pause that the server asks for is kept', async () => {
  answer = () => problem(503, 'database-unavailable', { 'retry-after': '2' })
  await pauseBeforeNextCall()
  expect(await pauseBeforeNextCall()).toBe(2_000)
})

test('a server that is not there makes the call fail as one that may go through later', async () => {
  await server.stop(0)
  const error = await failure(connection.post('/beats', {}))
  expect(error).toBeInstanceOf(LedgerUnavailable)
  expect(isRefusedByLedger(error)).toBe(false)
  expect(connection.away()?.reason).toContain(server.url)
})

test('a call without an answer is given up after its time', async () => {
  answer = () => new Promise(() => {})
  const call = failure(connection.post('/beats', {}, { timeoutMs: 8_000 }))
  await until(() => requests.length === 1)
  clock.advance(8_000)
  expect(await call).toMatchObject({ message: expect.stringContaining('no answer within 8000 ms') })
})

for (const [status, code] of [
  [401, 'unauthenticated'],
  [403, 'forbidden'],
] as const) {
  test(`a key that is refused (${code}) is told as an error, and tried again slowly`, async () => {
    answer = () => problem(status, code)
    expect(await pauseBeforeNextCall()).toBe(0)
    expect(logged).toMatchObject([{ level: 50, event: 'ledger-denied', error: expect.stringContaining(code) }])
    for (let tries = 0; tries < 5; tries++) expect(await pauseBeforeNextCall()).toBe(5_000)
    expect(logged).toHaveLength(1)
    await pauseBeforeNextCall()
    expect(logged).toHaveLength(2)
  })
}

test('only what the ledger cannot hold is a refusal of a row; nothing waits after it', async () => {
  answer = () => problem(422, 'unstorable')
  const refused = await failure(connection.post('/outcomes', {}))
  expect(isRefusedByLedger(refused)).toBe(true)
  expect(refused).toMatchObject({ code: 'unstorable', message: 'it is unstorable' })
  expect(connection.away()).toBeUndefined()
  expect(await pauseBeforeNextCall()).toBe(0)
})

const NO_REFUSALS: [string, Answer][] = [
  ['a server that is older than the worker', () => problem(422, 'validation')],
  ['a server without the protocol', () => problem(404, 'not-found')],
  ['an id that nobody joined', () => problem(409, 'unknown-node')],
  ['a bug of the server', () => problem(500, 'internal')],
  ['a proxy whose server is away', () => new Response('<h1>Bad gateway</h1>', { status: 502 })],
  ['a proxy that takes less', () => new Response('too large', { status: 413 })],
  ['a page of something else', () => new Response('<h1>Hello</h1>', { headers: { 'content-type': 'text/html' } })],
  ['a redirect', () => new Response(null, { status: 302, headers: { location: 'https://login.example.com' } })],
  ['half an answer', () => new Response('{"settled":[', { headers: { 'content-type': 'application/json' } })],
]
for (const [what, given] of NO_REFUSALS) {
  test(`${what} lets no task fail`, async () => {
    answer = given
    const error = await failure(connection.post('/outcomes', {}))
    expect(error).toBeInstanceOf(LedgerUnavailable)
    expect(isRefusedByLedger(error)).toBe(false)
  })
}

test('a call of rows that is found invalid for half a minute holds one that no server takes: it is a refusal of a row', async () => {
  answer = () => problem(422, 'validation')
  const outcomes = async () => {
    const call = failure(connection.post('/outcomes', {}))
    await turns()
    clock.advance(5_000)
    return isRefusedByLedger(await call)
  }
  const early = []
  for (let tries = 0; tries < 10; tries++) early.push(await outcomes())
  expect(early).not.toContain(true)
  expect(await outcomes()).toBe(true)
  expect(connection.away()).toBeUndefined()
  // Its halves are told apart at once, though what is innocent goes through in between.
  answer = fine
  await connection.post('/outcomes', {})
  answer = () => problem(422, 'validation')
  expect(await outcomes()).toBe(true)
  expect(isRefusedByLedger(await failure(connection.post('/claims', {})))).toBe(false)
  clock.advance(600_000)
  expect(await outcomes()).toBe(false)
})

test('close ends what waits and what is under way; the last word still goes', async () => {
  answer = () => problem(503, 'overloaded')
  await failure(connection.post('/beats', {}))
  const waits = failure(connection.post('/beats', {}))
  await turns()
  connection.close()
  expect(await waits).toMatchObject({ message: 'the worker ends' })
  expect(await failure(connection.post('/beats', {}))).toMatchObject({ message: 'the worker ends' })
  expect(requests).toHaveLength(1)
  answer = fine
  await connection.post('/beats', { leave: true }, { last: true })
  expect(requests).toHaveLength(2)
})

test('close cuts a call that is under way', async () => {
  answer = () => new Promise(() => {})
  const call = failure(connection.post('/claims', {}))
  await until(() => requests.length === 1)
  connection.close()
  expect(await call).toBeInstanceOf(LedgerUnavailable)
})
