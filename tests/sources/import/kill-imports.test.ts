import { afterAll, beforeAll, expect, test } from 'bun:test'
import { type ChildProcess, spawn } from 'node:child_process'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import { orphanedTasks } from '../../../src/store/nodes.ts'
import { settleTasks } from '../../../src/store/tasks/settle.ts'
import { SEED, seeded } from '../../faults/seed.ts'
import { atOnce, type TaskLedger, taskLedger } from '../../support/tasks.ts'
import { until } from '../../support/until.ts'
import { csvRows, importUnderTest, RECORDS } from './import-under-test.ts'

/** As many as an hour allows, for a run by hand. */
const KILLS = Number(process.env.IMPORT_KILLS ?? 10)
const ROWS = Number(process.env.IMPORT_ROWS ?? 60_000)

let ledger: TaskLedger
beforeAll(async () => {
  ledger = await taskLedger('server')
})
afterAll(() => ledger.test.drop())

interface Importing {
  lines: string[]
  kill(): Promise<void>
}

function importing(spool: string): Importing {
  const url = (ledger.test.connection as { url: string }).url
  const command = [join(import.meta.dir, 'importing-process.ts'), url, spool]
  const child: ChildProcess = spawn(process.execPath, command, { stdio: ['ignore', 'pipe', 'inherit'] })
  const lines: string[] = []
  createInterface({ input: child.stdout as Readable }).on('line', (line) => lines.push(line))
  const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  return {
    lines,
    async kill() {
      child.kill('SIGKILL')
      await gone
      // What a rescuer does after 15 s.
      await ledger.pool.query(`update nodes set dead_at = now() where name = 'importing' and dead_at is null`)
    },
  }
}

/** As a rescuer does all the time: what a process had sent before it was killed may be committed after that. */
async function rescue(): Promise<void> {
  for (const { node, started, ...attempt } of await orphanedTasks(ledger.pool, 10)) {
    const outcome = { kind: 'lost', started: true, error: 'its node is gone' } as const
    await settleTasks(ledger.pool, node, [{ ...attempt, outcome }], atOnce)
  }
}

// More rows where a batch has more: all kills are to find it at work.
test.each([
  [1, ROWS],
  [100, 3 * ROWS],
])(
  `${KILLS} times kill -9 in the middle of an import lose no row and double none, at %d a task, of %d rows (seed ${SEED})`,
  async (recordsPerTask, rowCount) => {
    const random = seeded(SEED)
    await ledger.clear()
    await using under = await importUnderTest(ledger)
    const { file, task } = await under.file('a.csv', csvRows(rowCount), { deliver: { queue: RECORDS, recordsPerTask } })
    const spool = join(under.dir, 'spool')
    const row = async () => {
      await rescue()
      return under.row(file)
    }
    const read = async () => (await row()).records_read
    let inTheMiddle = 0
    for (let kill = 0; kill < KILLS; kill++) {
      const process = importing(spool)
      await until(() => process.lines.includes('ready'), { timeoutMs: 30_000, what: 'the process' })
      const before = await read()
      // Every second one before its first batch; the others so that all kills find it at work.
      const share = before + (kill % 2) * Math.ceil((random() * (rowCount - before)) / (KILLS - kill + 1))
      await until(async () => (await read()) >= share, { timeoutMs: 60_000, what: `${share} records` })
      await new Promise((resolve) => setTimeout(resolve, random() * 50))
      await process.kill()
      const after = await read()
      if (after > 0 && after < rowCount) inTheMiddle++
    }
    const last = importing(spool)
    await until(async () => (await row()).status === 'done', { timeoutMs: 120_000, what: 'the end' })
    // By whoever: the last process that was killed may have come that far.
    const isSealed = async () => {
      await rescue()
      return (await ledger.row(task)).sealed
    }
    await until(isSealed, { timeoutMs: 60_000, what: 'the settled end' })
    await last.kill()
    expect(inTheMiddle).toBeGreaterThan(KILLS / 2)
    const unnested = recordsPerTask === 1 ? 'payload' : 'json_array_elements(payload)'
    const { rows } = await ledger.pool.query(
      `select count(*)::int as records, count(distinct r ->> 'id')::int as different,
         min((r ->> 'id')::int) as first, max((r ->> 'id')::int) as last
       from (select ${unnested} as r from tasks where parent_id = $1) records`,
      [task],
    )
    expect(rows).toEqual([{ records: rowCount, different: rowCount, first: 1, last: rowCount }])
    const parent = await ledger.row(task)
    const { rows: children } = await ledger.pool.query(
      'select count(*)::int as count from tasks where parent_id = $1',
      [task],
    )
    expect(parent).toMatchObject({ status: 'running', sealed: true, children_total: children[0].count })
    const { rows: accepted } = await ledger.pool.query(
      'select sum(accepted)::int as count from counters where queue = $1',
      [RECORDS],
    )
    expect(accepted[0].count).toBe(children[0].count)
  },
  600_000,
)
