import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createSecretBox, readSecretKey } from '../../src/runtime/secret-box.ts'
import { createSources } from '../../src/sources/sources.ts'
import type { Database } from '../../src/store/database/database.ts'
import { listFiles } from '../../src/store/files/list.ts'
import type { SourceAuth, SourceBody } from '../../src/task/source/source.ts'
import type { Source } from '../../src/task/source/state.ts'
import { noServers, type RemoteHome, remoteHome } from '../files/remote-home.ts'
import { csvRows } from '../sources/import/import-under-test.ts'
import { type FileServer, startVsftpd } from '../support/ftp-servers.ts'
import { HAS_RABBITMQ, testVhost } from '../support/rabbitmq.ts'
import { until } from '../support/until.ts'
import { install } from './installation.ts'

const KEY = 'ab'.repeat(32)

describe.skipIf(noServers !== undefined)('a node that polls FTP', () => {
  let home: RemoteHome
  let server: FileServer
  beforeAll(async () => {
    home = await remoteHome()
    server = await startVsftpd(home.path)
  })
  afterAll(async () => {
    await server[Symbol.asyncDispose]()
    await home[Symbol.asyncDispose]()
  })

  /** Comes in one go, as a careful sender's does. */
  async function drop(name: string, rows: number): Promise<void> {
    const hidden = join(server.folder, `.${name}`)
    await writeFile(hidden, Buffer.concat(await Array.fromAsync(csvRows(rows))))
    await rename(hidden, join(server.folder, name))
  }

  function createIn({ pool }: Database, over: Partial<SourceBody>): Promise<Source> {
    const { protocol, host, port, auth } = server.connection
    const key = readSecretKey(KEY) as Buffer
    const sources = createSources({
      pool,
      box: createSecretBox([key]),
      checkHost: () => undefined,
      onChanged() {},
      onTopology() {},
    })
    return sources.create({
      name: 'bank',
      ...{ protocol, host, port, auth: auth as SourceAuth, directory: server.root },
      cron: '* * * * * *',
      deliver: { queue: 'records' },
      ...over,
    })
  }

  test.if(HAS_RABBITMQ)(
    'imports over the exchange of RabbitMQ, and announces to whoever has bound a queue there',
    async () => {
      await using vhost = await testVhost()
      await using installation = await install('server')
      const node = await installation.start({ AMQP_URL: vhost.amqpUrl, LONGSHORE_SECRET_KEY: KEY })
      await node.call('PUT', '/queues/records', {})
      await node.call('POST', '/consumers', {
        queue: 'records',
        target: { type: 'noop' },
        concurrency: 200,
        timeout: '30s',
      })
      await drop('through-rabbitmq.csv', 5_000)
      const { database } = installation
      const source = await createIn(database, { include: ['through-rabbitmq.csv'] })
      const done = await until(
        async () => {
          const [file] = await listFiles(database.pool, { source: source.id, limit: 1 })
          return file?.finishedAt ? file : undefined
        },
        { timeoutMs: 120_000, what: 'the end of every record' },
      )
      expect(done).toMatchObject({
        status: 'done',
        recordsRead: 5_000,
        tasks: { total: 5_000, succeeded: 5_000, dead: 0 },
      })
      const exchange = await vhost.manage<object>('GET', `/exchanges/${vhost.name}/ftp_exchange`)
      expect(exchange).toMatchObject({ type: 'topic', durable: true })

      const mine = { durable: true, arguments: {} }
      await vhost.manage('PUT', `/queues/${vhost.name}/fetchers`, mine)
      await vhost.manage('POST', `/bindings/${vhost.name}/e/ftp_exchange/q/fetchers`, { routing_key: 'ftp.*' })
      const announcing = await createIn(database, { name: 'announcing', mode: 'announce', format: { type: 'json' } })
      const messages = await until(
        async () => {
          const got = await vhost.manage<{ payload: string; routing_key: string; properties: object }[]>(
            'POST',
            `/queues/${vhost.name}/fetchers/get`,
            { count: 10, ackmode: 'reject_requeue_true', encoding: 'auto' },
          )
          return got.filter(({ payload }) => payload.includes(announcing.id))[0]
        },
        { timeoutMs: 90_000, what: 'an announcement' },
      )
      expect(messages).toMatchObject({ routing_key: 'ftp.json', properties: { delivery_mode: 2 } })
      const { connection } = server
      expect(JSON.parse(messages.payload)).toEqual({
        sourceId: announcing.id,
        host: connection.host,
        port: connection.port,
        directory: server.root,
        contentType: 'json',
        runId: expect.any(String),
      })
      await node.stop()
    },
    300_000,
  )
})
