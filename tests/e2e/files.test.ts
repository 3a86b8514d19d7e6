import { expect, test } from 'bun:test'
import { createHash } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { chown, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { noServers, type RemoteHome, remoteHome } from '../files/remote-home.ts'
import { testBroker } from '../support/brokers.ts'
import { listen, type SeenEvent } from '../support/event-stream.ts'
import { type FileServer, servers, startPureFtpd, startVsftpd } from '../support/ftp-servers.ts'
import type { NodeProcess } from '../support/node-process.ts'
import { parsePrometheus, total } from '../support/prometheus.ts'
import { BROKERS } from '../support/rabbitmq.ts'
import { startSshd } from '../support/sshd.ts'
import { until } from '../support/until.ts'
import { type Installation, install, makeQueue, read, submit, type Task } from './installation.ts'

interface Source {
  id: string
  status: string
  pinned: object | null
  poll: { error: { layer: string } | null } | null
}

interface StoredFile {
  id: string
  path: string
  status: string
  size: number
  sha256: string
  taskId: string
  progress: { bytesRead: number; recordsRead: number; recordsRejected: number }
  tasks: { total: number; succeeded: number; dead: number; live: number }
  finishedAt: string | null
  generation: number
}

interface Page<T> {
  items: T[]
}

const ROWS = [
  ['Ada', 'transfer', '10.50', '2026-01-31', 'completed'],
  ['Grace "the Admiral" Hopper', 'refund', '1234567.05', '2026-02-01', 'pending'],
  ['Łukasz, GmbH', 'transfer', '0.10', '2026-02-28', 'failed'],
] as const
const NAMES = ['client_name', 'transaction_type', 'amount', 'date', 'status'] as const
const RECORDS = ROWS.map((row) => Object.fromEntries(NAMES.map((name, i) => [name, row[i]])))
const quoted = (text: string) => `"${text.replaceAll('"', '""')}"`
const escaped = (text: string) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')

/** The same rows three times, as a bank might send them. */
const FILES = {
  'transactions.csv': `${NAMES.join(',')}\n${ROWS.map((row) => row.map(quoted).join(',')).join('\n')}\n`,
  'transactions.json': JSON.stringify({ transactions: RECORDS }),
  'transactions.xml': `<?xml version="1.0"?><transactions>${RECORDS.map(
    (record) =>
      `<transaction>${NAMES.map((name) => `<${name}>${escaped(String(record[name]))}</${name}>`).join('')}</transaction>`,
  ).join('')}</transactions>`,
}

const KEY = { LONGSHORE_SECRET_KEY: Buffer.alloc(32, 5).toString('base64') }

/** What is spoken, over which broker, and by what server. */
const SERVERS: [string, (typeof BROKERS)[number], (home: RemoteHome) => Promise<FileServer>][] = [
  ['FTP', 'in-process', (home) => startVsftpd(home.path)],
  [
    'FTPS',
    'in-process',
    (home) => startPureFtpd(home.path, { tls: { certificate: home.certificates.good, mode: 'explicit' } }),
  ],
  ['SFTP', 'in-process', (home) => startSshd(home.path)],
  ['FTP', 'rabbitmq', (home) => startVsftpd(home.path)],
]

/** Puts a file onto the server in one step, as a careful sender does. */
async function drop({ folder }: FileServer, name: string, content: string): Promise<void> {
  const { uid, gid } = servers().user
  const draft = join(folder, `${name}.part`)
  await writeFile(draft, content)
  await chown(draft, uid, gid)
  await rename(draft, join(folder, name))
}

async function makeSource(node: NodeProcess, server: FileServer, home: RemoteHome, over: object = {}): Promise<Source> {
  const { protocol, host, port, auth } = server.connection
  return node.call<Source>('POST', '/sources', {
    ...{ name: 'bank', protocol, host, port, auth },
    ...(protocol === 'ftps' && { tls: { ca: home.certificates.ca } }),
    directory: server.root,
    format: {
      type: 'by-extension',
      json: { path: '/transactions' },
      xml: { path: '/transactions/transaction' },
    },
    cron: '* * * * * *',
    after: { kind: 'move', to: 'done' },
    deliver: { queue: 'transactions', type: 'transaction' },
    ...over,
  })
}

async function makeTable(node: NodeProcess, { database }: Installation): Promise<void> {
  await database.pool.query(`create schema data; create table data.client_transaction (
    client_name text, transaction_type text, amount decimal(10,2), date date, status text)`)
  await node.call('PUT', '/queues/transactions', {})
  await node.call('POST', '/consumers', {
    queue: 'transactions',
    target: { type: 'table', table: 'client_transaction' },
  })
}

const files = async (node: NodeProcess, query = '') =>
  (await node.call<Page<StoredFile>>('GET', `/sources/bank/files${query}`)).items

const finished = (node: NodeProcess, count: number) =>
  until(
    async () => {
      const all = await files(node)
      return all.filter(({ finishedAt }) => finishedAt !== null).length === count ? all : undefined
    },
    { timeoutMs: 90_000, what: `${count} files to be finished` },
  )

for (const [protocol, kind, start] of SERVERS) {
  test.skipIf(noServers !== undefined || !BROKERS.includes(kind))(
    `${protocol}, ${kind}: a CSV, a JSON and an XML file end as rows of a table, and each row leads to its file and back`,
    async () => {
      await using home = await remoteHome()
      await using server = await start(home)
      await using place = await install('server')
      await using broker = await testBroker(kind)
      const node = await place.start({ ...KEY, ...broker.env })
      await makeTable(node, place)
      for (const [name, content] of Object.entries(FILES)) await drop(server, name, content)
      const made = await makeSource(node, server, home, { paused: true })
      expect(JSON.stringify(made)).not.toContain('password":')

      const tested = await node.call<Record<string, unknown>>('POST', '/sources/bank/test')
      expect(tested).toMatchObject({
        ok: true,
        failure: null,
        listing: { looked: 3 },
        preview: { records: RECORDS, rejects: [] },
      })
      const seen = await node.call<Page<{ path: string }>>('GET', '/sources/bank/browse')
      expect(seen.items.map(({ path }) => path.split('/').at(-1))).toEqual(Object.keys(FILES))
      const events = await listen(
        `${await node.listening}/api/v1/events?kinds=file&source=bank`,
        node.headers() as Record<string, string>,
      )
      await node.call('POST', '/sources/bank/resume')

      const imported = await finished(node, 3)
      for (const file of imported) {
        const isEnd = ({ data }: SeenEvent) => data.id === file.id && data.finishedAt !== null
        const { event, data } = await events.seen(isEnd, `the end of ${file.path}`, 30_000)
        // What is done with the remote file may come a moment later.
        expect({ event, data: { ...data, after: null } }).toEqual({ event: 'file', data: { ...file, after: null } })
        const content = FILES[file.path.split('/').at(-1) as keyof typeof FILES]
        expect(file).toMatchObject({
          status: 'done',
          size: Buffer.byteLength(content),
          sha256: createHash('sha256').update(content).digest('hex'),
          progress: { bytesRead: Buffer.byteLength(content), recordsRead: 3, recordsRejected: 0 },
          tasks: { total: 3, succeeded: 3, dead: 0, live: 0 },
        })
        const { items: rows } = await node.call<Page<Task & { origin: string; parentId: string; payload: unknown }>>(
          'GET',
          `/tasks?parentId=${file.taskId}`,
        )
        expect(rows.map(({ origin, parentId }) => [origin, parentId])).toEqual(
          Array(3).fill(['file', file.taskId]) as string[][],
        )
        const parent = await node.call<{ payload: object; status: string }>('GET', `/tasks/${rows[0]?.parentId}`)
        expect(parent).toMatchObject({
          status: 'succeeded',
          payload: { fileId: file.id, sourceId: made.id, path: file.path, sha256: file.sha256 },
        })
      }
      const { rows } = await place.database.pool.query(
        `select client_name, transaction_type, amount::text, date::text, status, count(*)::int
         from data.client_transaction group by 1, 2, 3, 4, 5 order by client_name`,
      )
      expect(rows).toEqual(
        RECORDS.map((record) => ({ ...record, count: 3 })).sort((a, b) =>
          String((a as Record<string, unknown>).client_name) < String((b as Record<string, unknown>).client_name)
            ? -1
            : 1,
        ),
      )
      const metrics = parsePrometheus(
        await (await fetch(`${await node.listening}/metrics`, { headers: node.headers() })).text(),
      )
      expect(total(metrics, 'longshore_file_records_read_total')).toBe(9)
      expect(total(metrics, 'longshore_file_bytes_read_total')).toBe(
        Object.values(FILES).reduce((sum, content) => sum + Buffer.byteLength(content), 0),
      )
      expect(total(metrics, 'longshore_file_records_rejected_total')).toBe(0)
      await until(() => readdirSync(join(server.folder, 'done')).length === 3, {
        what: 'the files to be moved',
        timeoutMs: 30_000,
      })
      await node.stop()
    },
    240_000,
  )
}

test.skipIf(noServers !== undefined)(
  'records that the table refused are run again alone, once it is mended, and the whole file again as a new version',
  async () => {
    await using home = await remoteHome()
    await using server = await startVsftpd(home.path)
    await using place = await install('server')
    const node = await place.start(KEY)
    await makeTable(node, place)
    await drop(
      server,
      'rows.csv',
      `${NAMES.join(',')}\nAda,transfer,1,2026-01-31,ok\nBob,transfer,1e12,2026-01-31,ok\n`,
    )
    await makeSource(node, server, home)
    const [file] = await finished(node, 1)
    expect(file).toMatchObject({ status: 'done', tasks: { total: 2, succeeded: 1, dead: 1, live: 0 } })
    const counted = async () =>
      (await place.database.pool.query('select count(*)::int as n from data.client_transaction')).rows[0].n
    await place.database.pool.query('alter table data.client_transaction alter amount type numeric')
    await until(() => readdirSync(join(server.folder, 'done')).length === 1, {
      what: 'the file to be moved',
      timeoutMs: 30_000,
    })
    await node.call('POST', `/sources/bank/files/${file?.id}/rerun`, { only: 'failed' })
    const [mended] = await finished(node, 1)
    expect(mended).toMatchObject({ id: file?.id, tasks: { total: 2, succeeded: 2, dead: 0, live: 0 } })
    expect(await counted()).toBe(2)
    const again = await node.call<StoredFile>('POST', `/sources/bank/files/${file?.id}/rerun`)
    expect(again.generation).toBe(2)
    await finished(node, 2)
    expect(await counted()).toBe(4)
    await node.stop()
  },
  300_000,
)

for (const kind of BROKERS) {
  test.skipIf(noServers !== undefined)(
    `${kind}: a node that polls and leaves all other work to workers imports its files and writes tables itself`,
    async () => {
      await using home = await remoteHome()
      await using server = await startVsftpd(home.path)
      await using place = await install('server')
      await using broker = await testBroker(kind)
      const node = await place.start({ ...KEY, ...broker.env, LONGSHORE_ROLES: 'api,dispatcher,scheduler' })
      await makeTable(node, place)
      await makeQueue(node, 'others')
      const other = await submit(node, { queue: 'others', payload: 1, target: { type: 'noop' } })
      await drop(server, 'transactions.csv', FILES['transactions.csv'])
      await makeSource(node, server, home)
      const [file] = await finished(node, 1)
      expect(file).toMatchObject({ tasks: { total: 3, succeeded: 3, dead: 0, live: 0 } })
      expect(await read(node, other)).toMatchObject({ attempt: 0, finishedAt: null })
      await node.stop()
    },
    240_000,
  )
}
