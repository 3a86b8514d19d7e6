import { afterAll, describe, expect, test } from 'bun:test'
import { pino } from 'pino'
import { v7 } from 'uuid'
import { migrations } from '../../db/migrations/index.ts'
import { readAccounting } from '../../src/store/accounting.ts'
import { openDatabase } from '../../src/store/database/database.ts'
import { migrate } from '../../src/store/database/migrate.ts'
import { connectClient, ENGINES, emptyDatabase, runPostgresClient, testDatabase } from '../support/database.ts'
import { SUCCEEDED, type TaskLedger, taskLedger } from '../support/tasks.ts'
import { loadOldLedger, OLD_SCHEMAS, statementsOf } from './old-ledger.ts'

// While a cluster is upgraded node by node, the first new one has migrated and the others still run the version before.

const cleanups: (() => Promise<unknown>)[] = []
afterAll(async () => {
  for (const clean of cleanups.splice(0).reverse()) await clean()
})

for (const schema of OLD_SCHEMAS) {
  const statements = statementsOf(schema)

  describe.each(ENGINES)('%s', (engine) => {
    test(`every statement of a node of schema ${schema} is still understood by the present schema`, async () => {
      const { database, drop } = await testDatabase(engine, { poolSize: 1 })
      cleanups.push(drop)
      const refused: string[] = []
      for (const text of statements) {
        await database.pool.query(`prepare old as ${text}`).then(
          () => database.pool.query('deallocate old'),
          (error: Error) => refused.push(`${error.message}: ${text}`),
        )
      }
      expect(statements.length).toBeGreaterThan(30)
      expect(refused).toEqual([])
    })

    test(`a node of schema ${schema} and one of this version share the work on the present schema`, async () => {
      const ledger = await taskLedger(engine)
      cleanups.push(() => ledger.test.drop())
      const old = oldNode(ledger, statements)
      await old.join()
      await old.beat()

      // Each claims and settles what the other has accepted.
      const [a, b] = await old.insert(2)
      for (const id of [a, b]) await ledger.run(id as string, SUCCEEDED)
      const c = await ledger.insert()
      expect(await old.claim()).toEqual([c])
      expect(await old.settle(c, 'failed', 'retrying')).toEqual([c])
      await ledger.run(c, SUCCEEDED)
      expect(await ledger.row(c)).toMatchObject({ status: 'succeeded', attempt: 2, failures: 1 })

      // Neither ends what the other holds.
      const d = await ledger.insert()
      const held = await ledger.claimOne(d)
      expect(await old.settle(d, 'succeeded', 'succeeded')).toEqual([])
      await ledger.settle(held, SUCCEEDED)
      const [e] = await old.insert(1)
      expect(await old.claim()).toEqual([e as string])
      expect(await ledger.settle({ ...held, id: e as string }, SUCCEEDED)).toMatchObject({ late: true })
      expect(await old.settle(e as string, 'succeeded', 'succeeded')).toEqual([e as string])

      expect(await readAccounting(ledger.test.database.db)).toMatchObject({ accepted: 5, succeeded: 5, unaccounted: 0 })
    })
  })

  test.if(ENGINES.includes('server'))(
    `the migrations up to ${schema} are those that have landed: they make the schema that was left behind then`,
    async () => {
      const landed = Object.keys(migrations).filter((name) => name.slice(0, 4) <= schema)
      const made = await noSchema()
      const database = openDatabase({ connection: { url: made }, poolSize: 2, log: pino({ level: 'silent' }) })
      const subset = Object.fromEntries(Object.entries(migrations).filter(([name]) => landed.includes(name)))
      await migrate(database, pino({ level: 'silent' }), subset).finally(() => database.close())

      const left = await noSchema()
      const client = await connectClient({ connectionString: left })
      await loadOldLedger(client, schema).finally(() => client.end())
      expect(await schemaOf(made)).toBe(await schemaOf(left))
    },
  )
}

/** A node that knows the statements of its version only, with the values that it gave them. */
function oldNode({ pool, node: _, ...ledger }: TaskLedger, statements: string[]) {
  const id = v7()
  const statement = (...marks: string[]) => {
    const found = statements.filter((text) => marks.every((mark) => text.includes(mark)))
    if (found.length !== 1) throw new Error(`${found.length} statements have ${marks.join(' and ')}`)
    return found[0] as string
  }
  const ids = async (text: string, values: unknown[]) =>
    (await pool.query<{ id: string }>(text, values)).rows.map((row) => row.id)
  const state = JSON.stringify({ broker: 'in-process', consumers: [] })
  return {
    join: () => pool.query(statement('insert into nodes'), [id, 'old', '0.1.0', ['worker'], state]),
    beat: () => pool.query(statement('update nodes set beat_at'), [id, [], state]),
    async insert(count: number): Promise<string[]> {
      const made = Array.from({ length: count }, () => v7())
      const all = (value: unknown) => made.map(() => value)
      const columns = ['default', null, null, 0, null, null, 3, null, null, null, null, 'api'].map(all)
      const payloads = `[${made.map(() => '{"n":1.0}').join()}]`
      const insert = statement('insert into tasks')
      // Since schema 0004 it takes the trace contexts, too.
      const traces = insert.includes('$16') ? [all(null)] : []
      return ids(insert, [made, ...columns, payloads, id, ...traces])
    },
    claim: () => ids(statement('for update skip locked', "set status = 'running'"), ['default', 10, id, v7()]),
    async settle(task: string, outcome: string, status: string): Promise<string[]> {
      const { attempt } = await ledger.row(task)
      const failures = outcome === 'failed' ? 1 : 0
      const ends = [task, attempt, outcome, status, failures, 0, 0, failures ? 'no luck' : null, null, null]
      return ids(statement('jsonb_build_object', "'number'", 't.node = $11'), [...ends.map((end) => [end]), id])
    },
  }
}

async function noSchema(): Promise<string> {
  const { url, drop } = await emptyDatabase('server')
  cleanups.push(drop)
  return url
}

async function schemaOf(url: string): Promise<string> {
  const options = ['--schema-only', '--no-owner', '--no-privileges', '--dbname', url]
  const dump = await runPostgresClient('pg_dump', options)
  return dump.replaceAll(/^\\(un)?restrict .*\n/gm, '')
}
