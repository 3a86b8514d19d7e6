import { pino } from 'pino'
import { type Api, type ApiDeps, createApi } from '../../src/api/app.ts'
import { taskRoutes } from '../../src/api/routes/tasks.ts'
import { realClock } from '../../src/runtime/clock.ts'
import { authenticator, createKey } from '../../src/store/keys.ts'
import type { Scope } from '../../src/task/scope.ts'
import { type Engine, type TestDatabase, testDatabase } from '../support/database.ts'

export interface ApiUnderTest {
  api: Api
  test: TestDatabase
  /** A key by its scope. */
  keys: Record<Scope, string>
  /** How often the topology was said to have changed. */
  topologyChanges(): number
  /** Queues that were asked to be purged. */
  purged: string[]
  /** Lines that were logged. */
  logged: string[]
  call(method: string, path: string, options?: CallOptions): Promise<Answer>
  close(): Promise<void>
}

export type Body = string | Uint8Array<ArrayBuffer> | ReadableStream<Uint8Array>

export interface CallOptions {
  /** A scope's key; null sends none. By default admin. */
  as?: Scope | null
  json?: unknown
  body?: Body
  headers?: Record<string, string>
}

export interface Answer {
  status: number
  headers: Headers
  text: string
  // biome-ignore lint/suspicious/noExplicitAny: tests look into whatever came back
  json: any
}

const notAsked = () => Promise.reject(new Error('the tests of the frame do not change tasks'))

/** The routes of tasks are there to be listed, described and guarded; what they do has tests of its own. */
const NOT_ASKED = {
  submitter: { submit: notAsked, submitBatch: notAsked } as never,
  handlerNames: () => [],
  checkUrl: () => undefined,
  cancelTasks: notAsked,
  replayTasks: notAsked,
  runNow: notAsked,
  deleteTasks: notAsked,
  reportStatus: notAsked,
}

/** The API on a database of its own, with a key for each scope. */
export async function apiUnderTest(engine: Engine = 'server', overrides: Partial<ApiDeps> = {}): Promise<ApiUnderTest> {
  const test = await testDatabase(engine)
  const { db } = test.database
  const made = await Promise.all(
    (['read', 'submit', 'operate', 'admin', 'work'] as const).map(async (scope) => [
      scope,
      (await createKey(db, `the ${scope} key`, [scope])).key,
    ]),
  )
  const keys = Object.fromEntries(made) as Record<Scope, string>
  const auth = authenticator(db, realClock)
  const purged: string[] = []
  const logged: string[] = []
  let changes = 0
  const api = createApi({
    db,
    authenticate: auth.authenticate,
    keysChanged: auth.forget,
    topologyChanged: () => {
      changes++
    },
    purge: async (queue) => purged.push(queue),
    handlerNames: () => ['greet', 'resize'],
    checkUrl: (url) => (url.includes('169.254.') ? 'link-local addresses are never allowed' : undefined),
    readiness: async () => ({ checks: [{ name: 'database', ok: true, detail: engine }] }),
    routes: (access) => taskRoutes(access, { ...NOT_ASKED, pool: test.database.pool }),
    version: '0.0.0-test',
    log: pino({ level: 'info' }, { write: (line: string) => logged.push(line) }),
    ...overrides,
  })
  return {
    api,
    test,
    keys,
    topologyChanges: () => changes,
    purged,
    logged,
    async call(method, path, { as = 'admin', json, body, headers = {} } = {}) {
      const request = new Request(`http://localhost${path}`, {
        method,
        headers: {
          ...(as !== null && { authorization: `Bearer ${keys[as]}` }),
          ...(json !== undefined && { 'content-type': 'application/json' }),
          ...headers,
        },
        ...(json !== undefined ? { body: JSON.stringify(json) } : body !== undefined ? { body } : {}),
      })
      const response = await api.fetch(request)
      const text = await response.text()
      const isJson = response.headers.get('content-type')?.includes('json') && text !== ''
      return { status: response.status, headers: response.headers, text, json: isJson ? JSON.parse(text) : undefined }
    },
    close: () => test.drop(),
  }
}
