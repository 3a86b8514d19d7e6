import { expect, test } from 'bun:test'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Installation, install } from '../e2e/installation.ts'
import { ENGINES } from '../support/database.ts'
import type { NodeProcess } from '../support/node-process.ts'
import { until } from '../support/until.ts'
import { SEED, seeded } from './seed.ts'

const KEY = { LONGSHORE_ADMIN_KEY: 'ls_sinks_admin_key_for_this_test' }
const TASKS = 6_000
const BATCH = 50

const onServer = test.skipIf(!ENGINES.includes('server'))

// Both nodes write one folder, as nodes on one machine or on a shared file system do.
onServer(
  `two nodes write one table and one file while one is killed and the other is frozen: each task is in each once (seed ${SEED})`,
  async () => {
    await using home = await install('server')
    await home.database.pool.query('create schema data; create table data.sunk (n int)')
    const random = seeded(SEED)
    const frozen = await home.start(KEY)
    let doomed = await home.start(KEY)
    await consume(frozen, 'rows', { type: 'table', table: 'sunk' })
    await consume(frozen, 'lines', { type: 'csv', path: 'sunk.csv', rotate: { size: 20_000 } })

    // Only the one that is killed takes submissions, again after each start; what it answered is in the ledger.
    const sent = { rows: 0, lines: 0 }
    const send = async (count: number) => {
      for (let at = 0; at < count; at += BATCH) {
        for (const queue of ['rows', 'lines'] as const) {
          const batch = Array.from({ length: BATCH }, (_, n) => ({ queue, payload: { n: sent[queue] + n } }))
          await doomed.call('POST', '/tasks/batch', batch)
          sent[queue] += BATCH
        }
      }
    }
    for (let kill = 0; kill < 4; kill++) {
      await send(TASKS / 8)
      await new Promise((resolve) => setTimeout(resolve, random() * 300))
      await doomed.kill()
      doomed = await home.start(KEY)
    }
    const sending = send(TASKS / 2)
    await until(async () => (await finished(home)) > TASKS / 4, { timeoutMs: 120_000, what: 'work to begin' })
    frozen.signal('SIGSTOP')
    await sending
    const [id] = frozen.logged('node-joined').map((line) => line.node)
    await until(() => doomed.logged('node-dead').some((line) => line.node === id), {
      timeoutMs: 90_000,
      what: 'the frozen node to be taken for dead',
    })
    frozen.signal('SIGCONT')
    await until(() => frozen.logged('node-declared-dead').length > 0, {
      timeoutMs: 60_000,
      what: 'the frozen node to notice',
    })

    await until(async () => (await finished(home)) === sent.rows + sent.lines, { timeoutMs: 200_000 }).catch(() => {})
    const { rows: ends } = await home.database.pool.query(
      'select queue, status, error, count(*)::int as count from tasks group by 1, 2, 3 order by 1',
    )
    expect(ends).toEqual([
      { queue: 'lines', status: 'succeeded', error: null, count: TASKS },
      { queue: 'rows', status: 'succeeded', error: null, count: TASKS },
    ])
    const all = Array.from({ length: TASKS }, (_, n) => n)
    const { rows } = await home.database.pool.query<{ n: number }>('select n from data.sunk order by n')
    expect(rows.map(({ n }) => n)).toEqual(all)
    expect(numbersIn(join(doomed.dataDir, 'out'))).toEqual(all)
    expect(await doomed.call('GET', '/accounting')).toMatchObject({ accepted: 2 * TASKS, live: 0, unaccounted: 0 })
    await Promise.all([frozen.stop(), doomed.stop()])
  },
  400_000,
)

async function finished({ database }: Installation): Promise<number> {
  const { rows } = await database.pool.query(`select count(*)::int as count from tasks where status = 'succeeded'`)
  return rows[0].count
}

function numbersIn(folder: string): number[] {
  const numbers: number[] = []
  for (const name of readdirSync(folder)) {
    if (!name.endsWith('.csv')) continue
    const [header, ...lines] = readFileSync(join(folder, name), 'utf8').split('\r\n')
    expect([name, header, lines.pop()]).toEqual([name, 'n', ''])
    numbers.push(...lines.map(Number))
  }
  return numbers.sort((a, b) => a - b)
}

async function consume(node: NodeProcess, queue: string, target: object): Promise<void> {
  await node.call('PUT', `/queues/${queue}`, { retry: { maxAttempts: 5, backoff: { kind: 'fixed', base: '200ms' } } })
  await node.call('POST', '/consumers', { queue, target, concurrency: 20, timeout: '30s' })
}
