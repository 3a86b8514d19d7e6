import { pino } from 'pino'
import { v7 as uuidv7 } from 'uuid'
import type { Broker } from '../../src/broker/broker.ts'
import { createInProcessBroker } from '../../src/broker/in-process.ts'
import { createDispatcher, type Dispatcher, type DispatcherDeps } from '../../src/dispatch/dispatcher.ts'
import { createFusedHandOver, type FusedHandOverDeps } from '../../src/dispatch/fused-hand-over.ts'
import { fusedIntake } from '../../src/execution/intake.ts'
import { createSettler, type Settler } from '../../src/execution/settler.ts'
import { startWorker, type Worker, type WorkerOrder } from '../../src/execution/worker.ts'
import { ManualClock, realClock } from '../../src/runtime/clock.ts'
import { isRefusedRow } from '../../src/store/database/statement.ts'
import { createStoreLedger } from '../../src/store/ledger.ts'
import { joinNode } from '../../src/store/nodes.ts'
import { claimDueTasks, claimedTasks, nextDue } from '../../src/store/tasks/claim/claim.ts'
import { insertTasks } from '../../src/store/tasks/insert/insert.ts'
import { putQueue } from '../../src/store/topology/queues.ts'
import type { Execution, Executor } from '../../src/task/executor.ts'
import type { Ledger, Settled, Settlement } from '../../src/task/ledger.ts'
import type { Outcome } from '../../src/task/outcome.ts'
import { DEFAULT_RETRY_POLICY, type RetryPolicy } from '../../src/task/retry-policy.ts'
import { attemptOf, type ClaimedTask, type NewTask } from '../../src/task/task.ts'
import { DEFAULT_RETENTION } from '../../src/task/topology/queue.ts'
import { type TestDatabase, testDatabase } from './database.ts'

/** Says nothing: what a test expects to be logged is no news. */
export const silent = pino({ level: 'silent' })

/** Lets everything run that is ready, and what that makes ready. */
export async function turns(count = 20): Promise<void> {
  for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setImmediate(resolve))
}

/** A manual clock that knows how many timers wait on it: none may when a service has stopped. */
export class CountedClock extends ManualClock {
  timers = 0

  override after(delayMs: number, run: () => void): () => void {
    let waits = true
    const over = () => {
      if (waits) this.timers--
      waits = false
    }
    this.timers++
    const cancel = super.after(delayMs, () => {
      over()
      run()
    })
    return () => {
      over()
      cancel()
    }
  }
}

export function claimedTask(task: Partial<ClaimedTask> = {}): ClaimedTask {
  return {
    id: uuidv7(),
    queue: 'work',
    type: null,
    payload: '{}',
    target: null,
    priority: 0,
    attempt: 1,
    failures: 0,
    maxAttempts: 10,
    lostStarts: 0,
    timeoutMs: null,
    parentId: null,
    origin: 'api',
    createdAt: '2026-01-01T00:00:00.000Z',
    ...task,
  }
}

export function newTask(task: Partial<NewTask> = {}): NewTask {
  return {
    id: uuidv7(),
    queue: 'work',
    type: null,
    payload: '{}',
    target: null,
    priority: 0,
    dueAt: null,
    delayMs: null,
    maxAttempts: null,
    timeoutMs: null,
    idempotencyKey: null,
    fingerprint: null,
    parentId: null,
    origin: 'api',
    ...task,
  }
}

export const consumer = (order: Partial<WorkerOrder> = {}): WorkerOrder => ({
  id: uuidv7(),
  queue: 'work',
  target: { type: 'noop' },
  concurrency: 2,
  timeoutMs: 60_000,
  ...order,
})

/** What a worker without a rate limit needs. */
export const unlimited = {
  takeTokens: async (_: string, count: number) => ({ granted: count, retryAfterMs: 0 }),
  onTokensFailed() {},
}

/** An executor whose targets return when the test says so. */
export interface HeldExecutor extends Executor {
  readonly executions: Execution[]
  /** Ids of tasks that run, in the order of their start. */
  running(): string[]
  readonly cancelled: string[]
  /** The most that ever ran at once. */
  readonly peak: number
  end(id: string, outcome?: Outcome): void
}

export function heldExecutor(): HeldExecutor {
  const running: { id: string; resolve(outcome: Outcome): void }[] = []
  const executions: Execution[] = []
  const cancelled: string[] = []
  let peak = 0
  return {
    executions,
    cancelled,
    get peak() {
      return peak
    },
    running: () => running.map((one) => one.id),
    run(execution) {
      executions.push(execution)
      return new Promise((resolve) => {
        running.push({ id: execution.id, resolve })
        peak = Math.max(peak, running.length)
      })
    },
    cancel: (id) => void cancelled.push(id),
    async close() {},
    end(id, outcome = { kind: 'succeeded' }) {
      const index = running.findIndex((one) => one.id === id)
      if (index < 0) throw new Error(`The task ${id} does not run`)
      running.splice(index, 1)[0]?.resolve(outcome)
    },
  }
}

