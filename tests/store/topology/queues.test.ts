import { afterEach, describe, expect, test } from 'bun:test'
import { v7 as uuidv7 } from 'uuid'
import { queueCounts } from '../../../src/store/topology/queue-counts.ts'
import { waitingTasks, waitingTasksQuery } from '../../../src/store/topology/queue-line.ts'
import { deleteQueue, insertQueue, putQueue, queueByName, queueFigures } from '../../../src/store/topology/queues.ts'
import { DEFAULT_RETRY_POLICY } from '../../../src/task/retry-policy.ts'
import { DEFAULT_RETENTION } from '../../../src/task/topology/queue.ts'
import { ENGINES, type TestDatabase, testDatabase } from '../../support/database.ts'
import { until } from '../../support/until.ts'

const POLICY = { type: 'quorum', retry: DEFAULT_RETRY_POLICY, retention: DEFAULT_RETENTION } as const
const opened: TestDatabase[] = []
afterEach(async () => {
  for (const database of opened.splice(0)) await database.drop()
})

const INSERT = `insert into tasks (id, queue, payload, status, priority, due_at, max_attempts, origin)
  select $1, name, '{}', $3, $4, now() + $5::interval, 10, 'api' from queues where name = $2`

describe.each([...ENGINES])('on %s Postgres', (engine) => {
  async function database() {
    const test = await testDatabase(engine)
    opened.push(test)
    const { db, pool } = test.database
    await putQueue(db, 'q', POLICY)
    const insert = async (status: string, priority = 0, due = '-1 s') => {
      const id = uuidv7()
      await pool.query(INSERT, [id, 'q', status, priority, due])
      return id
    }
    return { db, pool, insert }
  }

  test('figures count by status and tell the age of the oldest task that is due', async () => {
    const { db, insert } = await database()
    for (const status of ['pending', 'pending', 'retrying', 'running', 'queued', 'dead', 'succeeded', 'cancelled']) {
      await insert(status, 3, '-20 s')
    }
    await insert('pending', 9, '-40 s')
    await insert('pending', 9, '1 h')
    const figures = (await queueFigures(db)).get('q')
    expect(figures?.depth).toEqual({ pending: 4, retrying: 1, running: 1, queued: 1, dead: 1 })
    expect(figures?.oldestWaitingMs).toBeGreaterThanOrEqual(40_000)
    expect(figures?.oldestWaitingMs).toBeLessThan(60_000)
  })

  test('a queue whose tasks are all due later waits for nothing', async () => {
    const { db, insert } = await database()
    await insert('pending', 0, '1 h')
    expect((await queueFigures(db)).get('q')).toMatchObject({ depth: { pending: 1 }, oldestWaitingMs: null })
  })

  test('what the broker has comes first, then what waits, in the order of dispatch, and they page without gaps or doubles, equal times too', async () => {
    const { db, pool, insert } = await database()
    for (let i = 0; i < 60; i++) await insert(['retrying', 'pending', 'queued', 'pending'][i % 4] as string, i % 3)
    await pool.query(
      `update tasks set due_at = timestamptz '2026-01-01 00:00:00.123456Z' + floor(random() * 3) * interval '1 us'`,
    )
    await insert('running', 9)
    const { rows } = await pool.query(
      `select id from tasks where status <> 'running' order by status = 'queued' desc, priority desc, due_at, id`,
    )
    const ids: string[] = []
    let after: Parameters<typeof waitingTasks>[3]
    for (;;) {
      const { tasks, more } = await waitingTasks(db, 'q', 7, after)
      ids.push(...tasks.map(({ id }) => id))
      after = tasks.at(-1)
      if (!more) break
    }
    expect(ids).toEqual(rows.map(({ id }) => id))
  })

  test('a page ends early when its payloads are heavy, and says that there is more', async () => {
    const { db, pool, insert } = await database()
    for (let i = 0; i < 12; i++) await insert('pending')
    await pool.query(`update tasks set payload = to_json(repeat('x', 1000000))`)
    const first = await waitingTasks(db, 'q', 50)
    expect([first.tasks.length, first.more]).toEqual([8, true])
    const second = await waitingTasks(db, 'q', 50, first.tasks.at(-1))
    expect([second.tasks.length, second.more]).toEqual([4, false])
  })

  test('a page of a long line reads its own rows by index', async () => {
    const { db, pool } = await database()
    await pool.query(`insert into tasks (id, queue, payload, priority, due_at, max_attempts, origin)
      select gen_random_uuid(), 'q', '{}', i % 10, now() - i * interval '1 ms', 10, 'api' from generate_series(1, 20000) i`)
    await pool.query('analyze tasks')
    const { tasks } = await waitingTasks(db, 'q', 20)
    const { sql, parameters } = waitingTasksQuery('q', 20).compile(db)
    const { rows } = await pool.query(`explain ${sql}`, [...parameters])
    const plan = rows.map((row) => row['QUERY PLAN']).join('\n')
    expect(plan).toContain('Index Scan using tasks_waiting')
    expect(plan).not.toContain('Seq Scan')
    expect(tasks).toHaveLength(20)
  })

  test('a submit that is in hand is seen by the deletion; one that comes later finds no queue', async () => {
    const { db, pool } = await database()
    const early = await pool.connect()
    await early.query('begin')
    await early.query(INSERT, [uuidv7(), 'q', 'pending', 0, '0 s'])
    const deletion = deleteQueue(db, 'q')
    await waitsForLock(pool)
    await early.query('commit')
    early.release()
    expect(await deletion).toBe('has-live-tasks')

    // Prepared and planned before, as the hot insert is: its snapshot must be younger than its lock all the same.
    const submitter = await pool.connect()
    const submit = () => submitter.query({ name: 'submit', text: INSERT, values: [uuidv7(), 'q', 'pending', 0, '0 s'] })
    for (let i = 0; i < 10; i++) await submit()
    await pool.query(`update tasks set status = 'succeeded'`)
    const blocker = await pool.connect()
    await blocker.query('begin; lock table tasks in row exclusive mode')
    const second = deleteQueue(db, 'q')
    await waitsForLock(pool)
    const late = submit()
    await until(async () => (await waiting(pool)) === 2, { what: 'the submit to wait behind the deletion' })
    await blocker.query('commit')
    blocker.release()
    expect(await second).toBe('deleted')
    expect((await late).rowCount).toBe(0)
    submitter.release()
  })

  test('a consumer that is being made keeps its queue', async () => {
    const { db, pool } = await database()
    const maker = await pool.connect()
    await maker.query('begin')
    await maker.query(
      `insert into consumers (id, queue, target, concurrency, timeout_ms) values ($1, 'q', '{"type":"noop"}', 1, 1000)`,
      [uuidv7()],
    )
    const deletion = deleteQueue(db, 'q')
    await waitsForLock(pool)
    await maker.query('commit')
    maker.release()
    expect(await deletion).toBe('has-consumers')
  })

  test('a queue is made once, and one that is there keeps its policy', async () => {
    const { db } = await database()
    expect(await insertQueue(db, 'new', { window: 5 })).toBe(true)
    expect(await insertQueue(db, 'new')).toBe(false)
    expect(await queueByName(db, 'new')).toMatchObject({ window: 5, retry: DEFAULT_RETRY_POLICY })
  })

  test('queues are counted with what waits in them, due or not, here or in the broker', async () => {
    const { db, pool, insert } = await database()
    await insertQueue(db, 'B')
    for (const status of ['pending', 'queued', 'retrying', 'running', 'dead', 'succeeded']) await insert(status)
    await insert('pending', 5, '1 h')
    await pool.query(
      `insert into consumers (id, queue, target, concurrency, timeout_ms, paused) values ($1, 'q', '{"type":"noop"}', 1, 1000, true)`,
      [uuidv7()],
    )
    const counted = { name: 'q', waiting: 3, queued: 1, running: 1, consumers: 1 }
    expect(await queueCounts(db)).toEqual([{ name: 'B', waiting: 0, queued: 0, running: 0, consumers: 0 }, counted])
    expect(await queueCounts(db, 'q')).toEqual([counted])
    expect(await queueCounts(db, 'none')).toEqual([])
  })

  test('an unknown queue is not deleted', async () => {
    const { db } = await database()
    expect(await deleteQueue(db, 'none')).toBe('unknown')
  })
})

type Pool = TestDatabase['database']['pool']

async function waiting(pool: Pool): Promise<number> {
  const { rows } = await pool.query(
    `select count(*) as n from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`,
  )
  return rows[0].n
}

async function waitsForLock(pool: Pool): Promise<void> {
  await until(async () => (await waiting(pool)) === 1, { what: 'the deletion to wait for a lock' })
}
