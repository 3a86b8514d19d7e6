import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'bun:test'
import { claimDueTasks, claimedTasks } from '../../src/store/tasks/claim/claim.ts'
import { setQueuePaused } from '../../src/store/topology/queues.ts'
import type { Executor } from '../../src/task/executor.ts'
import type { Outcome } from '../../src/task/outcome.ts'
import { consumer, heldExecutor, type TestLedger, type TestNode, testLedger, turns } from '../support/services.ts'
import { until } from '../support/until.ts'

// Dispatcher, broker, worker and settler on a real ledger.

let ledger: TestLedger
let nodes: TestNode[] = []

beforeAll(async () => {
  ledger = await testLedger({ maxAttempts: 5, backoff: { kind: 'fixed', base: '50ms' } })
})
beforeEach(() => ledger.database.pool.query('truncate tasks'))
afterEach(async () => {
  for (const node of nodes) await node.stop()
  nodes = []
})
afterAll(() => ledger.drop())

async function node(...changes: Parameters<TestLedger['node']>): Promise<TestNode> {
  const made = await ledger.node(...changes)
  nodes.push(made)
  return made
}

/** Runs every task at once, and remembers what it ran. */
function quickExecutor(outcome: (attempt: number, payload: string) => Outcome = () => ({ kind: 'succeeded' })) {
  const ran: string[] = []
  const executor: Executor = {
    async run({ id, attempt, payload }) {
      ran.push(id)
      await new Promise((resolve) => setImmediate(resolve))
      return outcome(attempt, payload)
    },
    cancel() {},
    async close() {},
  }
  return { ran, executor }
}

const many = (count: number) => Array.from({ length: count }, () => ({}))
/** A connection that was just cut may be the one that is asked. */
const final = async () => (await ledger.count('succeeded')) + (await ledger.count('dead'))
const allFinal = (count: number) =>
  until(async () => (await final().catch(() => 0)) === count, { what: `${count} final tasks` })

test('two nodes on one ledger run every task exactly once', async () => {
  const ids = await ledger.submit(...many(1_500))
  const { ran, executor } = quickExecutor()
  const [one, two] = await Promise.all([node(), node()])
  one.consume(consumer({ concurrency: 10 }), executor)
  two.consume(consumer({ concurrency: 10 }), executor)
  await allFinal(ids.length)
  expect(ran.sort()).toEqual(ids.sort())
  const { rows } = await ledger.database.pool.query('select distinct status from tasks')
  expect(rows).toEqual([{ status: 'succeeded' }])
})

test('connections that break under way cost no task and run none twice', async () => {
  const ids = await ledger.submit(...many(2_000))
  const { ran, executor } = quickExecutor()
  const { consume, settled } = await node()
  consume(consumer({ concurrency: 5 }), executor)
  for (let cut = 1; cut <= 5; cut++) {
    await until(() => ran.length >= cut * 200, { what: 'progress' })
    await ledger.cutConnections()
  }
  await allFinal(ids.length)
  expect(ran.sort()).toEqual(ids.sort())
  const settledIds = () => new Set(settled.map(({ settlement }) => settlement.id))
  await until(() => settledIds().size === ids.length, { what: 'every settlement' })
  // The room may shrink while a claim waits for a connection: what then finds none is given back, for a number.
  const returned = settled.filter(({ settlement }) => settlement.outcome.kind === 'returned').length
  const { rows } = await ledger.database.pool.query(
    `select status, sum(attempt)::int as attempts from tasks group by status`,
  )
  expect(rows).toEqual([{ status: 'succeeded', attempts: ids.length + returned }])
})

