import { expect, test } from 'bun:test'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { migrations } from '../../db/migrations/index.ts'
import { reached, read } from '../e2e/installation.ts'
import { ENGINES, type Engine } from '../support/database.ts'
import type { NodeProcess } from '../support/node-process.ts'
import { until } from '../support/until.ts'
import { factsOf, OLD_SCHEMAS, type OldInstallation, oldInstallation } from './old-ledger.ts'

const UNKNOWN = '9999-from-the-future'

for (const schema of OLD_SCHEMAS) {
  const facts = factsOf(schema)
  const { tasks } = facts

  // Side by side, because most of it is waiting until the killed node counts as dead.
  test(`a ledger of ${facts.version} (schema ${schema}) is migrated at start, and everything in it works on`, async () => {
    const ends = await Promise.allSettled(ENGINES.map((engine) => upgrade(engine)))
    for (const [index, end] of ends.entries()) {
      if (end.status === 'rejected') throw new Error(`On the engine "${ENGINES[index]}"`, { cause: end.reason })
    }
  }, 180_000)

  async function upgrade(engine: Engine): Promise<void> {
    await using old = await oldInstallation(engine, schema)
    const had = await old.withDatabase(async (client) => {
      const { rows } = await client.query<{ name: string }>('select name from kysely_migration order by name')
      return rows.map((row) => row.name)
    })
    expect(had).toEqual(Object.keys(migrations).slice(0, had.length))
    await writeFile(join(old.folder.path, 'handlers/held.ts'), 'export default () => "ran again"\n')
    await writeFile(join(old.folder.path, 'handlers/mended.ts'), 'export default () => "mended"\n')

    const node = old.spawn()
    await node.listening
    expect(node.logged('migrated').map((line) => line.migration)).toEqual(Object.keys(migrations).slice(had.length))
    expect(accountingOf(await node.call('GET', '/accounting'))).toEqual(facts.accounting)
    await keysStillOpen(node)

    // What was final reads as before, and its payload's very text is still there.
    const response = await fetch(`${await node.listening}/api/v1/tasks/${tasks.succeeded}`, { headers: node.headers() })
    expect(await response.text()).toContain('"payload":{"b":1.0,"a":9007199254740993}')
    expect(await node.call('POST', '/tasks', facts.keyed.body)).toMatchObject({ id: facts.keyed.id, attempt: 1 })
    expect(await read(node, tasks.cancelled)).toMatchObject({ status: 'cancelled' })
    expect(await read(node, tasks.later)).toMatchObject({ status: 'pending', waitingFor: { cause: 'due-later' } })

    // What waited goes on: paused, failed, dead, in the hands of a foreign consumer.
    await node.call('POST', `/tasks/${tasks.retrying}/run-now`)
    await node.call('POST', '/consumers', { queue: 'reports', target: { type: 'noop' }, concurrency: 5 })
    await node.call('POST', '/queues/reports/resume')
    await node.call('POST', `/tasks/${tasks.dead}/replay`)
    await node.call('PUT', `/tasks/${tasks.foreign}/status`, { status: 'succeeded', result: 1 })
    await node.call('POST', `/tasks/${tasks.later}/run-now`)
    for (const id of [tasks.retrying, tasks.waiting, tasks.dead, tasks.foreign, tasks.later, ...facts.children]) {
      expect(await reached(node, id)).toMatchObject({ status: 'succeeded' })
    }
    expect(await reached(node, tasks.parent)).toMatchObject({
      status: 'succeeded',
      children: { total: 2, succeeded: 2, dead: 0, live: 0 },
    })
    // What the killed node had in its hands runs again when that node counts as dead.
    expect(await reached(node, tasks.running, ['succeeded'], 60_000)).toMatchObject({
      attempt: 2,
      failures: 0,
      result: 'ran again',
      attempts: [{ number: 1, outcome: 'lost' }, { number: 2 }],
    })

    const added = await node.call<{ id: string }>('POST', '/tasks', { queue: 'emails', payload: 'new' })
    await reached(node, added.id, ['succeeded'])
    const { accepted, cancelled, pruned } = facts.accounting
    expect(accountingOf(await node.call('GET', '/accounting'))).toEqual({
      accepted: accepted + 1,
      succeeded: accepted + 1 - cancelled - pruned,
      dead: 0,
      cancelled,
      live: 0,
      pruned,
      unaccounted: 0,
    })
    await node.stop()
  }

  async function keysStillOpen(node: NodeProcess): Promise<void> {
    const asReader = (method: string, path: string) =>
      node.listening.then((url) =>
        fetch(`${url}/api/v1${path}`, { method, headers: { authorization: `Bearer ${facts.readKey}` } }),
      )
    expect((await asReader('GET', `/tasks/${tasks.dead}`)).status).toBe(200)
    expect((await asReader('POST', `/tasks/${tasks.dead}/replay`)).status).toBe(403)
  }

  test(`a node that does not migrate refuses the schema ${schema} and says how to migrate`, async () => {
    await using old = await oldInstallation(ENGINES.at(-1) as Engine, schema)
    const before = await imageOf(old)
    const node = old.spawn({ env: { MIGRATE: 'off' } })
    await expect(node.listening).rejects.toThrow('longshore migrate up')
    expect(await node.exited).toBe(1)
    expect(await imageOf(old)).toEqual(before)
  }, 60_000)

  for (const engine of ENGINES) {
    test(`${engine}: a schema that is newer than ${schema} and unknown is refused at start with what to do, and stays as it is`, async () => {
      await using old = await oldInstallation(engine, schema)
      await old.withDatabase((client) =>
        client.query('insert into kysely_migration values ($1, $2)', [UNKNOWN, '2099-01-01T00:00:00.000Z']),
      )
      const before = await imageOf(old)

      const node = old.spawn()
      await expect(node.listening).rejects.toThrow(UNKNOWN)
      expect(await node.exited).toBe(1)
      const [failed] = await until(() => node.logged('start-failed'), { what: 'the reason in the log' })
      expect(failed?.msg).toContain('start that version or a later one')
      expect(node.logged('migrated')).toEqual([])
      expect(await imageOf(old)).toEqual(before)
    }, 60_000)
  }
}

/** Which tables there are, which migrations, and a digest of every task. */
function imageOf(old: OldInstallation): Promise<unknown[]> {
  return old.withDatabase(async (client) => {
    const { rows } = await client.query(
      `select (select array_agg(relname::text order by relname) from pg_class where relnamespace = 'public'::regnamespace) as relations,
        (select array_agg(name::text order by name) from kysely_migration) as migrations,
        (select md5(string_agg(t::text, '|' order by id)) from tasks t) as tasks`,
    )
    return rows
  })
}

function accountingOf({ byStatus: _, overdue: __, ...sums }: Record<string, unknown>) {
  return sums
}
