import { once } from 'node:events'
import { createWriteStream } from 'node:fs'
import { chown, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Pool } from 'pg'
import { pino } from 'pino'
import { openDatabase } from '../../src/store/database/database.ts'
import { embeddedConnection } from '../../src/store/postgres/embedded.ts'
import { remoteHome } from '../files/remote-home.ts'
import { type FileServer, servers, startPureFtpd, startVsftpd } from '../support/ftp-servers.ts'
import { startSshd } from '../support/sshd.ts'
import { peak, reached } from './load.ts'
import { type BenchNode, startNode } from './node.ts'
import type { Note } from './report.ts'

const DIRECTORY = 50_000

/** File servers on this machine, and a node with nothing configured that imports from them; then a new one, for ten times the rows. */
export async function benchFiles(note: Note, rows: number): Promise<void> {
  await using home = await remoteHome()
  await using ftp = await startVsftpd(home.path)
  await using ftps = await startPureFtpd(home.path, {
    tls: { certificate: home.certificates.good, mode: 'explicit' },
  })
  await using sftp = await startSshd(home.path)
  const { ca } = home.certificates
  await onNode({ note, rows, ca }, async (bench) => {
    for (const [name, server] of [
      ['FTP', ftp],
      ['FTPS', ftps],
      ['SFTP', sftp],
    ] as const) {
      await importInto(bench, `${name}, noop, 500 records a task`, server, 500, { type: 'noop' }, 50_000)
    }
    await importInto(bench, 'FTP, noop, one record a task', ftp, 1, { type: 'noop' }, 8_000)
    await bench.pool.query(`create schema data; create table data.client_transaction
      (client_name text, transaction_type text, amount decimal(10,2), date date, status text)`)
    await importInto(bench, 'FTP, table, one record a task', ftp, 1, { type: 'table', table: 'client_transaction' })
    for (const form of ['jsonl', 'json', 'xml'] as const) {
      await importInto(bench, `FTP, ${form}, noop, 500 records a task`, ftp, 500, { type: 'noop' }, undefined, form)
    }
    await pollOfMany(bench, ftp)
  })
  await onNode({ note, rows: 10 * rows, ca }, (bench) =>
    importInto(bench, 'FTP, noop, 500 records a task, 10x the rows', ftp, 500, { type: 'noop' }, 50_000),
  )
}

async function onNode(given: Pick<Bench, 'note' | 'rows' | 'ca'>, work: (bench: Bench) => Promise<void>) {
  const node = await startNode('bun')
  try {
    const connection = await embeddedConnection(node.dataDir)
    if (!connection) throw new Error('The embedded Postgres does not run')
    const { pool, close } = openDatabase({ connection, poolSize: 2, log: pino({ level: 'silent' }) })
    try {
      await work({ ...given, node, pool })
    } finally {
      await close()
    }
  } finally {
    await node.stop()
  }
}

interface Bench {
  note: Note
  node: BenchNode
  pool: Pool
  rows: number
  ca: string
}

interface File {
  size: number
  fetchedAt: string
  importedAt: string | null
  finishedAt: string | null
}

let made = 0

async function importInto(
  { note, node, rows, ca }: Bench,
  what: string,
  server: FileServer,
  recordsPerTask: number,
  target: object,
  least?: number,
  form: keyof typeof FORMS = 'csv',
): Promise<void> {
  made++
  const queue = `records-${made}`
  const name = `source-${made}`
  await node.call('PUT', `/queues/${queue}`, {})
  await node.call('POST', '/consumers', { queue, target, concurrency: 50 })
  const folder = join(server.folder, name)
  await makeFolder(folder)
  await makeRows(join(folder, `rows.${form}`), rows, FORMS[form])
  await node.call('POST', '/sources', {
    ...placeOf(server, ca, name),
    format: { type: 'by-extension', xml: { path: '/rows/row' } },
    deliver: { queue, recordsPerTask },
  })
  const measured = await peak(node.residentMb, async () => {
    await node.call('POST', `/sources/${name}/poll`)
    const polled = await pollOf(node, name)
    return { polled, file: await finished(node, name) }
  })
  const { polled, file } = measured.result
  const seconds = (to: string | null) => (Date.parse(to ?? '') - Date.parse(file.fetchedAt)) / 1_000
  const megabytes = file.size / 1_000_000
  note(`${what}: fetched`, megabytes / (polled.tookMs / 1_000), 'MB/s')
  note(
    '  parsed and committed',
    rows / seconds(file.importedAt),
    'records/s',
    least === undefined ? undefined : { least },
  )
  note('  the same', megabytes / seconds(file.importedAt), 'MB/s')
  note('  delivered to the last', rows / seconds(file.finishedAt), 'records/s')
  note('  resident memory, without Postgres', measured.peak, 'MB', { most: 300 })
}

