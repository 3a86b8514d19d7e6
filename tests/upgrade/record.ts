/**
 * Records what a version leaves behind, as the fixture from which later versions are upgraded.
 *
 *   git worktree add /tmp/old <commit> && (cd /tmp/old && bun install)
 *   bun tests/upgrade/record.ts /tmp/old tests/upgrade/fixtures/<schema>
 *
 * Runs that version on a fresh database of the server engine, gives it a task in every status, kills it in the middle of
 * its work, and writes `data.sql` (schema and rows), `statements.json` (every statement it sent) and `facts.json` (what
 * the tests need to know of it). Made once for each schema that has landed; the files are not changed afterwards.
 */
import { execFileSync, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import pg from 'pg'
import { adminUrl, inDatabase } from '../support/database.ts'
import { until } from '../support/until.ts'

const ADMIN_KEY = 'the-admin-key-of-the-upgrade-fixture'
/** Lines that pg_dump writes for psql, or that would change the session that loads the dump. */
const SESSION_LINES = /^(\\(un)?restrict .*|-- Dumped (from|by) .*|SET .*;|SELECT pg_catalog\.set_config\(.*)$/

const [checkout, out] = process.argv.slice(2).map((path) => resolve(path))
if (!checkout || !out) throw new Error('usage: bun tests/upgrade/record.ts <checkout> <fixture folder>')

const admin = await adminUrl('server')
const name = `longshore_test_${process.pid}_${randomBytes(5).toString('hex')}`
const url = inDatabase(admin, name)
const folder = await mkdtemp('/var/tmp/longshore-record-')
await asAdmin(`create database ${name}`)
try {
  await record()
} finally {
  await asAdmin(`drop database ${name} with (force)`)
  await rm(folder, { recursive: true, force: true })
}

async function record(): Promise<void> {
  const node = await startOldNode()
  const facts = await makeTasks(node.url)
  const { version } = JSON.parse(await readFile(join(checkout as string, 'package.json'), 'utf8')) as {
    version: string
  }
  node.kill()
  await node.ended

  const dump = execFileSync('pg_dump', ['--inserts', '--no-owner', '--no-privileges', '--dbname', url], {
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
  })
  const sql = dump
    .split('\n')
    .filter((line) => !SESSION_LINES.test(line))
    .join('\n')
    .replace(/\n{3,}/g, '\n\n')
  const sent = (await readFile(join(folder, 'statements'), 'utf8'))
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as string)
  const onLedger = sent.filter((text) => /^\s*(select|with|insert|update|delete)\b/i.test(text)).sort()

  await mkdir(out as string, { recursive: true })
  const write = (file: string, text: string) => writeFile(join(out as string, file), `${text.trim()}\n`)
  await write('data.sql', `-- Made by tests/upgrade/record.ts with longshore ${version}.\n\n${sql.trim()}`)
  await write('statements.json', JSON.stringify(onLedger, null, 2))
  await write('facts.json', JSON.stringify({ version, adminKey: ADMIN_KEY, ...facts }, null, 2))
  console.log(`${out} is written: ${onLedger.length} statements`)
}

async function startOldNode() {
  await mkdir(join(folder, 'handlers'))
  await writeFile(join(folder, 'handlers/held.ts'), 'export default () => new Promise(() => {})\n')
  await writeFile(join(folder, 'handlers/mended.ts'), 'export default () => { throw new Error("not mended yet") }\n')
  const child = spawn(
    process.execPath,
    ['--preload', join(import.meta.dir, 'statement-recorder.ts'), join(checkout as string, 'src/main.ts'), 'start'],
    {
      cwd: folder,
      env: {
        PATH: process.env.PATH,
        NODE_ENV: 'production',
        PORT: '0',
        DATABASE_URL: url,
        LONGSHORE_ADMIN_KEY: ADMIN_KEY,
        RECORD_CHECKOUT: checkout,
        RECORD_TO: join(folder, 'statements'),
      },
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  )
  const listening = Promise.withResolvers<string>()
  createInterface({ input: child.stdout }).on('line', (line) => {
    console.log(line)
    const entry = JSON.parse(line) as { event?: string; url?: string }
    if (entry.event === 'listening') listening.resolve(entry.url ?? '')
  })
  const ended = new Promise((resolve) => child.once('close', resolve))
  void ended.then(() => listening.reject(new Error('The node ended')))
  return { url: await listening.promise, kill: () => child.kill('SIGKILL'), ended }
}

/** A task in every status, and everything else that a ledger holds. */
async function makeTasks(base: string) {
  const call = async <T = { id: string; status: string }>(method: string, path: string, body?: unknown): Promise<T> => {
    const response = await fetch(`${base}/api/v1${path}`, {
      method,
      headers: { authorization: `Bearer ${ADMIN_KEY}`, 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    })
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`)
    return (response.status === 204 ? undefined : await response.json()) as T
  }
  const submit = async (task: unknown) => (await call('POST', '/tasks', task)).id
  const reached = (id: string, status: string) =>
    until(async () => (await call('GET', `/tasks/${id}`)).status === status, { what: `task ${id} to be ${status}` })
  const queue = (name: string) =>
    call('PUT', `/queues/${name}`, { retry: { maxAttempts: 3, backoff: { kind: 'fixed', base: '1h' } } })
  const consumer = (name: string, target: object) =>
    call('POST', '/consumers', { queue: name, target, concurrency: 10, timeout: '1m' })

  for (const one of ['emails', 'flaky', 'reports', 'foreign']) await queue(one)
  await consumer('emails', { type: 'noop' })
  await consumer('flaky', { type: 'handler', name: 'mended' })
  await call('POST', '/queues/reports/pause')
  const { key: readKey } = await call<{ key: string }>('POST', '/keys', { name: 'an old key', scopes: ['read'] })

  // The payload's text must survive as it is.
  const succeeded = await submit('{"queue":"emails","type":"welcome","payload":{"b":1.0,"a":9007199254740993}}')
  const keyed = { queue: 'emails', payload: { invoice: 1 }, idempotencyKey: 'invoice-1' }
  const keyedId = await submit(keyed)
  const deleted = await submit({ queue: 'emails', payload: 'deleted' })
  const dead = await submit({ payload: 'dead', target: { type: 'handler', name: 'mended' }, maxAttempts: 1 })
  const retrying = await submit({ queue: 'flaky', payload: 'retrying' })
  const waiting = await submit({ queue: 'reports', payload: 'waiting', priority: 5 })
  const parent = await submit({ queue: 'reports', payload: 'parent' })
  const children = [
    await submit({ queue: 'emails', payload: 'child', parentId: parent }),
    await submit({ queue: 'reports', payload: 'child', parentId: parent }),
  ]
  const later = await submit({ queue: 'emails', payload: 'later', dueAt: new Date(Date.now() + 9 * 365 * 864e5) })
  const cancelled = await submit({ queue: 'emails', payload: 'cancelled', delay: '1h' })
  await call('POST', `/tasks/${cancelled}/cancel`)
  const foreign = await submit({ queue: 'foreign', payload: 'foreign', timeout: '7d' })
  await call('PUT', `/tasks/${foreign}/status`, { status: 'running' })
  const reported = await submit({ queue: 'foreign', payload: 'reported' })
  await call('PUT', `/tasks/${reported}/status`, { status: 'running' })
  await call('PUT', `/tasks/${reported}/status`, { status: 'succeeded' })
  for (const list of ['tasks?status=dead', 'tasks?payload=1', 'queues', 'consumers', 'keys'])
    await call('GET', `/${list}`)
  const running = await submit({ payload: 'running', target: { type: 'handler', name: 'held' }, timeout: '7d' })

  for (const id of [succeeded, keyedId, deleted, children[0] as string]) await reached(id, 'succeeded')
  await call('DELETE', `/tasks/${deleted}`)
  await reached(dead, 'dead')
  await reached(retrying, 'retrying')
  await reached(running, 'running')
  // One beat, so that the node told what it has started.
  const { items } = await call<{ items: { beatAt: string }[] }>('GET', '/nodes')
  const first = items[0]?.beatAt
  const beaten = async () => (await call<{ items: { beatAt: string }[] }>('GET', '/nodes')).items[0]?.beatAt !== first
  await until(beaten, { what: 'a beat' })
  const { byStatus: _, overdue: __, ...accounting } = await call<Record<string, unknown>>('GET', '/accounting')
  return {
    readKey,
    accounting,
    keyed: { id: keyedId, body: keyed },
    tasks: { succeeded, dead, retrying, waiting, parent, later, cancelled, foreign, running },
    children,
  }
}

async function asAdmin(text: string): Promise<void> {
  const client = new pg.Client({ connectionString: admin })
  await client.connect()
  await client.query(text).finally(() => client.end())
}
