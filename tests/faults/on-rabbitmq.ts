import { type Installation, install } from '../e2e/installation.ts'
import type { NodeProcess } from '../support/node-process.ts'
import { callManagement } from '../support/rabbitmq.ts'
import { prepareRabbitMqServer, type RabbitMqServer } from '../support/rabbitmq-server.ts'
import { until } from '../support/until.ts'
import { liveTasks } from './verdict.ts'

/** Nodes on a database and a RabbitMQ of the test's own, which it may harm. */
export interface OnRabbitMq extends AsyncDisposable {
  readonly installation: Installation
  readonly rabbit: RabbitMqServer
  /** Starts a node on both; `env` counts before. */
  start(env?: Record<string, string>): Promise<NodeProcess>
  /** As `start`, without waiting until it listens. */
  spawn(env?: Record<string, string>): NodeProcess
  /** Resolves when RabbitMQ has these queues, and keeps them when it is killed. */
  declared(queues: string[]): Promise<void>
  /** How many tasks of the queue there are by status, and the highest number of an attempt. */
  counts(queue: string): Promise<Record<string, number>>
  /** Resolves when every task of the queue is final; tells what is not, and why, when that takes too long. */
  allFinal(queue: string, timeoutMs?: number): Promise<Record<string, number>>
  /** Resolves when every task is final; tells the situation when that takes too long. */
  quiet(timeoutMs: number): Promise<void>
}

/** Log lines of each node that a situation has. */
const LAST_LINES = 15

/** RabbitMQ is prepared, and started unless `absent`. */
export async function onRabbitMq({ absent = false } = {}): Promise<OnRabbitMq> {
  const [installation, rabbit] = await Promise.all([install('server'), prepareRabbitMqServer()])
  if (!absent) await rabbit.start()
  const { pool } = installation.database
  const counts = async (queue: string) => {
    const { rows } = await pool.query<{ status: string; n: number }>(
      'select status, count(*)::int as n from tasks where queue = $1 group by status',
      [queue],
    )
    return Object.fromEntries(rows.map(({ status, n }) => [status, n]))
  }
  /** And what ended them; undefined while they run. */
  const started = new Map<NodeProcess, number | string | undefined>()
  const spawn = (env: Record<string, string> = {}) => {
    const node = installation.spawn({ AMQP_URL: rabbit.amqpUrl, LOG_LEVEL: 'info', ...env })
    started.set(node, undefined)
    void node.exited.then((end) => started.set(node, end))
    return node
  }
  /** What each side says of tasks that do not end. */
  async function situation(): Promise<string> {
    const { rows: tasks } = await pool.query(
      `select coalesce(exchange, queue) as to, status, publisher, count(*)::int as n, max(attempt) as attempt from tasks
       where status not in ('succeeded', 'dead', 'cancelled') group by 1, 2, 3`,
    )
    const { rows: nodes } = await pool.query('select id, roles, beat_at, dead_at, left_at, confirmed, state from nodes')
    const queues = await callManagement<object[]>(
      rabbit.managementUrl,
      'GET',
      '/queues?columns=name,type,state,leader,messages_ready,messages_unacknowledged,consumers',
    ).catch((error: Error) => [{ error: error.message }])
    const logs = Array.from(started, ([{ pid, log }, end]) => ({ pid, end, last: log.slice(-LAST_LINES) }))
    return Object.entries({ now: [new Date()], tasks, nodes, queues, logs })
      .flatMap(([what, all]) => [`${what}:`, ...all.map((one) => `  ${JSON.stringify(one)}`)])
      .join('\n')
  }
  async function allEnd(isTrue: () => Promise<boolean>, timeoutMs: number): Promise<void> {
    await until(isTrue, { timeoutMs, what: 'every task to be final' }).catch(async (error: Error) => {
      throw new Error(`${error.message}\n${await situation()}`)
    })
  }
  return {
    installation,
    rabbit,
    async start(env) {
      const node = spawn(env)
      await node.listening
      return node
    },
    spawn,
    async declared(queues) {
      const areThere = async () => {
        const found = await callManagement<{ name: string }[]>(
          rabbit.managementUrl,
          'GET',
          '/queues?columns=name',
        ).catch(() => [])
        return queues.every((queue) => found.some(({ name }) => name === queue))
      }
      await until(areThere, { what: `${queues.join(', ')} to be declared`, timeoutMs: 60_000 })
      await rabbit.queuesOnDisk()
    },
    counts,
    async allFinal(queue, timeoutMs = 150_000) {
      let last: Record<string, number> = {}
      const isFinal = async () => {
        last = await counts(queue)
        return ['pending', 'queued', 'running', 'retrying'].every((status) => last[status] === undefined)
      }
      await allEnd(isFinal, timeoutMs)
      return last
    },
    quiet: (timeoutMs) => allEnd(async () => (await liveTasks(pool)) === 0, timeoutMs),
    async [Symbol.asyncDispose]() {
      await installation[Symbol.asyncDispose]()
      await rabbit[Symbol.asyncDispose]()
    },
  }
}
