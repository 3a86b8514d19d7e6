import type pg from 'pg'
import type { Pool } from 'pg'
import { v7 } from 'uuid'
import { clientConfig } from '../../src/store/database/database.ts'
import { joinNode } from '../../src/store/nodes.ts'
import { cancelTasks } from '../../src/store/tasks/cancel.ts'
import { claimDueTasks } from '../../src/store/tasks/claim/claim.ts'
import { insertTasks } from '../../src/store/tasks/insert/insert.ts'
import { readTask, type TaskRow } from '../../src/store/tasks/read/read.ts'
import { settleTasks } from '../../src/store/tasks/settle.ts'
import type { NodeState, Settled, Settlement } from '../../src/task/ledger.ts'
import type { Outcome } from '../../src/task/outcome.ts'
import type { RetryPolicy } from '../../src/task/retry-policy.ts'
import type { ClaimedTask, NewTask } from '../../src/task/task.ts'
import { connectClient, type Engine, type TestDatabase, testDatabase } from './database.ts'

export const SUCCEEDED = { kind: 'succeeded' } as const satisfies Outcome
export const FAILED = { kind: 'failed', retryable: true, error: 'no luck' } as const satisfies Outcome
export const DEAD = { kind: 'failed', retryable: false, error: 'no way' } as const satisfies Outcome
export const RETURNED = { kind: 'returned' } as const satisfies Outcome
export const LOST = { kind: 'lost', started: true, error: 'its node is gone' } as const satisfies Outcome

/** Three attempts, and the next one at once. */
export const AT_ONCE: RetryPolicy = { maxAttempts: 3, backoff: { kind: 'fixed', base: '0ms', jitter: 0 } }
export const atOnce = () => AT_ONCE

export const IDLE: NodeState = { broker: 'in-process', consumers: [] }

/** A ledger with the queue `default` and one node, and short ways to bring its tasks into any status. */
export interface TaskLedger {
  test: TestDatabase
  pool: Pool
  /** The node that inserts, claims and settles where none is named. */
  node: string
  /** Enters another node. */
  join(): Promise<string>
  insert(task?: Partial<NewTask>): Promise<string>
  insertMany(tasks: Partial<NewTask>[]): Promise<string[]>
  queue(name: string, paused?: boolean): Promise<void>
  claim(limit?: number, options?: { node?: string; queue?: string; claimId?: string }): Promise<ClaimedTask[]>
  /** Claims what is due until `id` comes; gives everything else back. */
  claimOne(id: string, node?: string): Promise<ClaimedTask>
  settle(task: ClaimedTask, outcome: Outcome, node?: string): Promise<Settled>
  /** Claims the task and ends that attempt. */
  run(id: string, outcome: Outcome): Promise<Settled>
  cancel(id: string): Promise<string>
  row(id: string): Promise<TaskRow>
  status(id: string): Promise<string>
  /** Deletes every task, node, counter and queue, and begins anew. */
  clear(): Promise<void>
}

/** A fresh ledger on `engine`. */
export async function taskLedger(engine: Engine): Promise<TaskLedger> {
  const test = await testDatabase(engine)
  const { pool } = test.database
  const ledger: TaskLedger = {
    test,
    pool,
    node: v7(),
    async join() {
      const id = v7()
      await joinNode(pool, { id, name: 'test', version: '0', roles: ['worker'], broker: 'in-process', state: IDLE })
      return id
    },
    async insert(task = {}) {
      return (await ledger.insertMany([task]))[0] as string
    },
    async insertMany(tasks) {
      const made = tasks.map(newTask)
      const answers = await insertTasks(pool, ledger.node, made)
      for (const answer of answers) if (answer.kind !== 'created') throw new Error(JSON.stringify(answer))
      return made.map((task) => task.id)
    },
    async queue(name, paused = false) {
      await pool.query(
        `insert into queues (name, retry, retention, paused) values ($1, '{"maxAttempts": 3}', '{}', $2)`,
        [name, paused],
      )
    },
    claim: (limit = 100, { node = ledger.node, queue = 'default', claimId = v7() } = {}) =>
      claimDueTasks(pool, { claimId, node, queue, limit }),
    async claimOne(id, node = ledger.node) {
      const { queue } = await ledger.row(id)
      const claimed = await ledger.claim(10_000, { node, queue })
      const others = claimed.filter((task) => task.id !== id)
      if (others.length > 0)
        await settleTasks(
          pool,
          node,
          others.map((task) => settlementOf(task, RETURNED)),
          atOnce,
        )
      const task = claimed.find((one) => one.id === id)
      if (!task) throw new Error(`Task ${id} is not to be claimed: it is ${await ledger.status(id)}`)
      return task
    },
    async settle(task, outcome, node = ledger.node) {
      const [settled] = await settleTasks(pool, node, [settlementOf(task, outcome)], atOnce)
      return settled as Settled
    },
    async run(id, outcome) {
      return ledger.settle(await ledger.claimOne(id), outcome)
    },
    async cancel(id) {
      return (await cancelTasks(pool, [id]))[0]?.outcome as string
    },
    async row(id) {
      const row = await readTask(pool, id)
      if (!row) throw new Error(`There is no task ${id}`)
      return row
    },
    status: async (id) => (await ledger.row(id)).status,
    async clear() {
      await pool.query('truncate tasks, nodes, counters; delete from exchanges; delete from queues')
      await ledger.queue('default')
      ledger.node = await ledger.join()
    },
  }
  await ledger.clear()
  return ledger
}

/** A connection of its own, for tests that set its session or have it killed; the caller ends it. */
export function connect(test: TestDatabase): Promise<pg.Client> {
  return connectClient(clientConfig(test.connection, 'longshore-test'))
}

/** A task that is due now, on the queue `default`. */
export function newTask(task: Partial<NewTask> = {}): NewTask {
  return {
    id: v7(),
    queue: 'default',
    type: null,
    payload: '{}',
    target: null,
    priority: 0,
    dueAt: null,
    delayMs: null,
    maxAttempts: 3,
    timeoutMs: null,
    idempotencyKey: null,
    fingerprint: null,
    parentId: null,
    origin: 'api',
    ...task,
  }
}

export function settlementOf(task: ClaimedTask, outcome: Outcome): Settlement {
  const { id, queue, attempt, parentId, failures, maxAttempts, lostStarts } = task
  return { id, queue, attempt, parentId, standing: { failures, maxAttempts, lostStarts }, outcome }
}

export interface ChildCounts {
  total: number
  succeeded: number
  dead: number
}

/** Parents whose counts are not those of their children's rows; `gone` counts children that were deleted. */
export async function miscounted(pool: Pool, gone: Map<string, ChildCounts> = new Map()): Promise<unknown[]> {
  const { rows } = await pool.query<{ id: string; kept: ChildCounts; found: ChildCounts }>(
    `select p.id,
       jsonb_build_object('total', p.children_total, 'succeeded', p.children_succeeded, 'dead', p.children_dead) as kept,
       jsonb_build_object('total', count(c.id), 'succeeded', count(*) filter (where c.status = 'succeeded'),
         'dead', count(*) filter (where c.status in ('dead', 'cancelled'))) as found
     from tasks p left join tasks c on c.parent_id = p.id group by p.id`,
  )
  return rows.filter(({ id, kept, found }) => {
    const { total, succeeded, dead } = gone.get(id) ?? { total: 0, succeeded: 0, dead: 0 }
    return (
      kept.total !== found.total + total ||
      kept.succeeded !== found.succeeded + succeeded ||
      kept.dead !== found.dead + dead
    )
  })
}