/** Files that are known and done, looked at once more. */
async function pollOfMany({ note, node, pool, ca }: Bench, server: FileServer): Promise<void> {
  const folder = join(server.folder, 'many')
  await makeFolder(folder)
  for (let n = 0; n < DIRECTORY; n++) await writeFile(join(folder, `${n}.csv`), 'n\n1\n')
  await node.call('POST', '/sources', {
    ...placeOf(server, ca, 'many'),
    ready: { kind: 'marker' },
    deliver: { queue: 'records-1' },
  })
  await node.call('POST', '/sources/many/poll')
  await pollOf(node, 'many')
  await pool.query(`update files set status = 'done', finished_at = now() where status = 'seen'`)
  const before = (await node.call<Source>('GET', '/sources/many')).polledAt
  await node.call('POST', '/sources/many/poll')
  const { tookMs } = await pollOf(node, 'many', before)
  note(`poll of ${DIRECTORY.toLocaleString('en')} files with nothing new`, tookMs / 1_000, 's', { most: 3 })
}

interface Source {
  polledAt: string | null
  poll: { tookMs: number; error: { message: string } | null } | null
}

async function pollOf(node: BenchNode, name: string, before: string | null = null): Promise<{ tookMs: number }> {
  let source: Source | undefined
  await reached(async () => {
    source = await node.call<Source>('GET', `/sources/${name}`)
    return source.polledAt !== before
  })
  if (!source?.poll || source.poll.error) throw new Error(`The poll failed: ${JSON.stringify(source?.poll)}`)
  return source.poll
}

async function finished(node: BenchNode, name: string): Promise<File> {
  let file: File | undefined
  await reached(async () => {
    file = (await node.call<{ items: File[] }>('GET', `/sources/${name}/files`)).items[0]
    return file?.finishedAt != null
  })
  return file as File
}

function placeOf({ connection, root }: FileServer, ca: string, name: string): object {
  const { protocol, host, port, auth } = connection
  return {
    ...{ name, protocol, host, port, auth },
    ...(protocol === 'ftps' && { tls: { ca } }),
    directory: root === '/' ? `/${name}` : `${root}/${name}`,
    ready: { kind: 'at-once' },
  }
}

async function makeFolder(folder: string): Promise<void> {
  const { uid, gid } = servers().user
  await mkdir(folder)
  await chown(folder, uid, gid)
}

interface Form {
  head: string
  between: string
  foot: string
  row(values: readonly [name: string, type: string, amount: string, date: string, status: string]): string
}

const COLUMNS = ['client_name', 'transaction_type', 'amount', 'date', 'status']
const jsonRow: Form['row'] = (values) =>
  JSON.stringify(Object.fromEntries(COLUMNS.map((name, at) => [name, values[at]])))
const FORMS = {
  csv: { head: `${COLUMNS.join(',')}\n`, between: '\n', foot: '\n', row: (values) => values.join(',') },
  jsonl: { head: '', between: '\n', foot: '\n', row: jsonRow },
  json: { head: '[\n', between: ',\n', foot: '\n]\n', row: jsonRow },
  xml: {
    head: '<?xml version="1.0"?>\n<rows>\n',
    between: '\n',
    foot: '\n</rows>\n',
    row: (values) => `<row>${COLUMNS.map((name, at) => `<${name}>${values[at]}</${name}>`).join('')}</row>`,
  },
} satisfies Record<string, Form>

/** About 100 bytes a row as CSV, 190 as JSON and 230 as XML. */
async function makeRows(path: string, rows: number, { head, between, foot, row }: Form): Promise<void> {
  const file = createWriteStream(path, { mode: 0o644 })
  let text = head
  for (let n = 1; n <= rows; n++) {
    const name = `Client number ${String(n).padStart(12, '0')} and partners of the second street`
    text += row([name, 'transfer', `${n % 10_000}.50`, '2026-01-31', 'completed'])
    text += n < rows ? between : foot
    if (text.length < 1_048_576 && n < rows) continue
    if (!file.write(text)) await once(file, 'drain')
    text = ''
  }
  file.end()
  await once(file, 'finish')
}
