import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { v7 } from 'uuid'
import { CLAIM_COPIES } from '../../../src/store/tasks/family/copies.ts'
import { CLAIM_FAN_OUTS, FAN_OUT_LINES, SEAL_PUBLISHED } from '../../../src/store/tasks/family/fan-outs.ts'
import { insertTasks } from '../../../src/store/tasks/insert/insert.ts'
import { ENGINES } from '../../support/database.ts'
import { addressed, addressing, makeExchange } from '../../support/exchanges.ts'
import { type TaskLedger, taskLedger } from '../../support/tasks.ts'

/** Parents that wait to be published, each with two children that wait for that. */
const WAITING = 5_000

describe.each(ENGINES)('statements of fan-outs among many on %s', (engine) => {
  let ledger: TaskLedger
  const ids: string[] = []
  beforeAll(async () => {
    ledger = await taskLedger(engine)
    await makeExchange(ledger, 'orders', 'fanout', { mail: [''], audit: [''] })
    // The statistics are of a time when hardly anything waited for a copy, as they are in a burst.
    await ledger.pool.query('alter table tasks set (autovacuum_enabled = false)')
    await insert(50)
    await ledger.pool.query('analyze tasks')
    for (let left = WAITING; left > 0; left -= 500) ids.push(...(await insert(500)))
  }, 60_000)
  afterAll(() => ledger.test.drop())

  async function insert(count: number): Promise<string[]> {
    const tasks = Array.from({ length: count }, () => addressed('orders'))
    await insertTasks(ledger.pool, ledger.node, tasks, { addressing: addressing('rabbitmq') })
    return tasks.map(({ id }) => id)
  }

  /** Runs the statement, takes it back, and gives its plan without the long lists in it. */
  async function planOf(text: string, values: unknown[]): Promise<string> {
    const tx = await ledger.pool.connect()
    try {
      await tx.query('begin')
      const literal = (value: unknown) => (Array.isArray(value) ? `'{${value.join(',')}}'` : `'${value}'`)
      const filled = text.replaceAll(/\$(\d)/g, (_, n) => literal(values[n - 1]))
      const { rows } = await tx.query<{ 'QUERY PLAN': string }>(`explain (analyze, buffers) ${filled}`)
      return rows.map((row) => row['QUERY PLAN'].replaceAll(/'\{[^}]*\}'/g, '{}')).join('\n')
    } finally {
      await tx.query('rollback')
      tx.release()
    }
  }

  for (const isFresh of [false, true]) {
    test(`find their rows by id, parent and line with ${isFresh ? 'fresh' : 'stale'} statistics`, async () => {
      if (isFresh) await ledger.pool.query('analyze tasks')
      const some = ids.slice(1_000, 1_200)

      const copies = await planOf(CLAIM_COPIES, [some, 'mail', ledger.node, v7()])
      expect(copies).toContain('tasks_parent')
      expect(copies).not.toMatch(/Seq Scan on tasks|tasks_queued/)

      const parents = await planOf(CLAIM_FAN_OUTS, ['exchange/orders', ledger.node, 1, 200])
      expect(parents).toContain('tasks_waiting')
      expect(parents).toContain('tasks_parent')
      expect(parents).not.toContain('Seq Scan on tasks')
      // Only the look for what this very publish took goes to the index of what is queued.
      expect(parents.match(/tasks_queued/g)).toHaveLength(1)

      const seal = await planOf(SEAL_PUBLISHED, [some, ledger.node])
      expect(seal).not.toMatch(/Seq Scan on tasks|tasks_queued|tasks_unfinished/)

      const lines = await planOf(FAN_OUT_LINES, [6_000, 'exchange/'])
      expect(lines).not.toContain('Seq Scan on tasks')
      expect(Number(/shared hit=(\d+)/.exec(lines)?.[1])).toBeLessThan(500)
    })
  }
})
