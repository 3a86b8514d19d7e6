import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { v7 } from 'uuid'
import { beatNode, leaveNode } from '../../../../src/store/nodes.ts'
import {
  returnLostPublishes,
  returnQueuedTasks,
  takeUnreported,
} from '../../../../src/store/tasks/at-broker/lost-publishes.ts'
import { claimDeliveries } from '../../../../src/store/tasks/claim/claim-deliveries.ts'
import {
  CLAIM_FOR_BROKER,
  claimedForBroker,
  claimForBroker,
  finishConfirmed,
} from '../../../../src/store/tasks/claim/claim-for-broker.ts'
import { LIMITS } from '../../../../src/task/limits.ts'
import { ENGINES } from '../../../support/database.ts'
import { connect, IDLE, type TaskLedger, taskLedger } from '../../../support/tasks.ts'

describe.each(ENGINES)('claims for a broker on %s', (engine) => {
  let ledger: TaskLedger
  let publishNo = 0
  beforeAll(async () => {
    ledger = await taskLedger(engine)
  })
  afterEach(() => ledger.clear())
  afterAll(() => ledger.test.drop())

  const claim = (changes: Partial<Parameters<typeof claimForBroker>[1]> = {}) =>
    claimForBroker(ledger.pool, {
      queue: 'default',
      node: ledger.node,
      publishNo: ++publishNo,
      limit: 10,
      window: 100,
      order: 'due',
      ...changes,
    })
  const ids = ({ tasks }: Awaited<ReturnType<typeof claimForBroker>>) => tasks.map(({ id }) => id)
  const set = (id: string, what: string) => ledger.pool.query(`update tasks set ${what} where id = $1`, [id])

  test('takes the highest priority first, and what the message needs', async () => {
    const [low, high] = await ledger.insertMany([{ payload: '{"a":1.0}', type: 'mail' }, { priority: 9 }])
    const { tasks, full } = await claim()
    expect(tasks.map(({ id }) => id)).toEqual([high, low] as string[])
    expect(tasks[1]).toMatchObject({ queue: 'default', type: 'mail', payload: '{"a":1.0}', attempt: 1, priority: 0 })
    expect(full).toBe(false)
    expect(await ledger.row(low as string)).toMatchObject({ status: 'queued', attempt: 0 })
  })

  test('PROTOCOL 10: what is out counts against the window, whoever sent it, and the claim says that it is full', async () => {
    await ledger.insertMany(Array.from({ length: 8 }, () => ({})))
    expect(await claim({ window: 5, limit: 3 })).toMatchObject({ full: false, tasks: { length: 3 } })
    expect(await claim({ window: 5, node: await ledger.join() })).toMatchObject({ full: true, tasks: { length: 2 } })
    expect(await claim({ window: 5 })).toEqual({ full: true, tasks: [] })
    expect(await claim({ window: 9 })).toMatchObject({ full: false, tasks: { length: 3 } })
  })

  test('a claim that is still committing when its answer is looked for is waited for; one that comes later takes nothing', async () => {
    const [task] = await ledger.insertMany([{}])
    const request = {
      ...{ queue: 'default', node: ledger.node, publishNo: ++publishNo, limit: 10, window: 100 },
      order: 'due' as const,
    }
    const late = await ledger.pool.connect()
    try {
      await late.query('begin')
      await late.query(CLAIM_FOR_BROKER.due.whole, ['default', ledger.node, publishNo, 10, 100])
      const looked = claimedForBroker(ledger.pool, request)
      expect(await Promise.race([looked, ledger.pool.query('select pg_sleep(0.1)').then(() => 'waits')])).toBe('waits')
      await late.query('commit')
      expect((await looked)?.tasks.map(({ id }) => id)).toEqual([task] as string[])
    } finally {
      late.release()
    }
    await ledger.insertMany([{}])
    await ledger.pool.query('update nodes set confirmed = $2 where id = $1', [ledger.node, publishNo + 1])
    expect(await claimForBroker(ledger.pool, { ...request, publishNo: ++publishNo })).toMatchObject({ tasks: [] })
    await ledger.pool.query('update nodes set confirmed = 0 where id = $1', [ledger.node])
  })

  test('passes over what has to go through an exchange that is not to be published to, and not over its retries', async () => {
    const [through, retried, plain] = (await ledger.insertMany([{}, {}, {}])) as [string, string, string]
    await set(through, `exchange = 'orders', routing_key = 'k'`)
    await set(retried, `exchange = 'orders', routing_key = 'k', attempt = 1`)
    for (const order of ['due', 'random'] as const) {
      expect(ids(await claim({ notThrough: ['orders'], order })).sort()).toEqual([retried, plain].sort())
      await ledger.pool.query(`update tasks set status = 'pending', publisher = null where status = 'queued'`)
    }
    expect(ids(await claim({ notThrough: ['others'] }))).toHaveLength(3)
  })

  test('takes nothing of a queue that is paused, in conflict, or in the hands of another dispatcher', async () => {
    await ledger.insert()
    await ledger.pool.query(`update queues set paused = true where name = 'default'`)
    expect(ids(await claim())).toEqual([])
    await ledger.pool.query(`update queues set paused = false, conflict = 'it is classic'`)
    expect(ids(await claim())).toEqual([])
    await ledger.pool.query('update queues set conflict = null')
    const other = await connect(ledger.test)
    await other.query('begin')
    await other.query(`select from queues where name = 'default' for update`)
    expect(ids(await claim())).toEqual([])
    await other.query('rollback')
    await other.end()
    expect(ids(await claim())).toHaveLength(1)
  })

  test('order random takes any of those that are due, in no order', async () => {
    const all = await ledger.insertMany(Array.from({ length: 60 }, () => ({})))
    const first = ids(await claim({ limit: 30, order: 'random' }))
    expect(first.toSorted()).not.toEqual(all.slice(0, 30).toSorted())
    expect([...first, ...ids(await claim({ limit: 60, order: 'random' }))].sort()).toEqual(all.sort())
  })

  test('PROTOCOL 2: a claim whose answer was lost tells again what it took', async () => {
    await ledger.insertMany([{}, {}])
    const request = {
      queue: 'default',
      node: ledger.node,
      publishNo: ++publishNo,
      limit: 10,
      window: 10,
      order: 'due' as const,
    }
    const taken = await claimForBroker(ledger.pool, request)
    expect(await claimedForBroker(ledger.pool, request)).toEqual(taken)
    expect(await claimedForBroker(ledger.pool, { ...request, publishNo: publishNo + 1 })).toBeUndefined()
  })

  test('PROTOCOL 11: of a node that is gone, what it had not surely published goes back in line, and nothing else', async () => {
    const node = await ledger.join()
    await ledger.insertMany([{}, {}])
    const sure = ids(await claim({ node, publishNo: 7, limit: 1 }))
    const unsure = ids(await claim({ node, publishNo: 8 }))
    await beatNode(ledger.pool, { node, held: [], started: [], confirmed: 7, state: IDLE })
    expect(await returnLostPublishes(ledger.pool, 10)).toEqual([])
    await ledger.pool.query('update nodes set dead_at = now() where id = $1', [node])
    expect(await returnLostPublishes(ledger.pool, 10)).toEqual([{ id: unsure[0] as string, queue: 'default' }])
    expect(await ledger.row(unsure[0] as string)).toMatchObject({ status: 'pending', attempt: 0 })
    expect(await ledger.status(sure[0] as string)).toBe('queued')
  })

  test('PROTOCOL 11: a node that leaves in order tells up to where it is confirmed', async () => {
    const node = await ledger.join()
    await ledger.insert()
    await claim({ node, publishNo: 3 })
    await leaveNode(ledger.pool, node, 3)
    expect(await returnLostPublishes(ledger.pool, 10)).toEqual([])
  })

  test('a task that came back to the line and whose message did arrive is run once', async () => {
    const id = await ledger.insert()
    await claim()
    await returnQueuedTasks(ledger.pool, [id])
    const deliver = (claimId: string) =>
      claimDeliveries(ledger.pool, {
        claimId,
        node: ledger.node,
        queue: 'default',
        deliveries: [{ kind: 'task', id, attempt: 1 }],
      })
    // It waits in line: the message of the first publish finds nothing to begin.
    expect(await deliver(v7())).toEqual([{ kind: 'duplicate' }])
    await claim()
    expect(await deliver(v7())).toMatchObject([{ kind: 'claimed', task: { id, attempt: 1 } }])
    expect(await deliver(v7())).toEqual([{ kind: 'duplicate' }])
  })

  test('PROTOCOL 18: a task that nobody reported of in time is lost and sent again, and dead when that repeats', async () => {
    await ledger.pool.query(`update queues set report_within_ms = 60000 where name = 'default'`)
    const id = await ledger.insert()
    for (let lost = 1; lost <= LIMITS.lostStarts; lost++) {
      await claim()
      expect(await takeUnreported(ledger.pool, 10)).toEqual([])
      await set(id, `report_by = now() - interval '1 s'`)
      expect(await takeUnreported(ledger.pool, 10)).toMatchObject([{ id, queue: 'default' }])
      const { status, attempt, failures, attempts } = await ledger.row(id)
      expect({ attempt, failures }).toEqual({ attempt: lost, failures: 0 })
      expect(attempts.at(-1)).toMatchObject({ number: lost, outcome: 'lost', error: 'no consumer reported in time' })
      expect(status).toBe(lost < LIMITS.lostStarts ? 'pending' : 'dead')
    }
  })

  test('PROTOCOL 19: a confirm finishes the task while it is queued by that very publish', async () => {
    const parent = await ledger.insert()
    const [mine, returned] = await ledger.insertMany([{ parentId: parent }, { parentId: parent }])
    await ledger.pool.query(`update tasks set due_at = now() + interval '1 h' where id = $1`, [parent])
    await claim({ publishNo: 50 })
    await returnQueuedTasks(ledger.pool, [returned as string])
    await finishConfirmed(ledger.pool, ledger.node, 50, [mine as string, returned as string])
    expect(await ledger.row(mine as string)).toMatchObject({
      status: 'succeeded',
      attempt: 1,
      attempts: [{ number: 1, outcome: 'succeeded' }],
    })
    expect(await ledger.status(returned as string)).toBe('pending')
    expect(await ledger.row(parent)).toMatchObject({ children_total: 2, children_succeeded: 1 })
  })

  test('the claim finds its tasks by the index of the line, and what is out by the one of the queued', async () => {
    await ledger.pool.query(
      `insert into tasks (id, queue, payload, priority, due_at, max_attempts, origin, status)
       select gen_random_uuid(), 'default', '1', n % 3, now() - n * interval '1 s', 3, 'api',
         case when n % 5 = 0 then 'queued' when n % 5 = 1 then 'pending' else 'succeeded' end::task_status
       from generate_series(1, 20000) n`,
    )
    await ledger.pool.query('analyze tasks')
    for (const claim of Object.values(CLAIM_FOR_BROKER.due)) {
      const text = claim.replaceAll(
        /\$(\d)/g,
        (_, n) => ["'default'", `'${v7()}'`, '1', '100', '5000', `'{orders}'`][n - 1] ?? '',
      )
      const { rows } = await ledger.pool.query<{ 'QUERY PLAN': string }>(`explain ${text}`)
      const plan = rows.map((row) => row['QUERY PLAN']).join('\n')
      expect(plan).toContain('tasks_waiting')
      expect(plan).toContain('tasks_queued')
      expect(plan).not.toMatch(/Seq Scan on tasks/)
    }
  })
})