/** A settler that commits when the test says so; with `auto`, at once. */
export interface HeldSettler extends Settler {
  readonly settled: Settlement[]
  auto: boolean
  commit(): void
}

export function heldSettler(): HeldSettler {
  const settled: Settlement[] = []
  let waiting: (() => void)[] = []
  const settler: HeldSettler = {
    settled,
    auto: true,
    commit() {
      for (const resolve of waiting) resolve()
      waiting = []
    },
    async settle(settlement) {
      if (!settler.auto) await new Promise<void>((resolve) => waiting.push(resolve))
      settled.push(settlement)
      return { id: settlement.id, late: false, status: 'succeeded', delayMs: 0 }
    },
    idle: async () => {},
    close() {},
  }
  return settler
}

export type FusedDispatcherDeps = Omit<DispatcherDeps, 'handOver'> & FusedHandOverDeps

/** A dispatcher that hands claimed tasks to the consumers of this process. */
export function fusedDispatcher(deps: FusedDispatcherDeps): Dispatcher {
  return createDispatcher({ ...deps, handOver: createFusedHandOver(deps) })
}

/** A node on a real database, as app.ts builds it but for threads and heart. */
export interface TestNode {
  id: string
  broker: Broker
  dispatcher: Dispatcher
  settler: Settler
  settled: { settlement: Settlement; settled: Settled }[]
  consume(order: WorkerOrder, executor: Executor): Worker
  /** Stops everything, in order. */
  stop(): Promise<void>
}

export interface TestLedger extends TestDatabase {
  submit(...tasks: Partial<NewTask>[]): Promise<string[]>
  row(
    id: string,
  ): Promise<{ status: string; attempt: number; failures: number; node: string | null; error: string | null }>
  count(status: string): Promise<number>
  node(changes?: { ledger?: Partial<Ledger>; dispatcher?: Partial<FusedDispatcherDeps> }): Promise<TestNode>
  /** Ends every connection of the pool, as a server that restarts does. */
  cutConnections(): Promise<void>
}

/** A fresh ledger with the queue `work`, on the server engine. */
export async function testLedger(retry: RetryPolicy = DEFAULT_RETRY_POLICY): Promise<TestLedger> {
  const testing = await testDatabase('server')
  const { pool, db } = testing.database
  await putQueue(db, 'work', { type: 'quorum', retry, retention: DEFAULT_RETENTION })
  const submitter = uuidv7()
  return {
    ...testing,
    async submit(...tasks) {
      const stored = tasks.map(newTask)
      await insertTasks(pool, submitter, stored)
      return stored.map((task) => task.id)
    },
    async row(id) {
      const { rows } = await pool.query('select status, attempt, failures, node, error from tasks where id = $1', [id])
      return rows[0]
    },
    async count(status) {
      const { rows } = await pool.query('select count(*)::int as count from tasks where status = $1', [status])
      return rows[0].count
    },
    async cutConnections() {
      await pool
        .query(
          `select pg_terminate_backend(pid) from pg_stat_activity
           where datname = current_database() and pid <> pg_backend_pid()`,
        )
        .catch(() => {})
    },
    async node(changes = {}) {
      const id = uuidv7()
      await joinNode(pool, {
        id,
        name: 'test',
        version: '0',
        roles: ['worker'],
        broker: 'in-process',
        state: { broker: 'in-process', consumers: [] },
      })
      const ledger = { ...createStoreLedger(pool, () => retry), ...changes.ledger }
      const broker = createInProcessBroker()
      const workers: Worker[] = []
      const settled: TestNode['settled'] = []
      const settler = createSettler({
        ledger,
        clock: realClock,
        log: silent,
        node: () => id,
        isBadRow: isRefusedRow,
        onSettled(settlement, answer) {
          settled.push({ settlement, settled: answer })
          if (!answer.late) dispatcher.wake(settlement.queue, answer.delayMs)
        },
      })
      const dispatcher = fusedDispatcher({
        ledger: {
          claimDue: (request) => claimDueTasks(pool, request),
          claimed: (request) => claimedTasks(pool, request),
        },
        nextDue: (queues, withinMs) => nextDue(pool, queues, withinMs),
        broker,
        clock: realClock,
        log: silent,
        node: () => id,
        newId: uuidv7,
        orderOf: () => 'due',
        mayStart: () => true,
        dispatchedQueues: () => ['work'],
        async giveBack(tasks) {
          await Promise.all(tasks.map((task) => settler.settle({ ...attemptOf(task), outcome: { kind: 'returned' } })))
        },
        ...changes.dispatcher,
      })
      await dispatcher.start()
      return {
        id,
        broker,
        dispatcher,
        settler,
        settled,
        consume(order, executor) {
          const worker = startWorker(order, {
            intake: fusedIntake(broker),
            executor,
            settler,
            clock: realClock,
            reported: () => undefined,
            ...unlimited,
            mayStart: () => true,
          })
          workers.push(worker)
          return worker
        },
        async stop() {
          await dispatcher.stop()
          for (const worker of workers) worker.quiet()
          await Promise.all(workers.map((worker) => worker.idle()))
          settler.close()
          await settler.idle()
        },
      }
    },
  }
}
