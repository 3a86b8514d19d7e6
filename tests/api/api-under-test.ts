import { randomUUID } from 'node:crypto'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { type Api, type ApiDeps, createApi } from '../../src/api/app.ts'
import { compatRoutes } from '../../src/api/compat/compat.ts'
import { type SourceRouteDeps, sourceRouteList } from '../../src/api/routes/sources.ts'
import { taskRoutes } from '../../src/api/routes/tasks.ts'
import { type WorkerProtocolDeps, workerProtocolRoutes } from '../../src/api/routes/worker-protocol.ts'
import { createWorkerDoor } from '../../src/api/workers/door.ts'
import { createWorkerNotices, type WorkerNotices } from '../../src/api/workers/notices.ts'
import { realClock } from '../../src/runtime/clock.ts'
import { createEgress } from '../../src/runtime/egress/egress.ts'
import { type Logger, Secret } from '../../src/runtime/log.ts'
import { createSecretBox } from '../../src/runtime/secret-box.ts'
import { createFiles } from '../../src/sources/files.ts'
import { createSources } from '../../src/sources/sources.ts'
import { createSpool } from '../../src/sources/spool.ts'
import { authenticator, createKey } from '../../src/store/keys/keys.ts'
import { createStoreLedger } from '../../src/store/ledger.ts'
import { cancelTasks } from '../../src/store/tasks/cancel.ts'
import { replayTasks } from '../../src/store/tasks/dead-letters/replay.ts'
import { readTopology } from '../../src/store/topology/topology.ts'
import type { Scope } from '../../src/task/scope.ts'
import { workerTopology } from '../../src/task/worker-protocol.ts'
import { purgeQueue, resendQueued } from '../../src/topology/purge-queue.ts'
import { removeQueue } from '../../src/topology/remove-queue.ts'
import { brokerInMemory } from '../support/broker-in-memory.ts'
import { type Engine, type TestDatabase, testDatabase } from '../support/database.ts'
import { silent } from '../support/services.ts'
import { atOnce } from '../support/tasks.ts'

export interface ApiUnderTest {
  api: Api
  test: TestDatabase
  /** A key by its scope. */
  keys: Record<Scope, string>
  /** How often the topology was said to have changed. */
  topologyChanges(): number
  /** The broker behind the routes. */
  broker: ReturnType<typeof brokerInMemory>['control']
  brokerPort: ReturnType<typeof brokerInMemory>['broker']
  /** Queues that the broker may have lost, and those that have work, as they were told. */
  rechecked: string[]
  woken: string[]
  /** What workers hear of. */
  notices: WorkerNotices
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
  mendTask: notAsked,
  runNow: notAsked,
  deleteTasks: notAsked,
  reportStatus: notAsked,
  submitToExchange: notAsked,
  ensureTopology: notAsked,
  ensureTable: notAsked,
  ensureTransactions: notAsked,
  listTransactions: notAsked,
  insertTransaction: notAsked,
  sources: { create: notAsked, patch: notAsked, remove: notAsked },
  cancelWaiting: notAsked,
  removeQueue: notAsked,
}

/** What workers without a database meet, on the store's own ledger. */
export function workerDoor({ database: { pool } }: TestDatabase, log: Logger): WorkerProtocolDeps {
  const ledger = createStoreLedger(pool, atOnce)
  const topology = async () => workerTopology(await readTopology(pool))
  const notices = createWorkerNotices(realClock)
  return {
    ledger,
    notices,
    door: createWorkerDoor({ pool, ledger, log, broker: 'in-process', topology, onSettled() {} }),
  }
}

/** What the routes of sources need; nobody polls. */
export function sourceDeps({ database: { pool } }: TestDatabase, log: Logger = silent): SourceRouteDeps {
  const guard = createEgress({ allow: [], allowPrivate: true })
  const box = createSecretBox([Buffer.alloc(32, 9)])
  return {
    ...{
      pool,
      log,
      guard,
      box,
      clock: realClock,
      spool: createSpool(join(tmpdir(), `longshore-spool-${randomUUID()}`)),
    },
    sources: createSources({ pool, box, checkHost: guard.checkHost, onChanged() {}, onTopology() {} }),
    files: createFiles({ pool, cancelTasks: (ids) => cancelTasks(pool, ids), wake() {}, onChanged() {} }),
    async cancelTask(id) {
      await cancelTasks(pool, [id])
    },
    async replayTask(id) {
      return (await replayTasks(pool, [id])).replayed.some(({ outcome }) => outcome === 'replayed')
    },
  }
}

/** The API on a database of its own, with a key for each scope. */
export async function apiUnderTest(
  engine: Engine = 'server',
  { test: given, ...overrides }: Partial<ApiDeps> & { test?: TestDatabase } = {},
): Promise<ApiUnderTest> {
  const test = given ?? (await testDatabase(engine))
  const { db, pool } = test.database
  const made = await Promise.all(
    (['read', 'submit', 'operate', 'admin', 'work'] as const).map(async (scope) => [
      scope,
      (await createKey(db, `the ${scope} key`, [scope])).key,
    ]),
  )
  const keys = Object.fromEntries(made) as Record<Scope, string>
  const auth = authenticator(db, realClock)
  const { broker, control } = brokerInMemory()
  const rechecked: string[] = []
  const woken: string[] = []
  const logged: string[] = []
  const log = pino({ level: 'info' }, { write: (line: string) => logged.push(line) })
  const door = workerDoor(test, log)
  let changes = 0
  const topologyChanged = () => {
    changes++
  }
  const upkeep = {
    ...{ db, pool, broker, topologyChanged, changed: () => {} },
    cancelTasks: (ids: string[]) => cancelTasks(pool, ids),
    recheck: (queue: string) => rechecked.push(queue),
    wake: (queues: string[]) => woken.push(...queues),
  }
  const api = createApi({
    db,
    broker,
    authenticate: auth.authenticate,
    keysChanged: auth.forget,
    topologyChanged,
    purge: (queue, purge) => purgeQueue(upkeep, queue, purge),
    resend: (queue) => resendQueued(upkeep, queue),
    removeQueue: (queue, guards) => removeQueue(upkeep, queue, guards),
    handlerNames: () => ['greet', 'resize'],
    checkUrl: (url) => (url.includes('169.254.') ? 'link-local addresses are never allowed' : undefined),
    readiness: async () => ({ checks: [{ name: 'database', ok: true, detail: engine }] }),
    routes: (access) => [
      ...taskRoutes(access, { ...NOT_ASKED, pool }),
      ...sourceRouteList(access, sourceDeps(test, log)),
      workerProtocolRoutes(access, door),
    ],
    compat: {
      withoutKey: false,
      routes: (access) =>
        compatRoutes(access, {
          ...NOT_ASKED,
          db,
          pool,
          log,
          topologyChanged,
          orderApi: { url: 'https://api.example.com/order', secret: new Secret('hush') },
          broker: 'in-process',
        }),
    },
    version: '0.0.0-test',
    log,
    ...overrides,
  })
  return {
    api,
    test,
    notices: door.notices,
    keys,
    topologyChanges: () => changes,
    broker: control,
    brokerPort: broker,
    rechecked,
    woken,
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
