import { v7 } from 'uuid'
import { createApi } from '../../src/api/app.ts'
import { taskRoutes } from '../../src/api/routes/tasks.ts'
import { createInProcessBroker } from '../../src/broker/in-process.ts'
import { realClock } from '../../src/runtime/clock.ts'
import { createLog } from '../../src/runtime/log.ts'
import { authenticator, createKey } from '../../src/store/keys/keys.ts'
import { cancelTasks } from '../../src/store/tasks/cancel.ts'
import { mendTask } from '../../src/store/tasks/dead-letters/mend.ts'
import { replayTasks } from '../../src/store/tasks/dead-letters/replay.ts'
import { reportForeign } from '../../src/store/tasks/foreign-report.ts'
import { removeTasks } from '../../src/store/tasks/remove.ts'
import { runNow } from '../../src/store/tasks/run-now.ts'
import { createSubmitter } from '../../src/submit/submitter.ts'
import { DEFAULT_RETRY_POLICY } from '../../src/task/retry-policy.ts'
import type { Scope } from '../../src/task/scope.ts'
import { type Engine, testDatabase } from '../support/database.ts'

export interface CallOptions {
  /** A scope's key; null sends none. By default admin. */
  as?: Scope | null
  json?: unknown
  body?: string | Uint8Array<ArrayBuffer>
  headers?: Record<string, string>
}

const notAsked = () => Promise.reject(new Error('the tests of tasks do not ask for this'))

export type TasksUnderTest = Awaited<ReturnType<typeof tasksUnderTest>>

/** The routes of tasks behind a real HTTP server, on the store's own functions. */
export async function tasksUnderTest(engine: Engine) {
  const test = await testDatabase(engine)
  const { db, pool } = test.database
  const node = v7()
  const log = createLog('silent')
  await pool.query(
    `insert into queues (name, retry, retention) values ('default', '{"maxAttempts": 10}', '{}'), ('emails', '{"maxAttempts": 3}', '{}')
     on conflict do nothing`,
  )
  const keys = {} as Record<Scope, string>
  for (const scope of ['read', 'submit', 'operate', 'admin', 'work'] as const) {
    keys[scope] = (await createKey(db, scope, [scope])).key
  }
  const { authenticate, forget } = authenticator(db, realClock)
  const checks = {
    handlerNames: () => ['greet'],
    checkUrl: (url: string) => (url.includes('169.254.') ? 'link-local addresses are never allowed' : undefined),
  }
  const submitter = createSubmitter({ pool, nodeId: () => node, log, onSubmitted: () => {} })
  const api = createApi({
    db,
    authenticate,
    keysChanged: forget,
    topologyChanged: () => {},
    broker: createInProcessBroker(),
    purge: notAsked,
    resend: notAsked,
    removeQueue: notAsked,
    ...checks,
    readiness: async () => ({ checks: [] }),
    routes: (access) =>
      taskRoutes(access, {
        pool,
        submitter,
        ...checks,
        cancelTasks: (ids) => cancelTasks(pool, ids),
        replayTasks: async (ids, options) => (await replayTasks(pool, ids, undefined, options)).replayed,
        mendTask: (id, payload, by) => mendTask(pool, id, payload, by),
        runNow: async (ids) => (await runNow(pool, ids)).due,
        deleteTasks: (ids) => removeTasks(pool, node, ids),
        reportStatus: (id, report, keyId) => reportForeign(pool, id, report, keyId, () => DEFAULT_RETRY_POLICY),
      }),
    version: '0.0.0-test',
    log,
  })
  const server = Bun.serve({ port: 0, hostname: '127.0.0.1', idleTimeout: 0, fetch: (request) => api.fetch(request) })
  const base = `http://127.0.0.1:${server.port}/api/v1`

  async function call(method: string, path: string, { as = 'admin', json, body, headers = {} }: CallOptions = {}) {
    const sent = json === undefined ? body : JSON.stringify(json)
    const response = await fetch(base + path, {
      method,
      headers: {
        ...(as !== null && { authorization: `Bearer ${keys[as]}` }),
        ...(sent !== undefined && { 'content-type': 'application/json' }),
        ...headers,
      },
      ...(sent !== undefined && { body: sent }),
    })
    const text = await response.text()
    // biome-ignore lint/suspicious/noExplicitAny: tests look into whatever came back
    let parsed: any
    if (text !== '') parsed = JSON.parse(text)
    return { status: response.status, headers: response.headers, text, json: parsed }
  }

  return {
    base,
    keys,
    call,
    query: async <T>(text: string, values: unknown[] = []) => (await pool.query(text, values)).rows as T[],
    async close() {
      await server.stop(true)
      await submitter.idle()
      await test.drop()
    },
  }
}
