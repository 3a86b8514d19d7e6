import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { cancelTasks } from '../../../src/store/tasks/cancel.ts'
import { replayTasks } from '../../../src/store/tasks/dead-letters/replay.ts'
import { SETTLE, settleTasks } from '../../../src/store/tasks/settle.ts'
import type { Outcome } from '../../../src/task/outcome.ts'
import type { RetryPolicy } from '../../../src/task/retry-policy.ts'
import type { ClaimedTask } from '../../../src/task/task.ts'
import { ENGINES } from '../../support/database.ts'
import {
  atOnce,
  connect,
  DEAD,
  FAILED,
  LOST,
  RETURNED,
  SUCCEEDED,
  settlementOf,
  type TaskLedger,
  taskLedger,
} from '../../support/tasks.ts'

describe.each(ENGINES)('settle on %s', (engine) => {
  let ledger: TaskLedger
  beforeAll(async () => {
    ledger = await taskLedger(engine)
  })
  afterEach(() => ledger.clear())
  afterAll(() => ledger.test.drop())

  const claimed = async (): Promise<ClaimedTask> => ledger.claimOne(await ledger.insert())

  test('ends a batch in one call and answers in its order', async () => {
    const ids = await ledger.insertMany([{}, {}, {}, {}, {}])
    const tasks = await ledger.claim(5)
    const outcomes: Outcome[] = [SUCCEEDED, DEAD, { kind: 'snoozed', delayMs: 5_000 }, { kind: 'cancelled' }, FAILED]
    const settlements = tasks.map((task, i) => settlementOf(task, outcomes[i] as Outcome)).toReversed()

    const settled = await settleTasks(ledger.pool, ledger.node, settlements, () => ({
      maxAttempts: 3,
      backoff: { kind: 'fixed', base: '7s', jitter: 0 },
    }))

    expect(settled).toEqual([
      { id: ids[4] as string, late: false, status: 'retrying', delayMs: 7_000 },
      { id: ids[3] as string, late: false, status: 'cancelled', delayMs: 0 },
      { id: ids[2] as string, late: false, status: 'pending', delayMs: 5_000 },
      { id: ids[1] as string, late: false, status: 'dead', delayMs: 0 },
      { id: ids[0] as string, late: false, status: 'succeeded', delayMs: 0 },
    ])
    const { rows } = await ledger.pool.query<{ seconds: number; final: boolean }>(
      `select extract(epoch from due_at - (select max(finished_at) from tasks))::int as seconds, finished_at is not null as final
       from tasks order by id`,
    )
    expect(rows.map((row) => row.final)).toEqual([true, true, false, true, false])
    expect([rows[2]?.seconds, rows[4]?.seconds]).toEqual([5, 7])
    expect(await settleTasks(ledger.pool, ledger.node, [], atOnce)).toEqual([])
  })

  test('keeps results, errors and responses to the letter, and the story of each attempt', async () => {
    const first = await claimed()
    const response = { status: 503, body: 'a "quoted" \\ line\n\u2028 and 🚢 \uFFFD' }
    await ledger.settle(first, { kind: 'failed', retryable: true, error: "it's\n'all' \\ 🚢", response })
    expect(await ledger.row(first.id)).toMatchObject({ status: 'retrying', failures: 1, error: "it's\n'all' \\ 🚢" })

    const result = '{ "z": 1.0, "a": 12345678901234567890, "nul": "\\u0000" }'
    await ledger.run(first.id, { kind: 'succeeded', result, response: { status: 200, body: '' } })

    const row = await ledger.row(first.id)
    expect(row).toMatchObject({ status: 'succeeded', result, error: null, failures: 1, attempt: 2 })
    expect(row.attempts).toMatchObject([
      { number: 1, node: ledger.node, outcome: 'failed', error: "it's\n'all' \\ 🚢", response },
      { number: 2, node: ledger.node, outcome: 'succeeded', error: null, response: { status: 200, body: '' } },
    ])
    for (const { startedAt, finishedAt } of row.attempts)
      expect(new Date(finishedAt as string).getTime()).toBeGreaterThanOrEqual(new Date(startedAt as string).getTime())
    expect(row.finished_at).toBe(new Date(row.attempts[1]?.finishedAt as string).toISOString())
  })

  test('keeps the last 20 attempts; give-backs leave no trace but their number', async () => {
    const id = await ledger.insert({ maxAttempts: 100 })
    for (let i = 0; i < 25; i++) await ledger.run(id, i === 10 ? RETURNED : FAILED)
    const numbers = (await ledger.row(id)).attempts.map((attempt) => attempt.number)
    expect(numbers).toEqual([5, 6, 7, 8, 9, 10, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25])
  })

  test('a task that is given back keeps its place in the line', async () => {
    const [first, second] = await ledger.insertMany([{}, {}])
    await ledger.pool.query(`update tasks set due_at = '2020-01-01' where id = $1`, [first])
    const [task] = await ledger.claim(1)
    expect(task?.id).toBe(first as string)
    expect(await ledger.settle(task as ClaimedTask, RETURNED)).toMatchObject({ status: 'pending', delayMs: 0 })
    expect((await ledger.claim(2)).map((one) => one.id)).toEqual([first, second] as string[])
  })

  test('failures never pass the limit, and only failures count against it', async () => {
    const id = await ledger.insert({ maxAttempts: 2 })
    for (const outcome of [LOST, RETURNED, FAILED, { kind: 'snoozed', delayMs: 0 } as const, LOST])
      await ledger.run(id, outcome)
    expect(await ledger.row(id)).toMatchObject({ status: 'pending', failures: 1, lost_starts: 1 })
    await ledger.run(id, FAILED)
    expect(await ledger.row(id)).toMatchObject({ status: 'dead', failures: 2, attempt: 6, lost_starts: 0 })
  })

  test('4: a settle needs its attempt, its node and a running task: everything else is late and dropped', async () => {
    const task = await claimed()
    const other = await ledger.join()
    const before = await ledger.row(task.id)
    expect(await ledger.settle(task, SUCCEEDED, other)).toEqual({ id: task.id, late: true })
    expect(await ledger.settle({ ...task, attempt: 2 }, SUCCEEDED)).toEqual({ id: task.id, late: true })
    expect(await ledger.settle({ ...task, attempt: 0 }, FAILED)).toEqual({ id: task.id, late: true })
    expect(await ledger.row(task.id)).toEqual(before)

    expect((await ledger.settle(task, DEAD)).late).toBe(false)
    const ended = await ledger.row(task.id)
    for (const outcome of [SUCCEEDED, FAILED, RETURNED, LOST, { kind: 'cancelled' } as const])
      expect(await ledger.settle(task, outcome)).toEqual({ id: task.id, late: true })
    expect(await ledger.row(task.id)).toEqual(ended)
  })

  test('4: a late settlement in a batch harms no other, and a newer attempt beside it is told apart', async () => {
    const [a, b] = await ledger.insertMany([{}, {}])
    const [first, neighbour] = await ledger.claim(2)
    await ledger.settle(first as ClaimedTask, RETURNED)
    const second = await ledger.claimOne(a as string)
    const settled = await settleTasks(
      ledger.pool,
      ledger.node,
      [
        settlementOf(first as ClaimedTask, DEAD),
        settlementOf(second, SUCCEEDED),
        settlementOf(neighbour as ClaimedTask, DEAD),
      ],
      atOnce,
    )
    expect(settled).toEqual([
      { id: a as string, late: true },
      { id: a as string, late: false, status: 'succeeded', delayMs: 0 },
      { id: b as string, late: false, status: 'dead', delayMs: 0 },
    ])
  })

  test('4: a late success is taken while the task waits with that attempt, whatever it waits for', async () => {
    for (const status of ['pending', 'queued', 'retrying']) {
      const task = await claimed()
      await ledger.settle(task, LOST)
      await ledger.pool.query('update tasks set status = $2 where id = $1', [task.id, status])
      const result = { kind: 'succeeded', result: '"late"' } as const
      expect(await ledger.settle(task, result, await ledger.join())).toEqual({ id: task.id, late: true })
      expect(await ledger.settle({ ...task, attempt: 2 }, result)).toEqual({ id: task.id, late: true })
      expect(await ledger.settle(task, result)).toMatchObject({ late: false, status: 'succeeded' })
      expect(await ledger.row(task.id)).toMatchObject({ status: 'succeeded', result: '"late"', lost_starts: 0 })
    }
  })

  test('4: every other late outcome is dropped, and a late success is once another attempt began or the task is final', async () => {
    const lost = await claimed()
    await ledger.settle(lost, LOST)
    for (const outcome of [
      FAILED,
      DEAD,
      RETURNED,
      LOST,
      { kind: 'cancelled' } as const,
      { kind: 'snoozed', delayMs: 1 } as const,
    ])
      expect(await ledger.settle(lost, outcome)).toEqual({ id: lost.id, late: true })
    const again = await ledger.claimOne(lost.id)
    expect(await ledger.settle(lost, SUCCEEDED)).toEqual({ id: lost.id, late: true })
    expect(await ledger.status(lost.id)).toBe('running')
    await ledger.settle(again, LOST)
    await cancelTasks(ledger.pool, [lost.id])
    expect(await ledger.settle(again, SUCCEEDED)).toEqual({ id: lost.id, late: true })
    expect(await ledger.status(lost.id)).toBe('cancelled')
  })

  test('6: lost attempts spend no failure; after five lost starts in a row the task is dead', async () => {
    const id = await ledger.insert()
    for (let i = 1; i <= 4; i++) {
      expect(await ledger.run(id, LOST)).toMatchObject({ status: 'pending' })
      expect(await ledger.row(id)).toMatchObject({ lost_starts: i, failures: 0, error: LOST.error })
    }
    expect(await ledger.run(id, { ...LOST, started: false })).toMatchObject({ status: 'pending' })
    expect(await ledger.row(id)).toMatchObject({ lost_starts: 4 })
    expect(await ledger.run(id, LOST)).toMatchObject({ status: 'dead' })
    const row = await ledger.row(id)
    expect(row).toMatchObject({ failures: 0, lost_starts: 5 })
    expect(row.error).toContain('lost 5 times in a row')
    expect(row.attempts.map((attempt) => attempt.outcome)).toEqual(Array(6).fill('lost'))

    await replayTasks(ledger.pool, [id])
    expect(await ledger.row(id)).toMatchObject({ status: 'pending', lost_starts: 0 })
  })

  test('6: anything but a loss ends the row of lost starts', async () => {
    const id = await ledger.insert()
    for (let i = 0; i < 4; i++) await ledger.run(id, LOST)
    await ledger.run(id, FAILED)
    for (let i = 0; i < 4; i++) await ledger.run(id, LOST)
    expect(await ledger.row(id)).toMatchObject({ status: 'pending', lost_starts: 4, failures: 1 })
  })

  test('7: a cancel is remembered: every outcome but success ends in cancelled', async () => {
    const outcomes = [
      FAILED,
      DEAD,
      RETURNED,
      LOST,
      { kind: 'cancelled' } as const,
      { kind: 'snoozed', delayMs: 9 } as const,
    ]
    for (const outcome of outcomes) {
      const task = await claimed()
      expect(await ledger.cancel(task.id)).toBe('requested')
      expect(await ledger.settle(task, outcome)).toMatchObject({ status: 'cancelled' })
      const row = await ledger.row(task.id)
      expect(row.finished_at).not.toBeNull()
      expect(row.cancel_requested).toBe(true)
    }
    const done = await claimed()
    await ledger.cancel(done.id)
    expect(await ledger.settle(done, SUCCEEDED)).toMatchObject({ status: 'succeeded' })
  })

  test('takes the policy of each task’s own queue', async () => {
    await ledger.queue('slow')
    const [here, there] = await ledger.insertMany([{}, { queue: 'slow' }])
    const tasks = [await ledger.claimOne(here as string), await ledger.claimOne(there as string)]
    const retryOf = (queue: string): RetryPolicy => ({
      maxAttempts: 3,
      backoff: { kind: 'fixed', base: queue === 'slow' ? '60s' : '1s', jitter: 0 },
    })
    const settled = await settleTasks(
      ledger.pool,
      ledger.node,
      tasks.map((task) => settlementOf(task, FAILED)),
      retryOf,
    )
    expect(settled.map((one) => (one.late ? -1 : one.delayMs))).toEqual([1_000, 60_000])
  })

  test('23: two nodes that end and lose the same attempts in opposite orders both finish', async () => {
    const ids = await ledger.insertMany(Array.from({ length: 300 }, () => ({})))
    const tasks = await ledger.claim(300)
    const other = await ledger.join()
    await Promise.all(
      Array.from({ length: 12 }, (_, lane) => {
        const mine = (lane % 2 ? tasks : tasks.toReversed()).map((task) =>
          settlementOf(task, lane % 3 ? LOST : SUCCEEDED),
        )
        return settleTasks(ledger.pool, lane % 4 ? ledger.node : other, mine, atOnce)
      }),
    )
    const { rows } = await ledger.pool.query<{ count: number }>(
      `select count(*)::int as count from tasks where id = any($1::uuid[]) and status in ('pending', 'succeeded')`,
      [ids],
    )
    expect(rows[0]?.count).toBe(300)
  }, 20_000)

  test('finds its rows by their primary key among 200,000', async () => {
    const { pool, node } = ledger
    const client = await connect(ledger.test)
    await client.query(
      `insert into tasks (id, queue, payload, priority, due_at, max_attempts, origin, status, node)
       select gen_random_uuid(), 'default', '{}', 0, now(), 3, 'api',
         case when i % 400 = 0 then 'running' else 'pending' end::task_status, $1::uuid
       from generate_series(1, 200000) i`,
      [node],
    )
    await client.query('vacuum analyze tasks')
    const { rows: ids } = await pool.query<{ id: string }>(
      `select id from tasks where status = 'running' order by id desc`,
    )
    const list = (value: string) => `'{${ids.map(() => value).join(',')}}'`
    const values = `'{${ids.map((row) => row.id).join(',')}}', ${list('0')}, ${list('succeeded')}, ${list('succeeded')},
      ${list('0')}, ${list('0')}, ${list('0')}, ${list('null')}, ${list('null')}, ${list('null')}, '${node}'`
    try {
      await client.query(
        `prepare settle (uuid[], int[], text[], text[], int[], int[], float8[], text[], text[], text[], uuid) as ${SETTLE}`,
      )
      for (const mode of ['force_custom_plan', 'force_generic_plan']) {
        await client.query(`set plan_cache_mode = ${mode}; begin`)
        const { rows } = await client.query(`explain (analyze) execute settle (${values})`)
        await client.query('rollback')
        const plan = rows.map((row) => row['QUERY PLAN']).join('\n')
        expect(plan).toMatch(/Index Scan using tasks_pkey on tasks t .*loops=500\)/)
        expect(plan).not.toContain('Seq Scan')
        expect(plan).not.toContain('tasks_unfinished')
      }
    } finally {
      await client.end()
    }
  }, 180_000)
})
