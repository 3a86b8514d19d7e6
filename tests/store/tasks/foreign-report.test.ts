import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { v7 } from 'uuid'
import { type DeadDelivery, judgeDeadDeliveries } from '../../../src/store/tasks/dead-letters/dead-letters.ts'
import { replayTasks } from '../../../src/store/tasks/dead-letters/replay.ts'
import { type ForeignReport, reportForeign, takeFromSilentOwners } from '../../../src/store/tasks/foreign-report.ts'
import { ENGINES } from '../../support/database.ts'
import { addressed, fanOut, makeExchange } from '../../support/exchanges.ts'
import { atOnce, FAILED, LOST, miscounted, SUCCEEDED, type TaskLedger, taskLedger } from '../../support/tasks.ts'

const MESSAGE = { exchange: '', routingKey: 'default', properties: {}, headers: {} }

describe.each(ENGINES)('18: foreign reports on %s', (engine) => {
  let ledger: TaskLedger
  beforeAll(async () => {
    ledger = await taskLedger(engine)
  })
  afterEach(async () => {
    const wrong = await miscounted(ledger.pool)
    await ledger.clear()
    expect(wrong).toEqual([])
  })
  afterAll(() => ledger.test.drop())

  const report = (id: string, status: ForeignReport['status'], rest: Omit<ForeignReport, 'status'> = {}, key = 'k1') =>
    reportForeign(ledger.pool, id, { status, ...rest }, key, atOnce)

  test('running takes ownership as a new attempt, until the task’s timeout; a final report settles that attempt', async () => {
    const id = await ledger.insert({ timeoutMs: 90_000 })
    expect(await report(id, 'running')).toBe('ok')
    expect(await ledger.row(id)).toMatchObject({ status: 'running', attempt: 1, foreign_owner: 'k1', node: null })
    const { rows } = await ledger.pool.query<{ ms: number }>(
      'select (extract(epoch from report_by - started_at) * 1000)::int as ms from tasks',
    )
    expect(rows[0]?.ms).toBe(90_000)

    expect(await report(id, 'succeeded', { attempt: 1, result: '{"b":1.0}' })).toBe('ok')

    const row = await ledger.row(id)
    expect(row).toMatchObject({ status: 'succeeded', result: '{"b":1.0}', foreign_owner: null, error: null })
    expect(row.finished_at).not.toBeNull()
    expect(row.attempts).toMatchObject([{ number: 1, node: 'foreign:k1', outcome: 'succeeded' }])
  })

  test('a report on a waiting task is an attempt of its own, whatever it says', async () => {
    const ends = { succeeded: 'succeeded', dead: 'dead', retrying: 'retrying', cancelled: 'cancelled' } as const
    for (const [status, becomes] of Object.entries(ends)) {
      const id = await ledger.insert()
      expect(await report(id, status as 'dead', { error: 'told' })).toBe('ok')
      expect(await ledger.row(id)).toMatchObject({
        status: becomes,
        attempt: 1,
        failures: /dead|retr/.test(status) ? 1 : 0,
      })
    }
  })

  test('retrying counts as a failure and follows the policy to its end; pending gives the task back', async () => {
    const id = await ledger.insert({ maxAttempts: 2 })
    await report(id, 'running')
    expect(await report(id, 'pending')).toBe('ok')
    expect(await ledger.row(id)).toMatchObject({ status: 'pending', attempt: 1, failures: 0, attempts: [] })
    expect(await report(id, 'pending')).toBe('illegal')
    await report(id, 'retrying', { attempt: 2, error: 'first' })
    expect(await ledger.row(id)).toMatchObject({ status: 'retrying', failures: 1, error: 'first' })
    await report(id, 'retrying', { attempt: 3, error: 'second' })
    expect(await ledger.row(id)).toMatchObject({ status: 'dead', failures: 2, error: 'second' })
  })

  test('what another holds, and what is final, takes no report; unknown tasks are unknown', async () => {
    const [ours, theirs, done] = (await ledger.insertMany([{ priority: 9 }, {}, {}])) as [string, string, string]
    await ledger.run(done, SUCCEEDED)
    await ledger.claim(1)
    await report(theirs, 'running', {}, 'k2')
    for (const status of ['running', 'pending', 'retrying', 'succeeded', 'dead', 'cancelled'] as const) {
      for (const id of [ours, theirs, done])
        expect(await report(id, status, { attempt: (await ledger.row(id)).attempt })).toBe('illegal')
      expect(await report(v7(), status)).toBe('unknown')
    }
    expect(await ledger.row(theirs)).toMatchObject({ status: 'running', foreign_owner: 'k2' })
  })

  test('a report without attempt is refused once there was a second attempt, and one of another attempt is stale', async () => {
    const id = await ledger.insert()
    await ledger.run(id, FAILED)
    expect(await report(id, 'succeeded', { attempt: 1 })).toBe('stale')
    expect(await report(id, 'succeeded', { attempt: 3 })).toBe('stale')
    expect(await report(id, 'running')).toBe('ok')
    expect(await ledger.row(id)).toMatchObject({ attempt: 2 })
    expect(await report(id, 'succeeded')).toBe('attempt-required')
    expect(await report(id, 'succeeded', { attempt: 1 })).toBe('stale')
    expect(await report(id, 'succeeded', { attempt: 2 })).toBe('ok')
  })

  test('21: what an exchange fanned out is reported by its parent and the queue that the copy was taken from', async () => {
    await makeExchange(ledger, 'orders', 'fanout', { mail: [''], audit: [''] })
    const { id, children } = await fanOut(ledger, addressed('orders'))
    expect(await report(id, 'running')).toBe('illegal')
    expect(await report(id, 'running', { queue: 'nowhere' })).toBe('illegal')
    for (let time = 0; time < 2; time++) expect(await report(id, 'succeeded', { queue: 'mail' })).toBe('ok')
    expect(await ledger.status(children.mail as string)).toBe('succeeded')
    expect(await ledger.row(id)).toMatchObject({ status: 'pending', children_succeeded: 1, foreign_owner: null })
    expect(await report(id, 'dead', { queue: 'audit', attempt: 1 })).toBe('ok')
    expect(await ledger.row(id)).toMatchObject({ children_dead: 1 })
    const single = await ledger.insert()
    expect(await report(single, 'succeeded', { queue: 'default' })).toBe('ok')
  })

  test('the same report again is ok and changes nothing', async () => {
    for (const status of ['running', 'succeeded', 'dead', 'retrying', 'cancelled'] as const) {
      const id = await ledger.insert()
      expect(await report(id, status, { attempt: 1 })).toBe('ok')
      const before = await ledger.row(id)
      expect(await report(id, status, { attempt: 1 })).toBe('ok')
      expect(await ledger.row(id)).toEqual(before)
      expect(await report(id, status, { attempt: 1 }, 'k2')).not.toBe('ok')
    }
  })

  test('7: a cancel is remembered: every report but success ends in cancelled', async () => {
    for (const status of ['succeeded', 'dead', 'retrying', 'pending'] as const) {
      const id = await ledger.insert()
      await report(id, 'running')
      expect(await ledger.cancel(id)).toBe('requested')
      await report(id, status)
      expect(await ledger.status(id)).toBe(status === 'succeeded' ? 'succeeded' : 'cancelled')
    }
  })

  test('20: a foreign success seals a parent, and a foreign end of a child counts', async () => {
    const parent = await ledger.insert()
    const [one, two] = (await ledger.insertMany([{ parentId: parent }, { parentId: parent }])) as [string, string]
    expect(await report(parent, 'succeeded')).toBe('ok')
    expect(await ledger.row(parent)).toMatchObject({ status: 'running', sealed: true, foreign_owner: null, node: null })
    expect(await report(parent, 'dead', { attempt: 1 })).toBe('illegal')
    await report(one, 'succeeded')
    await report(two, 'dead')
    expect(await ledger.row(parent)).toMatchObject({ status: 'dead', children_succeeded: 1, children_dead: 1 })
  })

  test('6: an owner that is silent beyond its time loses the task; its late report is stale', async () => {
    const parent = await ledger.insert()
    const [silent, other, quick] = (await ledger.insertMany([{ parentId: parent }, {}, {}])) as [string, string, string]
    await report(silent, 'running')
    await report(other, 'running', {}, 'k2')
    await report(quick, 'running')
    await ledger.pool.query(`update tasks set report_by = now() - interval '1 s' where id = any($1::uuid[])`, [
      [silent, other],
    ])

    expect(await takeFromSilentOwners(ledger.pool, 10, atOnce)).toEqual(['default'])

    expect(await ledger.row(silent)).toMatchObject({
      status: 'pending',
      lost_starts: 1,
      failures: 0,
      foreign_owner: null,
    })
    expect((await ledger.row(silent)).attempts).toMatchObject([
      { outcome: 'lost', node: 'foreign:k1', error: 'foreign:k1 did not report in time' },
    ])
    expect((await ledger.row(other)).attempts).toMatchObject([{ node: 'foreign:k2' }])
    expect(await ledger.status(quick)).toBe('running')
    expect(await takeFromSilentOwners(ledger.pool, 10, atOnce)).toEqual([])
    expect(await report(silent, 'dead', { attempt: 1 })).toBe('stale')

    for (let i = 0; i < 4; i++) {
      await report(silent, 'running', { attempt: i + 2 })
      await ledger.pool.query(`update tasks set report_by = now() - interval '1 s' where id = $1`, [silent])
      await takeFromSilentOwners(ledger.pool, 10, atOnce)
    }
    expect(await ledger.status(silent)).toBe('dead')
    expect(await ledger.row(parent)).toMatchObject({ children_dead: 1 })
  })

  test('a time to report that was for another owner is none for a node, and a replay forgets it', async () => {
    const [before, replayed] = (await ledger.insertMany([{}, {}])) as [string, string]
    await ledger.pool.query(`update tasks set report_by = now() - interval '1 s'`)
    await ledger.cancel(replayed)
    await ledger.claimOne(before)
    await replayTasks(ledger.pool, [replayed])
    expect(await takeFromSilentOwners(ledger.pool, 10, atOnce)).toEqual([])
    const { rows } = await ledger.pool.query(`select status, report_by is null as none from tasks order by status`)
    expect(rows).toEqual([
      { status: 'pending', none: true },
      { status: 'running', none: false },
    ])
  })

  test('15: an owner that rejects its message ends its attempt for good, and no later one and nobody else’s', async () => {
    const ids = await Promise.all([ledger.insert(), ledger.insert(), ledger.insert()])
    const [rejected, goneOn, ours] = ids as [string, string, string]
    await report(rejected, 'running')
    await report(goneOn, 'running')
    await report(goneOn, 'pending')
    await report(goneOn, 'running', { attempt: 2 })
    await ledger.claimOne(ours)
    const deliveries = ids.map(
      (id): DeadDelivery => ({
        of: { kind: 'task', id, attempt: 1 },
        queue: 'default',
        end: 'rejected',
        reason: 'A consumer rejected it',
        stray: { id, payload: '{}', type: null, priority: 0, traceparent: null, message: MESSAGE },
      }),
    )
    const judged = await judgeDeadDeliveries(ledger.pool, ledger.node, deliveries)
    expect(judged).toEqual({ queues: [], touched: [rejected] })
    expect(await ledger.row(rejected)).toMatchObject({
      status: 'dead',
      attempt: 1,
      failures: 1,
      error: 'A consumer rejected it',
      foreign_owner: null,
      attempts: [{ number: 1, node: 'foreign:k1', outcome: 'failed' }],
    })
    expect(await ledger.row(goneOn)).toMatchObject({ status: 'running', attempt: 2, foreign_owner: 'k1' })
    expect(await ledger.row(ours)).toMatchObject({ status: 'running', attempt: 1, node: ledger.node })

    const lost = deliveries.map((delivery) => ({ ...delivery, end: 'lost' as const }))
    expect(await judgeDeadDeliveries(ledger.pool, ledger.node, lost)).toEqual({ queues: [], touched: [] })
  })

  test('a report and a claim at once: one of them has the task', async () => {
    for (let round = 0; round < 30; round++) {
      const id = await ledger.insert()
      const [answer, claimed] = await Promise.all([report(id, 'running', { attempt: 1 }), ledger.claim(1)])
      const row = await ledger.row(id)
      expect(row).toMatchObject({ status: 'running', attempt: 1 })
      if (claimed.length === 1) expect([answer, row.node, row.foreign_owner]).toEqual(['illegal', ledger.node, null])
      else expect([answer, row.node, row.foreign_owner]).toEqual(['ok', null, 'k1'])
      await ledger.pool.query('delete from tasks')
    }
  })

  test('a task that a foreign owner held before is a node’s own after its claim', async () => {
    const id = await ledger.insert()
    await report(id, 'running')
    await report(id, 'pending')
    const task = await ledger.claimOne(id)
    expect(await ledger.row(id)).toMatchObject({ node: ledger.node, foreign_owner: null, attempt: 2 })
    expect(await ledger.settle(task, LOST)).toMatchObject({ status: 'pending' })
  })
})
