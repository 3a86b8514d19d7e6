import { expect, test } from 'bun:test'
import { readdir, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pino } from 'pino'
import { pause, realClock } from '../../src/runtime/clock.ts'
import { openDatabase } from '../../src/store/database/database.ts'
import { embeddedConnection } from '../../src/store/postgres/embedded.ts'
import { noServers, remoteHome } from '../files/remote-home.ts'
import { csvRows } from '../sources/import/import-under-test.ts'
import { startVsftpd } from '../support/ftp-servers.ts'
import { killPostgres, nodeFolder, startNode } from '../support/node-process.ts'
import { until } from '../support/until.ts'
import { SEED, seeded } from './seed.ts'

/** A node that starts again waits 15 s for the import of the one before it: a quarter of an hour allows 30 kills in 200,000 rows. */
const KILLS = Number(process.env.IMPORT_KILLS ?? 2)
const ROWS = Number(process.env.IMPORT_ROWS ?? 40_000)

interface StoredFile {
  status: string
  taskId: string
  finishedAt: string | null
  after: { state: string } | null
  progress: { recordsRead: number }
}

test.skipIf(noServers !== undefined)(
  `${KILLS} times kill -9 of a node, and its Postgres, while it imports ${ROWS} rows from a server into a table: each row is there once, and the file moved away (seed ${SEED})`,
  async () => {
    const random = seeded(SEED)
    await using remote = await remoteHome()
    await using server = await startVsftpd(remote.path)
    await using folder = await nodeFolder()
    const env = { LONGSHORE_SECRET_KEY: 'ab'.repeat(32) }
    let node = await startNode(folder, { env })
    const database = async () => {
      const connection = await embeddedConnection(node.dataDir)
      if (!connection) throw new Error('The embedded Postgres does not run')
      return openDatabase({ connection, poolSize: 1, log: pino({ level: 'silent' }) })
    }
    const file = async () => (await node.call<{ items: StoredFile[] }>('GET', '/sources/bank/files')).items[0]
    const read = async () => (await file())?.progress.recordsRead ?? 0

    const setUp = await database()
    await setUp.pool.query('create schema data; create table data.imported (id int)')
    await setUp.close()
    await node.call('PUT', '/queues/rows', {})
    const target = { type: 'table', table: 'imported', columns: { id: '/id' } }
    await node.call('POST', '/consumers', { queue: 'rows', target, concurrency: 50 })
    const hidden = join(server.folder, '.rows.csv')
    await writeFile(hidden, Buffer.concat(await Array.fromAsync(csvRows(ROWS))))
    await rename(hidden, join(server.folder, 'rows.csv'))
    const { protocol, host, port, auth } = server.connection
    await node.call('POST', '/sources', {
      ...{ name: 'bank', protocol, host, port, auth, directory: server.root, cron: '* * * * * *' },
      ...{ format: { type: 'csv' }, deliver: { queue: 'rows' }, after: { kind: 'move', to: 'done' } },
    })

    let inTheMiddle = 0
    for (let kill = 0; kill < KILLS; kill++) {
      const before = await read()
      const share = before + Math.ceil((random() * (ROWS - before)) / (KILLS - kill + 1))
      await until(async () => (await read()) >= share, { timeoutMs: 240_000, what: `${share} records` })
      await pause(realClock, random() * 50)
      await node.kill()
      if (kill % 2 === 0) await killPostgres(node.dataDir)
      node = await startNode(folder, { env })
      const after = await read()
      if (after > 0 && after < ROWS) inTheMiddle++
    }
    const done = await until(
      async () => {
        const found = await file()
        return found?.finishedAt && found.after?.state === 'done' ? found : undefined
      },
      { timeoutMs: 240_000, what: 'the end of every record' },
    )
    expect(inTheMiddle).toBeGreaterThanOrEqual(KILLS / 2)
    expect(done).toMatchObject({
      status: 'done',
      progress: { recordsRead: ROWS, recordsRejected: 0 },
      tasks: { total: ROWS, succeeded: ROWS, dead: 0, live: 0 },
      after: { error: null, location: expect.stringMatching(/done\/rows\.csv$/) },
    })
    const ledger = await database()
    const { rows } = await ledger.pool.query(
      'select count(*)::int, count(distinct id)::int as different, min(id), max(id) from data.imported',
    )
    await ledger.close()
    expect(rows).toEqual([{ count: ROWS, different: ROWS, min: 1, max: ROWS }])
    expect(await node.call('GET', `/tasks/${done.taskId}`)).toMatchObject({ status: 'succeeded' })
    expect(await node.call('GET', '/accounting')).toMatchObject({ accepted: ROWS + 1, live: 0, unaccounted: 0 })
    expect(await readdir(server.folder)).toEqual(['done'])
    await until(async () => (await readdir(join(node.dataDir, 'spool'))).length === 0, { what: 'an empty spool' })
    expect(JSON.stringify(node.log)).not.toContain(auth.kind === 'password' ? auth.password : auth.kind)
    await node.stop()
  },
  480_000 + KILLS * 60_000,
)
