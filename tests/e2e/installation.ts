import type { Database } from '../../src/store/database/database.ts'
import type { NodeState } from '../../src/task/ledger.ts'
import { type Engine, testDatabase } from '../support/database.ts'
import { type NodeOptions, type NodeProcess, nodeFolder, spawnNode, startNode } from '../support/node-process.ts'
import { until } from '../support/until.ts'

/** A folder and a database of its own for nodes of one installation. Its end kills what still runs and removes both. */
export interface Installation extends AsyncDisposable {
  readonly path: string
  /** The test's own connection to the server's database; not with the embedded engine. */
  readonly database: Database
  /** Starts a node on it and waits until it listens. */
  start(env?: Record<string, string>, options?: NodeOptions): Promise<NodeProcess>
  /** Starts a node on it. */
  spawn(env?: Record<string, string>, options?: NodeOptions): NodeProcess
}

/** An installation with nothing in it: the product's own Postgres, or a fresh database on a server. */
export async function install(engine: Engine): Promise<Installation> {
  const database = engine === 'server' ? await testDatabase(engine, { poolSize: 1 }) : undefined
  const folder = await nodeFolder()
  const url = database && 'url' in database.connection ? database.connection.url : undefined
  const withDatabase = (env: Record<string, string>) => (url === undefined ? env : { DATABASE_URL: url, ...env })
  return {
    path: folder.path,
    get database() {
      if (!database) throw new Error('The embedded database is opened by its node')
      return database.database
    },
    start: (env = {}, options = {}) => startNode(folder, { ...options, env: withDatabase(env) }),
    spawn: (env = {}, options = {}) => spawnNode(folder, { ...options, env: withDatabase(env) }),
    async [Symbol.asyncDispose]() {
      await folder[Symbol.asyncDispose]()
      await database?.drop()
    },
  }
}

/** The part of a task's JSON that tests look at. */
export interface Task {
  id: string
  queue: string
  status: string
  attempt: number
  failures: number
  error: string | null
  result: unknown
  logs: string[]
  progress: unknown
  children: { total: number; succeeded: number; dead: number; live: number } | null
  waitingFor: { cause: string; detail: string } | null
  attempts: { number: number; node: string; outcome: string; error: string | null; response: unknown }[]
}

export const read = (node: NodeProcess, id: string) => node.call<Task>('GET', `/tasks/${id}`)

/** Submits a task that is new and gives its id. */
export async function submit(node: NodeProcess, task: object): Promise<string> {
  const { status, body } = await node.request<Task>('POST', '/tasks', task)
  if (status !== 201) throw new Error(`POST /tasks answered ${status}: ${JSON.stringify(body)}`)
  return body.id
}

/** Waits until the task has one of the statuses, and gives it. */
export async function reached(
  node: NodeProcess,
  id: string,
  statuses: string[] = ['succeeded', 'dead', 'cancelled'],
  timeoutMs = 40_000,
): Promise<Task> {
  let last: Task | undefined
  const is = async () => {
    last = await read(node, id)
    return statuses.includes(last.status) ? last : undefined
  }
  return until(is, { timeoutMs, what: `task ${id} to become ${statuses.join(' or ')}` }).catch((error: Error) => {
    throw new Error(`${error.message}; it is ${JSON.stringify(last)}`)
  })
}

/** Resolves when the node goes by all that was changed of consumers before: it tells of a change that comes after that. */
export async function consumersFollowed(node: NodeProcess): Promise<void> {
  const { items } = await node.call<{ items: { id: string; concurrency: number }[] }>('GET', '/consumers?queue=default')
  const [{ id, concurrency } = { id: '', concurrency: 0 }] = items
  await node.call('PATCH', `/consumers/${id}`, { concurrency: concurrency + 1 })
  const isTold = async () => {
    const { items: nodes } = await node.call<{ items: { state: NodeState }[] }>('GET', '/nodes')
    const consumers = nodes.flatMap(({ state }) => state.consumers)
    return consumers.some((one) => one.id === id && one.concurrency === concurrency + 1)
  }
  await until(isTold, { what: 'the node to follow its consumers', timeoutMs: 30_000 })
}

/** Makes a queue that tries again soon, and a consumer that delivers to each task's own target. */
export async function makeQueue(
  node: NodeProcess,
  name: string,
  { base = '50ms', maxAttempts = 3, concurrency = 50, timeout = '30s' } = {},
): Promise<void> {
  await node.call('PUT', `/queues/${name}`, { retry: { maxAttempts, backoff: { kind: 'fixed', base } } })
  await node.call('POST', '/consumers', { queue: name, target: { type: 'task' }, concurrency, timeout })
}
