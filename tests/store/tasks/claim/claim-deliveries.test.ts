import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { v7 } from 'uuid'
import { readStray } from '../../../../src/broker/stray.ts'
import { readAccounting } from '../../../../src/store/accounting.ts'
import { notePurged } from '../../../../src/store/tasks/at-broker/late-messages.ts'
import { CLAIM_QUEUED, claimDeliveries } from '../../../../src/store/tasks/claim/claim-deliveries.ts'
import { claimForBroker, finishConfirmed } from '../../../../src/store/tasks/claim/claim-for-broker.ts'
import { type DeadDelivery, judgeDeadDeliveries } from '../../../../src/store/tasks/dead-letters/dead-letters.ts'
import { replayTasks } from '../../../../src/store/tasks/dead-letters/replay.ts'
import { reportForeign } from '../../../../src/store/tasks/foreign-report.ts'
import { pruneTasks, removeTasks } from '../../../../src/store/tasks/remove.ts'
import type { Claim, DeliveryClaim, Stray } from '../../../../src/task/ledger.ts'
import { DEFAULT_RETRY_POLICY } from '../../../../src/task/retry-policy.ts'
import { messageProperties } from '../../../broker/arbitraries.ts'
import { ENGINES } from '../../../support/database.ts'
import { FAILED, SUCCEEDED, type TaskLedger, taskLedger } from '../../../support/tasks.ts'

const stray = (changes: Partial<Stray> = {}): Stray => ({
  id: v7(),
  payload: '{"b":1.0}',
  type: null,
  priority: 0,
  traceparent: null,
  message: { exchange: '', routingKey: 'default', properties: {}, headers: { 'x-from': 'pika' } },
  ...changes,
})

