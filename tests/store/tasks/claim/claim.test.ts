import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { v7 } from 'uuid'
import { CLAIM_DUE, claimDueTasks, claimedTasks, nextDue } from '../../../../src/store/tasks/claim/claim.ts'
import { replayTasks } from '../../../../src/store/tasks/dead-letters/replay.ts'
import { ENGINES } from '../../../support/database.ts'
import {
  connect,
  DEAD,
  FAILED,
  LOST,
  RETURNED,
  SUCCEEDED,
  type TaskLedger,
  taskLedger,
} from '../../../support/tasks.ts'
import { until } from '../../../support/until.ts'

describe.each(ENGINES)('claim on %s', (engine) => {
  let ledger: TaskLedger
  beforeAll(async () => {
    ledger = await taskLedger(engine)
  })
  afterEach(() => ledger.clear())
  afterAll(() => ledger.test.drop())

  const soon = (ms: number) => new Date(Date.now() + ms).toISOString()

  test('takes the highest priority first, then the longest due, then the oldest, and tells what a worker needs', async () => {
    const [low, lowLater, high, alsoHigh] = await ledger.insertMany([
      { priority: 1, payload: '{"b":1.0,"a":[]}', type: 'mail', timeoutMs: 5, target: '{"type": "noop"}' },
      { priority: 1 },
      { priority: 9 },
      { priority: 9 },
    ])
    await ledger.pool.query(`update tasks set due_at = now() - interval '1 h' where id = $1`, [lowLater])
    await ledger.pool.query(`update tasks set due_at = '2020-01-01' where id = any($1::uuid[])`, [[high, alsoHigh]])

    const claimed = await ledger.claim(10)

    expect(claimed.map((task) => task.id)).toEqual([high, alsoHigh, lowLater, low] as string[])
    expect(claimed[3]).toMatchObject({
      id: low as string,
      queue: 'default',
      type: 'mail',
      payload: '{"b":1.0,"a":[]}',
      target: '{"type": "noop"}',
      priority: 1,
      attempt: 1,
      failures: 0,
      maxAttempts: 3,
      lostStarts: 0,
      timeoutMs: 5,
      parentId: null,
      origin: 'api',
      createdAt: (await ledger.row(low as string)).created_at,
    })
    const row = await ledger.row(low as string)
    expect(row).toMatchObject({ status: 'running', attempt: 1, node: ledger.node, finished_at: null })
    expect(row.started_at).not.toBeNull()
  })

  test('orders tasks that came due within the same millisecond', async () => {
    const ids = await ledger.insertMany(Array.from({ length: 9 }, () => ({})))
    const backwards = ids.toReversed()
    await ledger.pool.query(
      `update tasks t set due_at = timestamptz '2020-01-01' + o.n * interval '1 us'
       from unnest($1::uuid[]) with ordinality as o(id, n) where t.id = o.id`,
      [backwards],
    )
    expect((await ledger.claim(9)).map((task) => task.id)).toEqual(backwards)
  })

  test('takes no more than the limit, and the rest the next time', async () => {
    const ids = await ledger.insertMany([{ priority: 2 }, { priority: 5 }, { priority: 5 }, { priority: 7 }])
    expect((await ledger.claim(3)).map((task) => task.id)).toEqual([ids[3], ids[1], ids[2]] as string[])
    expect((await ledger.claim(3)).map((task) => task.id)).toEqual([ids[0]] as string[])
    expect(await ledger.claim(3)).toEqual([])
  })

  test('takes due tasks that wait for a retry, and none that is not due, final or on another queue', async () => {
    await ledger.queue('other')
    const [retrying, later, done, dead] = await ledger.insertMany([{ priority: 9 }, { delayMs: 60_000 }, {}, {}])
    await ledger.insert({ queue: 'other' })
    await ledger.run(done as string, SUCCEEDED)
    await ledger.run(dead as string, DEAD)
    await ledger.run(retrying as string, FAILED)
    expect(await ledger.status(retrying as string)).toBe('retrying')

    const claimed = await ledger.claim(10)

    expect(claimed.map((task) => [task.id, task.failures])).toEqual([[retrying, 1]] as never)
    expect(await ledger.status(later as string)).toBe('pending')
  })

  test('takes nothing from a paused queue or one that does not exist', async () => {
    await ledger.queue('paused', true)
    await ledger.insert({ queue: 'paused' })
    expect(await ledger.claim(10, { queue: 'paused' })).toEqual([])
    expect(await ledger.claim(10, { queue: 'nowhere' })).toEqual([])
    await ledger.pool.query(`update queues set paused = false where name = 'paused'`)
    expect(await ledger.claim(10, { queue: 'paused' })).toHaveLength(1)
  })

  test('1: attempt numbers are never reused: claim, failure, snooze, loss, give-back and replay each spend one', async () => {
    const id = await ledger.insert({ maxAttempts: 5 })
    const numbers: number[] = []
    const snoozed = { kind: 'snoozed', delayMs: 0 } as const
    for (const outcome of [RETURNED, FAILED, snoozed, LOST, RETURNED, FAILED, DEAD]) {
      const task = await ledger.claimOne(id)
      numbers.push(task.attempt)
      await ledger.settle(task, outcome)
    }
    expect(numbers).toEqual([1, 2, 3, 4, 5, 6, 7])
    await replayTasks(ledger.pool, [id])
    expect((await ledger.claimOne(id)).attempt).toBe(8)
  })

  test('2: claims are repeatable: the same claim gives its rows again, in its order, and only to its node', async () => {
    await ledger.insertMany([{ priority: 1 }, { priority: 3 }, { priority: 2 }, { priority: 0 }])
    const request = { claimId: v7(), node: ledger.node, queue: 'default', limit: 3 }
    const claimed = await claimDueTasks(ledger.pool, request)

    expect(await claimedTasks(ledger.pool, request)).toEqual(claimed.map(({ waitedMs: _, ...task }) => task))
    expect(await claimedTasks(ledger.pool, { ...request, node: await ledger.join() })).toEqual([])
    expect(await claimedTasks(ledger.pool, { ...request, claimId: v7() })).toEqual([])
    await ledger.settle(claimed[0] as never, SUCCEEDED)
    await ledger.settle(claimed[1] as never, RETURNED)
    expect((await claimedTasks(ledger.pool, request)).map((task) => task.id)).toEqual([claimed[2]?.id] as string[])
  })

  test('2: a claim whose answer was lost with its connection is found again by its id', async () => {
    const ids = await ledger.insertMany([{}, {}])
    const request = { claimId: v7(), node: ledger.node, queue: 'default', limit: 10 }
    const client = await connect(ledger.test)
    const { rows } = await client.query<{ pid: number }>('select pg_backend_pid() as pid')
    // Commits within the statement, and holds back the answer until the backend is killed.
    const lost = client.query(`begin; ${inlined(CLAIM_DUE.due, request)}; commit; select pg_sleep(30)`)
    const failure = lost.then(
      () => undefined,
      (error: Error) => error,
    )
    await until(async () => (await ledger.status(ids[0] as string)) === 'running', {
      what: 'the claim to be committed',
    })
    await ledger.pool.query('select pg_terminate_backend($1)', [rows[0]?.pid])
    expect(await failure).toBeInstanceOf(Error)

    expect((await claimedTasks(ledger.pool, request)).map((task) => task.id)).toEqual(ids)
    await client.end().catch(() => {})
  })

  test('2: concurrent claims never take the same task', async () => {
    await ledger.insertMany(Array.from({ length: 400 }, (_, i) => ({ priority: i % 3 })))
    const nodes = await Promise.all([ledger.join(), ledger.join(), ledger.join()])
    const taken: string[] = []
    await Promise.all(
      Array.from({ length: 9 }, async (_, lane) => {
        // A claim passes over what others hold at that moment, so an empty one is not the end.
        while (taken.length < 400) {
          const claimed = await ledger.claim(13, { node: nodes[lane % 3] as string })
          taken.push(...claimed.map((task) => task.id))
        }
      }),
    )
    expect(new Set(taken).size).toBe(400)
    expect(taken).toHaveLength(400)
    const { rows } = await ledger.pool.query(`select distinct status, attempt from tasks`)
    expect(rows).toEqual([{ status: 'running', attempt: 1 }])
  })

  test('says how long it is until the next task of each queue is due', async () => {
    await ledger.queue('late')
    await ledger.queue('paused', true)
    await ledger.queue('far')
    await ledger.queue('idle')
    await ledger.insertMany([
      { delayMs: 60_000, priority: 9 },
      { delayMs: 5_000 },
      { queue: 'late' },
      { queue: 'paused' },
      { queue: 'far', dueAt: soon(60_000) },
    ])
    const due = await nextDue(ledger.pool, ['default', 'late', 'paused', 'far', 'idle', 'unknown'], 6_000)
    expect([...due.keys()].sort()).toEqual(['default', 'late'])
    expect(due.get('late')).toBe(0)
    expect(due.get('default')).toBeGreaterThan(0)
    expect(due.get('default')).toBeLessThanOrEqual(5_000)
  })

  test('finds its tasks by one index probe a priority among 200,000, whatever waits for later', async () => {
    const { node } = ledger
    const client = await connect(ledger.test)
    await client.query(
      `insert into tasks (id, queue, payload, priority, due_at, max_attempts, origin)
       select gen_random_uuid(), 'default', '{}', i % 10,
         now() + case when i % 10 > 6 then interval '1 hour' else interval '-1 s' end, 3, 'api'
       from generate_series(1, 200000) i`,
    )
    await client.query('vacuum analyze tasks')
    try {
      const values = { queue: 'default', limit: 50, node, claimId: v7() }
      const plans = [await client.query(`explain (analyze, buffers) ${inlined(CLAIM_DUE.due, values)}`)]
      await client.query(
        `set plan_cache_mode = force_generic_plan; prepare claim (text, bigint, uuid, uuid) as ${CLAIM_DUE.due}`,
      )
      plans.push(
        await client.query(`explain (analyze, buffers) execute claim ('default', 50, '${node}', '${values.claimId}')`),
      )
      for (const { rows } of plans) {
        const plan = rows.map((row) => row['QUERY PLAN']).join('\n')
        expect(plan).toContain('Index Scan using tasks_waiting')
        expect(plan).toContain('Index Scan using tasks_pkey')
        expect(plan).not.toContain('Seq Scan on tasks')
        // The three priorities that wait for later, the one that has enough, and none of the six below it.
        expect(plan).toMatch(/tasks_waiting on tasks t_1 .*loops=4\)/)
        expect(plan).not.toContain('Rows Removed')
      }
    } finally {
      await client.end()
    }
  }, 180_000)
})

function inlined(text: string, values: { queue: string; limit: number; node: string; claimId: string }): string {
  const { queue, limit, node, claimId } = values
  return text
    .replaceAll('$1', `'${queue}'`)
    .replaceAll('$2', String(limit))
    .replaceAll('$3', `'${node}'`)
    .replaceAll('$4', `'${claimId}'`)
}
