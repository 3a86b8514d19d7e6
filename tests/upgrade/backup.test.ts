import { expect, test } from 'bun:test'
import { join } from 'node:path'
import { ENGINES, runPostgresClient, testDatabase } from '../support/database.ts'
import { startNode } from '../support/node-process.ts'
import { factsOf, OLD_SCHEMAS, oldInstallation } from './old-ledger.ts'

// With the embedded Postgres, and by copying the folder: docs/backup-and-restore.md, whose blocks are run.

test.if(ENGINES.includes('server'))(
  'server: a dump that is taken while a node runs is restored as the same ledger, and work goes on from it',
  async () => {
    const schema = OLD_SCHEMAS.at(-1) as string
    const { adminKey, accounting, tasks } = factsOf(schema)
    await using old = await oldInstallation('server', schema)
    const node = old.spawn({ env: { LONGSHORE_ROLES: 'api' } })
    await node.listening
    const dump = join(old.folder.path, 'longshore.dump')
    await old.withDatabase(async (_, connection) => {
      if (!('url' in connection)) throw new Error('A server has a URL')
      await runPostgresClient('pg_dump', ['--format=custom', `--file=${dump}`, connection.url])
    })
    await node.call('POST', `/tasks/${tasks.dead}/replay`)
    await node.stop()

    const { connection, drop } = await testDatabase('server', { poolSize: 1 })
    try {
      if (!('url' in connection)) throw new Error('A server has a URL')
      const options = ['--clean', '--if-exists', '--single-transaction', '--no-owner', `--dbname=${connection.url}`]
      await runPostgresClient('pg_restore', [...options, dump])
      const env = { DATABASE_URL: connection.url, LONGSHORE_ADMIN_KEY: adminKey, LONGSHORE_ROLES: 'api' }
      const restored = await startNode(old.folder, { env })
      expect(restored.logged('migrated')).toEqual([])
      // The time of the dump, not of the replay after it.
      expect(await restored.call('GET', '/accounting')).toMatchObject(accounting)
      expect(await restored.call('GET', `/tasks/${tasks.dead}`)).toMatchObject({ status: 'dead' })
      await restored.call('POST', `/tasks/${tasks.dead}/replay`)
      expect(await restored.call('GET', `/tasks/${tasks.dead}`)).toMatchObject({ status: 'pending' })
      await restored.stop()
    } finally {
      await drop()
    }
  },
  60_000,
)