describe.each(ENGINES)('deliveries on %s', (engine) => {
  let ledger: TaskLedger
  let publishNo = 0
  beforeAll(async () => {
    ledger = await taskLedger(engine)
  })
  afterEach(() => ledger.clear())
  afterAll(() => ledger.test.drop())

  const publish = () =>
    claimForBroker(ledger.pool, {
      queue: 'default',
      node: ledger.node,
      publishNo: ++publishNo,
      limit: 100,
      window: 1_000,
      order: 'due',
    })
  const claim = (deliveries: DeliveryClaim[], changes: Partial<Claim> = {}) =>
    claimDeliveries(ledger.pool, { claimId: v7(), node: ledger.node, queue: 'default', deliveries, ...changes })
  const judge = (...deliveries: DeadDelivery[]) => judgeDeadDeliveries(ledger.pool, ledger.node, deliveries)
  const rejected = (of: DeadDelivery['of'], changes: Partial<DeadDelivery> = {}): DeadDelivery => ({
    of,
    queue: 'default',
    end: 'rejected',
    reason: 'A consumer rejected it',
    stray: stray(),
    ...changes,
  })
  const queued = async (): Promise<string> => {
    const id = await ledger.insert({ payload: '{"n":1.0}' })
    await publish()
    return id
  }

  test('a delivery begins the attempt that its message names, once', async () => {
    const id = await queued()
    const delivery = { kind: 'task', id, attempt: 1 } as const
    const answers = await claim([delivery, { ...delivery }])
    expect(answers.map(({ kind }) => kind).sort()).toEqual(['claimed', 'duplicate'])
    expect(answers.find(({ kind }) => kind === 'claimed')).toMatchObject({
      task: { id, attempt: 1, payload: '{"n":1.0}', maxAttempts: 3 },
    })
    expect(await ledger.row(id)).toMatchObject({ status: 'running', attempt: 1, node: ledger.node })
    expect(await claim([delivery], { node: await ledger.join() })).toEqual([{ kind: 'duplicate' }])
  })

  test('whatever headers and properties a message has, Postgres takes it, and the next ones with it', async () => {
    const bodies = fc.oneof(
      fc.uint8Array(),
      fc.json().map((json) => Buffer.from(json)),
    )
    const messages = fc.sample(fc.tuple(messageProperties, bodies), 300)
    const strays = messages.map(([properties, body]): DeliveryClaim => {
      const delivery = { queue: 'default', exchange: '', routingKey: 'default', redelivered: false, body, properties }
      const { reason, ...read } = readStray(delivery)
      return { ...read, id: v7(), ...(reason === undefined ? { kind: 'foreign' } : { kind: 'unreadable', reason }) }
    })
    const kinds = (await claim(strays)).map(({ kind }) => kind)
    expect(kinds).toEqual(strays.map(({ kind }) => (kind === 'foreign' ? 'claimed' : 'dead')))
    await ledger.pool.query('select message::jsonb from tasks')
  })

  test('PROTOCOL 2: the same claim again gives the same rows, and another claim of the same node does not', async () => {
    const id = await queued()
    const claimId = v7()
    const deliveries: DeliveryClaim[] = [{ kind: 'task', id, attempt: 1 }]
    const first = await claim(deliveries, { claimId })
    expect(await claim(deliveries, { claimId })).toMatchObject([{ kind: 'claimed', task: { id, attempt: 1 } }])
    expect(first).toMatchObject([{ kind: 'claimed' }])
    expect(await claim(deliveries)).toEqual([{ kind: 'duplicate' }])
  })

  test('PROTOCOL 1: a message of an earlier attempt is a duplicate, whatever became of the task', async () => {
    const id = await queued()
    const [first] = await claim([{ kind: 'task', id, attempt: 1 }])
    if (first?.kind !== 'claimed') throw new Error('not claimed')
    await ledger.settle(first.task, FAILED)
    await publish()
    expect(await claim([{ kind: 'task', id, attempt: 1 }])).toEqual([{ kind: 'duplicate' }])
    expect(await claim([{ kind: 'task', id, attempt: 2 }])).toMatchObject([{ kind: 'claimed', task: { attempt: 2 } }])
  })

  test('a queue that was paused meanwhile takes its task back to the line, with no attempt spent', async () => {
    const id = await queued()
    await ledger.pool.query(`update queues set paused = true`)
    expect(await claim([{ kind: 'task', id, attempt: 1 }])).toEqual([{ kind: 'duplicate' }])
    expect(await ledger.row(id)).toMatchObject({ status: 'pending', attempt: 0 })
  })

  test('a cancelled task’s message finds a final task', async () => {
    const id = await queued()
    expect(await ledger.cancel(id)).toBe('cancelled')
    expect(await claim([{ kind: 'task', id, attempt: 1 }])).toEqual([{ kind: 'duplicate' }])
  })

  test('PROTOCOL 14: a task that was cancelled while the broker had its message is not deleted before that came', async () => {
    const [late, begun] = [await queued(), await queued()]
    const [answer] = await claim([{ kind: 'task', id: begun, attempt: 1 }])
    if (answer?.kind !== 'claimed') throw new Error('not claimed')
    await ledger.cancel(late)
    await ledger.settle(answer.task, FAILED)
    await ledger.cancel(begun)
    const prune = () =>
      pruneTasks(ledger.pool, ledger.node, { queue: 'default', status: 'cancelled', keepMs: 0, limit: 10 })
    expect(await removeTasks(ledger.pool, ledger.node, [late, begun])).toEqual([
      { id: late, outcome: 'in-broker' },
      { id: begun, outcome: 'deleted' },
    ])
    expect(await prune()).toBe(0)
    expect(await claim([{ kind: 'task', id: late, attempt: 1 }])).toEqual([{ kind: 'duplicate' }])
    expect(await ledger.status(late)).toBe('cancelled')
    expect(await prune()).toBe(1)
  })

  test('PROTOCOL 14: after a day, or a purge, nothing is waited for', async () => {
    const [old, purged] = [await queued(), await queued()]
    await ledger.cancel(old)
    await ledger.cancel(purged)
    await ledger.pool.query(`update tasks set finished_at = now() - interval '25 hours' where id = $1`, [old])
    const remove = () => removeTasks(ledger.pool, ledger.node, [old, purged])
    expect((await remove()).map(({ outcome }) => outcome)).toEqual(['deleted', 'in-broker'])
    await notePurged(ledger.pool, 'default')
    expect((await remove()).map(({ outcome }) => outcome)).toEqual(['unknown', 'deleted'])
  })

  test('what a consumer of others has begun, rejected or confirmed by its broker has no message to wait for', async () => {
    const [reported, refused] = [await queued(), await queued()]
    await reportForeign(ledger.pool, reported, { status: 'succeeded' }, 'k1', () => DEFAULT_RETRY_POLICY)
    await judge(rejected({ kind: 'task', id: refused, attempt: 1 }))
    const confirmed = await queued()
    await finishConfirmed(ledger.pool, ledger.node, publishNo, [confirmed])
    const removed = await removeTasks(ledger.pool, ledger.node, [reported, refused, confirmed])
    expect(removed.map(({ outcome }) => outcome)).toEqual(['deleted', 'deleted', 'deleted'])
  })

  test('PROTOCOL 14: a message of a task that the ledger does not have is told as unknown and kept as a dead letter', async () => {
    const id = v7()
    expect(await claim([{ kind: 'task', id, attempt: 4 }])).toEqual([{ kind: 'unknown' }])
    const kept = stray({ id, message: { ...stray().message, body: 'e30=' } })
    expect(await claim([{ kind: 'unreadable', reason: 'no such task', ...kept }])).toEqual([{ kind: 'dead' }])
    expect(await ledger.row(id)).toMatchObject({ status: 'dead', error: 'no such task', origin: 'message' })
    expect(JSON.parse((await ledger.row(id)).message as string)).toEqual(kept.message)
  })

  test('PROTOCOL 17: a foreign message is inserted and claimed in one, and its redelivery is a duplicate', async () => {
    const message = stray({ type: 'order', priority: 4 })
    const [first, twin] = await claim([
      { kind: 'foreign', ...message },
      { kind: 'foreign', ...message },
    ])
    expect([first, twin].filter((answer) => answer?.kind === 'claimed')).toHaveLength(1)
    expect(await claim([{ kind: 'foreign', ...message }])).toEqual([{ kind: 'duplicate' }])
    expect(await ledger.row(message.id)).toMatchObject({
      status: 'running',
      attempt: 1,
      origin: 'message',
      type: 'order',
      priority: 4,
      payload: '{"b":1.0}',
      node: ledger.node,
      max_attempts: 3,
    })
    expect(await readAccounting(ledger.test.database.db)).toMatchObject({ accepted: 1, live: 1, unaccounted: 0 })
  })

  test('a claim of foreign messages whose answer was lost gives them again', async () => {
    const deliveries: DeliveryClaim[] = [{ kind: 'foreign', ...stray() }]
    const claimId = v7()
    await claim(deliveries, { claimId })
    expect(await claim(deliveries, { claimId })).toMatchObject([{ kind: 'claimed', task: { attempt: 1 } }])
    expect(await readAccounting(ledger.test.database.db)).toMatchObject({ accepted: 1, unaccounted: 0 })
  })

  test('a batch of all kinds is judged one by one', async () => {
    const id = await queued()
    const own = stray()
    const answers = await claim([
      { kind: 'foreign', ...own },
      { kind: 'task', id: v7(), attempt: 1 },
      { kind: 'unreadable', reason: 'not UTF-8', ...stray({ payload: 'null' }) },
      { kind: 'task', id, attempt: 1 },
      { kind: 'copy', parentId: v7() },
    ])
    expect(answers.map(({ kind }) => kind)).toEqual(['claimed', 'unknown', 'dead', 'claimed', 'unknown'])
  })

  test('PROTOCOL 15: a rejected message of a task that is still queued for it makes the task dead, with its parent told', async () => {
    const parent = await ledger.insert()
    const [child] = await ledger.insertMany([{ parentId: parent }])
    await publish()
    await judge(rejected({ kind: 'task', id: child as string, attempt: 1 }))
    expect(await ledger.row(child as string)).toMatchObject({
      status: 'dead',
      attempt: 1,
      failures: 1,
      error: 'A consumer rejected it',
      attempts: [{ number: 1, outcome: 'failed', error: 'A consumer rejected it' }],
    })
    expect(await ledger.row(parent)).toMatchObject({ children_dead: 1 })
  })

  test('PROTOCOL 15: what the broker dropped is sent again, and spends no failure', async () => {
    const id = await queued()
    const told = await judge(rejected({ kind: 'task', id, attempt: 1 }, { end: 'lost', reason: 'It expired' }))
    expect(told.queues).toEqual(['default'])
    expect(await ledger.row(id)).toMatchObject({ status: 'pending', attempt: 1, failures: 0 })
  })

  test('a dead letter that was replayed before the listener reads its old message is left alone', async () => {
    const id = await queued()
    await judge(rejected({ kind: 'task', id, attempt: 1 }))
    await replayTasks(ledger.pool, [id])
    await publish()
    await judge(rejected({ kind: 'task', id, attempt: 1 }))
    expect(await ledger.row(id)).toMatchObject({ status: 'queued', attempt: 1 })
    const [answer] = await claim([{ kind: 'task', id, attempt: 2 }])
    if (answer?.kind !== 'claimed') throw new Error('not claimed')
    await ledger.settle(answer.task, SUCCEEDED)
    await judge(rejected({ kind: 'task', id, attempt: 2 }))
    expect(await ledger.status(id)).toBe('succeeded')
  })

  test('dead messages of nobody become dead letters, each once, also when their queue is gone', async () => {
    const own = rejected({ kind: 'foreign' })
    const unknown = rejected({ kind: 'task', id: v7(), attempt: 1 }, { queue: 'gone' })
    await judge(own, unknown)
    await judge(own, unknown)
    expect(await ledger.row(own.stray.id)).toMatchObject({ status: 'dead', queue: 'default' })
    expect(await ledger.row(unknown.stray.id)).toMatchObject({ status: 'dead', queue: 'gone' })
    expect(await readAccounting(ledger.test.database.db)).toMatchObject({ accepted: 2, dead: 2, unaccounted: 0 })
  })

  test('a claim reads its own rows, not all that are queued, also when Postgres last saw none of them', async () => {
    await ledger.pool.query(
      `insert into tasks (id, queue, payload, priority, due_at, max_attempts, origin, status)
       select gen_random_uuid(), 'default', '1', 0, now(), 3, 'api', 'pending' from generate_series(1, 20000)`,
    )
    await ledger.pool.query('analyze tasks')
    const { rows: ids } = await ledger.pool.query<{ id: string }>(
      `update tasks set status = 'queued' where id in (select id from tasks limit 2000) returning id`,
    )
    const claimed = ids.slice(0, 100).map(({ id }) => id)
    const text = CLAIM_QUEUED.replaceAll(
      /\$(\d)/g,
      (_, n) => [`'{${claimed}}'`, `'{${claimed.map(() => 1)}}'`, `'${v7()}'`, `'${v7()}'`, "'default'"][n - 1] ?? '',
    )
    const { rows } = await ledger.pool.query<{ 'QUERY PLAN': string }>(`explain (analyze) ${text}`)
    const plan = rows.map((row) => row['QUERY PLAN']).join('\n')
    expect(plan).toMatch(/Index Scan using tasks_pkey on tasks t .*loops=100\)/)
    expect(plan).not.toContain('tasks_queued')
  })
})
