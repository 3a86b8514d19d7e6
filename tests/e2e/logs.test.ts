import { expect, test } from 'bun:test'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { LOG_EVENTS } from '../../src/runtime/log-events.ts'
import { testDatabase } from '../support/database.ts'
import { nodeFolder } from '../support/node-process.ts'
import { startSink } from '../support/sink.ts'
import { until } from '../support/until.ts'

const MAIN = join(import.meta.dir, '../../src/main.ts')
/** Each is given to the node in a place of its own. */
const PLANTED = {
  adminKey: 'planted-admin-key-0123456789',
  payload: 'planted-payload',
  signing: 'planted-signing-secret',
  header: 'planted-header',
  answer: 'planted-answer',
  collector: 'planted-collector-key',
  userinfo: 'planted-userinfo',
}

test('no line of a whole run tells a secret or a payload, each is JSON with an event of the list, and its own ids', async () => {
  await using folder = await nodeFolder()
  await using sink = await startSink({ reply: () => ({ status: 500, body: PLANTED.answer }) })
  const database = await testDatabase('server', { poolSize: 1 })
  const url = 'url' in database.connection ? database.connection.url : ''
  const node = Bun.spawn([process.execPath, MAIN, 'start'], {
    cwd: folder.path,
    env: {
      PATH: process.env.PATH,
      NODE_ENV: 'production',
      PORT: '0',
      LOG_LEVEL: 'trace',
      DATABASE_URL: url,
      DATA_DIR: folder.path,
      LONGSHORE_ADMIN_KEY: PLANTED.adminKey,
      OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:1',
      OTEL_EXPORTER_OTLP_HEADERS: `authorization=${PLANTED.collector}`,
    },
    stdout: Bun.file(join(folder.path, 'out')),
    stderr: Bun.file(join(folder.path, 'err')),
  })
  const output = () => readFile(join(folder.path, 'out'), 'utf8')
  const lines = async () => (await output()).split('\n').slice(0, -1)
  try {
    const listening = await until(async () => (await lines()).find((line) => line.includes('"listening"')), {
      what: 'the node to listen',
      timeoutMs: 60_000,
    })
    const base = `${(JSON.parse(listening) as { url: string }).url}/api/v1`
    const headers = { authorization: `Bearer ${PLANTED.adminKey}`, 'content-type': 'application/json' }
    const call = async (method: string, path: string, body?: unknown) => {
      const response = await fetch(base + path, { method, headers, ...(body ? { body: JSON.stringify(body) } : {}) })
      return (await response.json()) as { id: string; status: string; key: string }
    }
    const { key } = await call('POST', '/keys', { name: 'other', scopes: ['read'] })
    await call('PUT', '/queues/q', { retry: { maxAttempts: 2, backoff: { kind: 'fixed', base: '10ms' } } })
    await call('POST', '/consumers', { queue: 'q', target: { type: 'task' } })
    const target = {
      type: 'http',
      url: sink.url(`/${PLANTED.userinfo}?token=${PLANTED.userinfo}`),
      secret: PLANTED.signing,
      headers: { authorization: PLANTED.header },
    }
    const { id } = await call('POST', '/tasks', { queue: 'q', payload: PLANTED.payload, target })
    await until(async () => (await call('GET', `/tasks/${id}`)).status === 'dead', {
      what: 'the task to be dead',
      timeoutMs: 30_000,
    })
    await fetch(`${base}/tasks`, { headers: { authorization: `Bearer ${PLANTED.adminKey}x` } })
    await fetch(`${base}/tasks`, { method: 'POST', headers, body: `{"payload":"${PLANTED.payload}` })
    await until(async () => (await output()).includes('spans-lost'), {
      what: 'the collector to be missed',
      timeoutMs: 30_000,
    })
    node.kill('SIGTERM')
    expect(await node.exited).toBe(0)

    const told = `${await output()}${await readFile(join(folder.path, 'err'), 'utf8')}`
    const password = new URL(url).password
    for (const secret of [...Object.values(PLANTED), key, ...(password ? [password] : [])]) {
      expect(told.split('\n').filter((line) => line.includes(secret))).toEqual([])
    }
    let joined = false
    for (const line of await lines()) {
      const { event, level, time, node: by } = JSON.parse(line) as Record<string, string>
      expect(Object.keys(LOG_EVENTS)).toContain(event as string)
      expect(level).toBeString()
      expect(new Date(time as string).toISOString()).toBe(time as string)
      joined ||= event === 'node-joined'
      if (joined) expect(by).toMatch(/^[0-9a-f-]{36}$/)
    }
    expect(joined).toBe(true)
  } finally {
    node.kill('SIGKILL')
    await node.exited
    await database.drop()
  }
}, 180_000)
