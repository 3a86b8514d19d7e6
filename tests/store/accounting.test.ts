import { afterEach, describe, expect, test } from 'bun:test'
import { v7 as uuidv7 } from 'uuid'
import { readAccounting } from '../../src/store/accounting.ts'
import { listNodes, workOfQueues } from '../../src/store/node-list.ts'
import { insertConsumer } from '../../src/store/topology/consumers.ts'
import { putQueue, setQueuePaused } from '../../src/store/topology/queues.ts'
import { DEFAULT_RETRY_POLICY } from '../../src/task/retry-policy.ts'
import { DEFAULT_RETENTION } from '../../src/task/topology/queue.ts'
import { ENGINES, type TestDatabase, testDatabase } from '../support/database.ts'
import { until } from '../support/until.ts'

let opened: TestDatabase | undefined
afterEach(async () => {
  await opened?.drop()
  opened = undefined
})

describe.each([...ENGINES])('on %s Postgres', (engine) => {
  async function database() {
    opened = await testDatabase(engine)
    const { db, pool } = opened.database
    return {
      db,
      pool,
      queue: (name: string) =>
        putQueue(db, name, { type: 'quorum', retry: DEFAULT_RETRY_POLICY, retention: DEFAULT_RETENTION }),
      consumer: (queue: string, paused = false) =>
        insertConsumer(db, { id: uuidv7(), queue, target: { type: 'noop' }, concurrency: 1, timeoutMs: 1_000, paused }),
      tasks: (queue: string, status: string, count: number, due = '0 s') =>
        pool.query(
          `insert into tasks (id, queue, payload, status, priority, due_at, max_attempts, origin)
           select gen_random_uuid(), $1, '{}', $2, 0, now() + $4::interval, 10, 'api' from generate_series(1, $3)`,
          [queue, status, count, due],
        ),
      counted: (node: string, accepted: number, pruned: number) =>
        pool.query(`insert into counters (node, queue, origin, accepted, pruned) values ($1, 'q', 'api', $2, $3)`, [
          node,
          accepted,
          pruned,
        ]),
    }
  }

  test('what was accepted is found again, status by status; what is missing shows as unaccounted', async () => {
    const { db, tasks, counted } = await database()
    await counted(uuidv7(), 20, 3)
    await counted(uuidv7(), 12, 1)
    const byStatus = { pending: 1, queued: 2, running: 3, retrying: 4, succeeded: 5, dead: 6, cancelled: 7 }
    for (const [status, count] of Object.entries(byStatus)) await tasks('q', status, count)
    const accounting = await readAccounting(db)
    expect(accounting).toMatchObject({
      accepted: 32,
      succeeded: 5,
      dead: 6,
      cancelled: 7,
      live: 10,
      pruned: 4,
      unaccounted: 0,
      byStatus,
    })
    await opened?.database.pool.query(`delete from tasks where status = 'dead'`)
    expect((await readAccounting(db)).unaccounted).toBe(6)
  })

  test('an empty ledger adds up', async () => {
    const { db } = await database()
    expect(await readAccounting(db)).toMatchObject({ accepted: 0, live: 0, unaccounted: 0 })
  })

  test('the accounts add up at every moment while tasks are accepted', async () => {
    const { db, pool } = await database()
    const node = uuidv7()
    let enough = false
    const submits = (async () => {
      while (!enough) {
        // One statement, as a submit is one transaction.
        await pool.query(
          `with t as (insert into tasks (id, queue, payload, priority, due_at, max_attempts, origin)
             values (gen_random_uuid(), 'q', '{}', 0, now(), 1, 'api'))
           insert into counters (node, queue, origin, accepted) values ($1, 'q', 'api', 1)
           on conflict (node, queue, origin) do update set accepted = counters.accepted + 1`,
          [node],
        )
      }
    })()
    try {
      const seen = new Set<number>()
      await until(
        async () => {
          const { accepted, unaccounted } = await readAccounting(db)
          expect([accepted, unaccounted]).toEqual([accepted, 0])
          return seen.add(accepted).size >= 10
        },
        { what: 'ten different moments' },
      )
    } finally {
      enough = true
      await submits
    }
  })

  test('overdue tasks are counted by the reason why they wait', async () => {
    const { db, queue, consumer, tasks } = await database()
    for (const name of ['paused', 'alone', 'resting', 'busy']) await queue(name)
    await consumer('paused')
    await setQueuePaused(db, 'paused', true)
    await consumer('resting', true)
    await consumer('busy')
    await consumer('busy', true)
    for (const [i, name] of ['paused', 'alone', 'resting', 'busy'].entries()) {
      await tasks(name, 'pending', i + 1, '-61 s')
      await tasks(name, 'pending', 10, '-10 s')
      await tasks(name, 'running', 10, '-2 m')
    }
    await tasks('busy', 'retrying', 1, '-2 m')
    expect((await readAccounting(db)).overdue).toEqual({
      'queue-paused': 1,
      'no-consumer': 2,
      'consumer-paused': 3,
      other: 5,
    })
  })

  test('a node is alive, dead or left, and only living ones count for slots and rates', async () => {
    const { db, pool } = await database()
    const state = (rate: number) => ({
      broker: 'in-process',
      consumers: [{ id: uuidv7(), queue: 'q', concurrency: 1, running: 0, buffered: 0, rate }],
    })
    const node = async (name: string, rate: number, columns: Record<string, string>) => {
      const names = Object.keys(columns)
      await pool.query(
        `insert into nodes (id, name, version, roles, state${names.map((column) => `, ${column}`).join('')})
         values ($1, $2, '0', '{api}', $3::text::jsonb${names.map((column) => `, ${columns[column]}`).join('')})`,
        [uuidv7(), name, JSON.stringify(state(rate))],
      )
    }
    await node('one', 2.5, {})
    await node('two', 4, { beat_at: `now() - interval '10 s'` })
    await node('silent', 100, { beat_at: `now() - interval '16 s'` })
    await node('dead', 100, { dead_at: 'now()' })
    await node('left', 100, { left_at: 'now()' })
    const nodes = await listNodes(db, 10)
    expect(nodes.map(({ name, status }) => [name, status])).toEqual([
      ['left', 'left'],
      ['dead', 'dead'],
      ['silent', 'dead'],
      ['two', 'alive'],
      ['one', 'alive'],
    ])
    expect(nodes[4]).toMatchObject({ version: '0', roles: ['api'], state: { broker: 'in-process' } })
    expect((await listNodes(db, 1, nodes[2]?.id)).map(({ name }) => name)).toEqual(['two'])
    expect(await workOfQueues(db)).toEqual(new Map([['q', { slots: 2, rate: 6.5 }]]))
    expect(await workOfQueues(db, nodes[4]?.id)).toEqual(new Map([['q', { slots: 1, rate: 4 }]]))
  })
})
