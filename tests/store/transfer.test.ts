import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync, gzipSync } from 'node:zlib'
import type { Pool } from 'pg'
import { readAccounting } from '../../src/store/accounting.ts'
import { exportLedger, importLedger, TransferRefused } from '../../src/store/transfer.ts'
import { ENGINES } from '../support/database.ts'
import { DEAD, FAILED, SUCCEEDED, type TaskLedger, taskLedger } from '../support/tasks.ts'

const TABLES = ['queues', 'consumers', 'nodes', 'tasks', 'counters', 'keys', 'settings', 'schedules', 'fires']

describe.each(ENGINES)('a ledger as a file, on %s', (engine) => {
  let from: TaskLedger
  let to: TaskLedger
  let folder: string
  beforeEach(async () => {
    ;[from, to] = await Promise.all([taskLedger(engine), taskLedger(engine)])
    folder = await mkdtemp(join(tmpdir(), 'longshore-transfer-'))
    await to.pool.query('update nodes set left_at = now()')
  })
  afterEach(async () => {
    await Promise.all([from.test.drop(), to.test.drop(), rm(folder, { recursive: true })])
  })
  const file = () => join(folder, 'ledger.gz')
  const stopped = () => from.pool.query(`update nodes set left_at = now()`)

  /** Every row of every table, to the letter. */
  async function image(pool: Pool): Promise<Record<string, unknown>> {
    const found: Record<string, unknown> = {}
    for (const table of TABLES) {
      const { rows } = await pool.query(`select t::text as row from ${table} t order by 1`)
      found[table] = rows.map(({ row }) => row)
    }
    return found
  }

  async function someTasks(): Promise<void> {
    const parent = await from.insert({ payload: '{"b":1.0,"a":9007199254740993,"text":"tab\\t, \\\\, ümlaut, 😀\\n"}' })
    await from.insertMany([{ parentId: parent }, { parentId: parent, type: 'a\tb\\N' }])
    await from.run(await from.insert(), SUCCEEDED)
    await from.run(await from.insert(), FAILED)
    await from.run(await from.insert(), DEAD)
    await from.cancel(await from.insert())
    await from.claim(1)
    await from.pool.query(
      `insert into schedules (name, cron, timezone, task, queue, overlap, missed, jitter_ms, paused, cursor, wake_at)
       values ('s', '* * * * *', 'UTC', '{"payload":1.0}', 'default', 'allow', 'last', 0, false, now(), now())`,
    )
    await from.pool.query(`insert into fires (schedule, fire_at, outcome) values ('s', now(), 'submitted')`)
    await stopped()
  }

  test('what was exported is imported to the letter, and its accounts come out even', async () => {
    await someTasks()
    const rows = await exportLedger(from.test.database, file(), false)
    expect(rows).toMatchObject({ tasks: 7, schedules: 1, fires: 1 })
    expect((await stat(file())).mode & 0o777).toBe(0o600)
    expect(await importLedger(to.test.database, file())).toEqual(rows)
    expect(await image(to.pool)).toEqual(await image(from.pool))
    expect(await readAccounting(to.test.database.db)).toMatchObject({ accepted: 7, unaccounted: 0 })
    await to.pool.query(`insert into fires (schedule, fire_at, outcome) values ('s', now(), 'submitted')`)
  })

  test('a ledger at work is not exported, unless that is asked for, and none is imported into one at work', async () => {
    await from.join()
    await expect(exportLedger(from.test.database, file(), false)).rejects.toThrow('stop every node first')
    await exportLedger(from.test.database, file(), true)
    await to.join()
    await expect(importLedger(to.test.database, file())).rejects.toThrow('stop every node first')
  })

  test('a ledger that has tasks takes no other', async () => {
    await stopped()
    await exportLedger(from.test.database, file(), false)
    await to.insert()
    await to.pool.query('update nodes set left_at = now()')
    await expect(importLedger(to.test.database, file())).rejects.toThrow('has tasks of its own')
  })

  test('a file that is damaged, cut, or of another schema changes nothing', async () => {
    await someTasks()
    await exportLedger(from.test.database, file(), false)
    const before = await image(to.pool)
    const whole = await readFile(file())
    const text = gunzipSync(whole).toString()
    const bad = {
      cut: whole.subarray(0, whole.length - 200),
      'cut before it was packed': gzipSync(text.slice(0, text.length / 2)),
      'not packed': Buffer.from('hello'),
      'of another schema': gzipSync(text.replace('0001-tasks', '0001-other')),
      'with an unknown table': gzipSync(text.replace('{"table":"queues"', '{"table":"pg_class"')),
    }
    for (const [what, bytes] of Object.entries(bad)) {
      await writeFile(file(), bytes)
      const error = await importLedger(to.test.database, file()).catch((thrown: unknown) => thrown)
      expect({ what, refused: error instanceof TransferRefused }).toEqual({ what, refused: true })
      expect(await image(to.pool)).toEqual(before)
    }
  })
})