test('a claim whose answer was lost is handed over once, under its first attempt', async () => {
  const ids = await ledger.submit(...many(20))
  const { ran, executor } = quickExecutor()
  const { pool } = ledger.database
  let lost = 0
  const { consume } = await node({
    dispatcher: {
      ledger: {
        async claimDue(request) {
          const tasks = await claimDueTasks(pool, request)
          if (lost++ === 0) throw new Error('Connection terminated unexpectedly')
          return tasks
        },
        claimed: (request) => claimedTasks(pool, request),
      },
    },
  })
  consume(consumer({ concurrency: 20 }), executor)
  await allFinal(ids.length)
  expect(ran.sort()).toEqual(ids.sort())
  expect((await ledger.row(ids[0] as string)).attempt).toBe(1)
})

test('a failed task is tried again when its wait is over, not when the next poll comes', async () => {
  const [id] = await ledger.submit({})
  const { executor } = quickExecutor((attempt) =>
    attempt < 3 ? { kind: 'failed', retryable: true, error: `no ${attempt}` } : { kind: 'succeeded' },
  )
  // A poll would find nothing.
  const { consume } = await node({ dispatcher: { nextDue: async () => new Map() } })
  consume(consumer(), executor)
  await until(async () => (await ledger.row(id as string)).status === 'succeeded', { what: 'the third attempt' })
  expect(await ledger.row(id as string)).toMatchObject({ attempt: 3, failures: 2 })
})

test('an outcome that the ledger cannot hold makes its own task dead, with a sentence, and no other', async () => {
  const payloads = many(50).map((_, index) => ({ payload: index === 25 ? '"bad"' : '{}' }))
  const ids = await ledger.submit(...payloads)
  const { executor } = quickExecutor((_, payload) => ({
    kind: 'succeeded',
    result: payload === '"bad"' ? 'this is no JSON' : '1',
  }))
  const { consume } = await node()
  consume(consumer({ concurrency: 50 }), executor)
  await allFinal(ids.length)
  expect(await ledger.count('succeeded')).toBe(49)
  const bad = await ledger.row(ids[25] as string)
  expect(bad.status).toBe('dead')
  expect(bad.error).toStartWith('The outcome cannot be stored: invalid input syntax for type json')
})

test('tasks of one claim start in the order of their priority, then of their age', async () => {
  const ids = await ledger.submit({ priority: 1 }, { priority: 9 }, { priority: 5 }, { priority: 9 }, { priority: 1 })
  const executor = heldExecutor()
  const { consume } = await node()
  consume(consumer({ concurrency: 5 }), executor)
  await until(() => executor.running().length === 5, { what: 'five starts' })
  expect(executor.running()).toEqual([1, 3, 2, 0, 4].map((index) => ids[index] as string))
  for (const id of executor.running()) executor.end(id)
})

test('nothing of a paused queue is claimed', async () => {
  const { db } = ledger.database
  await setQueuePaused(db, 'work', true)
  try {
    await ledger.submit({})
    let claims = 0
    const { pool } = ledger.database
    const { ran, executor } = quickExecutor()
    const { consume, dispatcher } = await node({
      dispatcher: {
        ledger: {
          async claimDue(request) {
            const tasks = await claimDueTasks(pool, request)
            claims++
            return tasks
          },
          claimed: async () => [],
        },
        nextDue: async () => new Map(),
      },
    })
    consume(consumer(), executor)
    dispatcher.wake('work')
    await until(() => claims > 0, { what: 'a claim' })
    await turns()
    expect(ran).toEqual([])
    expect(await ledger.count('pending')).toBe(1)
  } finally {
    await setQueuePaused(db, 'work', false)
  }
})

test('a node that stops under load gives back what it has not started, and another one runs it', async () => {
  const ids = await ledger.submit(...many(1_000))
  const { ran, executor } = quickExecutor()
  const first = await ledger.node()
  first.consume(consumer({ concurrency: 5 }), executor)
  await until(() => ran.length > 300, { what: 'progress' })
  await first.stop()
  expect(await ledger.count('running')).toBe(0)
  expect(await ledger.count('succeeded')).toBe(ran.length)
  const { consume } = await node()
  consume(consumer({ concurrency: 5 }), executor)
  await allFinal(ids.length)
  expect(ran.sort()).toEqual(ids.sort())
})
