import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { v7 } from 'uuid'
import { inTransaction } from '../../../../src/store/database/statement.ts'
import { returnEveryQueued, returnQueued } from '../../../../src/store/tasks/at-broker/unqueue.ts'
import { claimDeliveries } from '../../../../src/store/tasks/claim/claim-deliveries.ts'
import { ENGINES } from '../../../support/database.ts'
import { connect, FAILED, type TaskLedger, taskLedger } from '../../../support/tasks.ts'
import { until } from '../../../support/until.ts'

describe.each(ENGINES)('taking tasks back from the broker on %s', (engine) => {
  let ledger: TaskLedger
  beforeAll(async () => {
    ledger = await taskLedger(engine)
  })
  afterEach(() => ledger.clear())
  afterAll(() => ledger.test.drop())

  /** Hands tasks to the broker, as publishes `from`, `from + 1`, ... of `publisher`. */
  async function publish(ids: string[], publisher: string, from = 1): Promise<void> {
    await ledger.pool.query(
      `update tasks t set status = 'queued', publisher = $2, publish_no = $3 + p.n - 1, report_by = now()
       from unnest($1::uuid[]) with ordinality as p(id, n) where t.id = p.id`,
      [ids, publisher, from],
    )
  }
  const queuedIds = async () =>
    (await ledger.pool.query(`select id from tasks where status = 'queued' order by id`)).rows.map(({ id }) => id)

  test('11: a queue that was missing gets its tasks back, with attempt and place in the line as they were', async () => {
    await ledger.queue('lost')
    const [lost, again, other] = (await ledger.insertMany([{ queue: 'lost', priority: 5 }, { queue: 'lost' }, {}])) as [
      string,
      string,
      string,
    ]
    await ledger.run(again, FAILED)
    const before = await ledger.row(again)
    await publish([lost, again, other], ledger.node)
    const changed: string[][] = []

    expect(await returnQueued(ledger.pool, { queue: 'lost' }, (ids) => changed.push(ids))).toEqual({
      count: 2,
      queues: ['lost'],
    })

    expect(changed.map((ids) => ids.toSorted())).toEqual([[lost, again].toSorted()])
    expect(await ledger.row(again)).toMatchObject({ status: 'pending', attempt: 1, due_at: before.due_at, failures: 1 })
    expect(await queuedIds()).toEqual([other])
    const { rows } = await ledger.pool.query('select publisher, publish_no, report_by from tasks where id = $1', [lost])
    expect(rows).toEqual([{ publisher: null, publish_no: null, report_by: null }])
    expect(await returnQueued(ledger.pool, { queue: 'lost' })).toEqual({ count: 0, queues: [] })
  })

  test('11: of a dead node comes back what is above the number up to which its publishes were confirmed', async () => {
    const ids = await ledger.insertMany([{}, {}, {}, {}])
    const [mine, other] = [await ledger.join(), await ledger.join()]
    await publish(ids.slice(0, 3), mine, 7)
    await publish(ids.slice(3), other, 9)

    expect((await returnQueued(ledger.pool, { publisher: mine, aboveNo: 7 })).count).toBe(2)

    expect(await queuedIds()).toEqual([ids[0], ids[3]].toSorted())
    expect((await returnQueued(ledger.pool, { publisher: mine, aboveNo: 0 })).count).toBe(1)
  })

  test('a message that still comes is a duplicate, and the one that is sent again is run', async () => {
    const id = await ledger.insert()
    await publish([id], ledger.node)
    await returnQueued(ledger.pool, { queue: 'default' })
    const deliver = () =>
      claimDeliveries(ledger.pool, {
        claimId: v7(),
        node: ledger.node,
        queue: 'default',
        deliveries: [{ kind: 'task', id, attempt: 1 }],
      })
    expect(await deliver()).toEqual([{ kind: 'duplicate' }])
    await publish([id], ledger.node, 2)
    expect(await deliver()).toMatchObject([{ kind: 'claimed', task: { id, attempt: 1 } }])
    expect(await deliver()).toEqual([{ kind: 'duplicate' }])
  })

  test('a delivery that is claimed meanwhile stays with its node', async () => {
    const id = await ledger.insert()
    await publish([id], ledger.node)
    const claimer = await connect(ledger.test)
    await claimer.query(`begin; update tasks set status = 'running', attempt = 1 where id = '${id}'`)
    const returning = returnQueued(ledger.pool, { queue: 'default' })
    await until(
      async () =>
        (
          await ledger.pool.query(
            `select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`,
          )
        ).rowCount === 1,
      { what: 'the return to wait for the claim' },
    )
    await claimer.query('commit')
    await claimer.end()
    expect(await returning).toEqual({ count: 0, queues: [] })
    expect(await ledger.status(id)).toBe('running')
  })

  test('many come back in batches; what is queued anew meanwhile is left alone', async () => {
    await ledger.pool.query(
      `insert into tasks (id, queue, payload, priority, due_at, max_attempts, origin, status, publisher, publish_no)
       select gen_random_uuid(), 'default', '{}', 0, now(), 3, 'api', 'queued', $1, n from generate_series(1, 4500) n`,
      [ledger.node],
    )
    const batches: number[] = []
    const sentAgain: Promise<void>[] = []
    const { count } = await returnQueued(ledger.pool, { queue: 'default' }, (ids) => {
      batches.push(ids.length)
      sentAgain.push(publish(ids, ledger.node, 10_000))
    })
    await Promise.all(sentAgain)
    expect([count, batches]).toEqual([4_500, [2_000, 2_000, 500]])
    expect(await queuedIds()).toHaveLength(4_500)
  })

  test('every queued task comes back in one transaction, or none', async () => {
    const ids = await ledger.insertMany([{}, {}])
    await publish(ids, ledger.node)
    const failed = inTransaction(ledger.pool, async (tx) => {
      await returnEveryQueued(tx)
      throw new Error('the node died')
    })
    await expect(failed).rejects.toThrow('the node died')
    expect(await queuedIds()).toEqual(ids.toSorted())
    const returned = await inTransaction(ledger.pool, returnEveryQueued)
    expect(returned).toMatchObject({ count: 2, queues: ['default'] })
    expect(returned.ids.toSorted()).toEqual(ids.toSorted())
    expect(await queuedIds()).toEqual([])
  })
})
