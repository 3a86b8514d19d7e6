import { afterAll, beforeAll, beforeEach, expect, test } from 'bun:test'
import { v7 } from 'uuid'
import { type ApiUnderTest, apiUnderTest } from './api-under-test.ts'

let api: ApiUnderTest
beforeAll(async () => {
  api = await apiUnderTest('server')
  await api.call('PUT', '/api/v1/queues/rows', { json: {} })
})
afterAll(() => api.close())
beforeEach(async () => {
  await api.test.database.pool.query('delete from sources')
})

const SECRET = 'correct horse battery staple'
const BODY = {
  name: 'bank',
  protocol: 'sftp',
  host: 'files.example.com',
  auth: { kind: 'password', username: 'reports', password: SECRET },
  directory: '/outgoing',
  deliver: { queue: 'rows' },
}

const create = (over: object = {}) => api.call('POST', '/api/v1/sources', { json: { ...BODY, ...over } })

/** A file of the source "bank", as its row is to be; gives its id. */
async function file(row: Record<string, unknown>): Promise<string> {
  const id = v7()
  const { pool } = api.test.database
  const values = { id, path: '/outgoing/a.csv', ...row }
  const names = Object.keys(values)
  const { rows } = await pool.query('select id from sources')
  await pool.query(
    `insert into files (source, ${names.join(', ')}) values ($1, ${names.map((_, i) => `$${i + 2}`).join(', ')})`,
    [rows[0].id, ...Object.values(values)],
  )
  return id
}

/** A task of the ledger; gives its id. */
async function task(row: Record<string, unknown>): Promise<string> {
  const id = v7()
  const values = {
    ...{ id, queue: 'rows', payload: '{}', priority: 0, due_at: new Date(), max_attempts: 3, origin: 'file' },
    ...row,
  }
  const names = Object.keys(values)
  await api.test.database.pool.query(
    `insert into tasks (${names.join(', ')}) values (${names.map((_, i) => `$${i + 1}`).join(', ')})`,
    Object.values(values),
  )
  return id
}

test('a source is made, read by id and by name, changed and deleted, and never tells its password', async () => {
  const made = await create({ cron: '*/5 * * * *' })
  expect(made.status).toBe(201)
  expect(made.headers.get('location')).toBe(`/api/v1/sources/${made.json.id}`)
  expect(made.json).toMatchObject({ name: 'bank', status: 'active', auth: { kind: 'password', username: 'reports' } })
  const answers = [
    made,
    await api.call('GET', `/api/v1/sources/${made.json.id}`),
    await api.call('GET', '/api/v1/sources/bank'),
    await api.call('GET', '/api/v1/sources'),
    await api.call('PATCH', '/api/v1/sources/bank', { json: { cron: null, recursive: true } }),
  ]
  for (const { status, text } of answers) {
    expect(status).toBeLessThan(300)
    expect(text).not.toContain(SECRET)
  }
  expect(answers.at(-1)?.json).toMatchObject({ recursive: true, nextPollAt: null })
  expect(answers.at(-1)?.json).not.toHaveProperty('cron')
  const { rows } = await api.test.database.pool.query('select secret, settings::text, auth::text from sources')
  expect(`${rows[0].secret.toString('latin1')}${rows[0].settings}${rows[0].auth}`).not.toContain(SECRET)
  expect((await api.call('DELETE', '/api/v1/sources/bank')).status).toBe(204)
  expect((await api.call('DELETE', '/api/v1/sources/bank')).status).toBe(404)
})

test('what is wrong with a source is told by its path, also within its format', async () => {
  const wrong: [object, string][] = [
    [{ protocol: 'gopher' }, '/protocol'],
    [{ auth: { kind: 'password', username: 'u' } }, '/auth/password'],
    [{ cron: 'soon' }, '/cron'],
    [{ timezone: 'Mars/Olympus' }, '/timezone'],
    [{ host: '169.254.169.254' }, '/host'],
    [{ format: { type: 'csv', delimiter: '"' } }, '/format/delimiter'],
    [{ format: { type: 'csv', columns: ['a'], types: { b: 'integer' } } }, '/format/types/b'],
    [{ deliver: { queue: 'nowhere' } }, '/deliver/queue'],
    [{ deliver: undefined }, '/deliver'],
    [{ after: { kind: 'move', to: '/outgoing' } }, '/after/to'],
    [{ surprise: 1 }, '/surprise'],
  ]
  for (const [over, path] of wrong) {
    const { status, json } = await create(over)
    expect([over, status, json.errors?.[0]?.path]).toEqual([over, 422, path])
  }
  await create()
  expect((await create()).status).toBe(409)
  const patched = await api.call('PATCH', '/api/v1/sources/bank', {
    json: { deliver: { queue: 'rows', priority: 99 } },
  })
  expect([patched.status, patched.json.errors[0].path]).toEqual([422, '/deliver/priority'])
})

test('unknown sources and files are 404, whoever looks needs read, and whoever changes needs operate', async () => {
  await create()
  const id = await file({ status: 'ready' })
  const looks = ['', '/files', `/files/${id}`, `/files/${id}/rejects`]
  const changes = [
    '/test',
    '/poll',
    '/pause',
    '/resume',
    '/trust',
    ...['pause', 'resume', 'cancel', 'rerun'].map((call) => `/files/${id}/${call}`),
  ]
  for (const path of looks) {
    expect([path, (await api.call('GET', `/api/v1/sources/bank${path}`, { as: 'read' })).status]).toEqual([path, 200])
    expect((await api.call('GET', `/api/v1/sources/other${path}`, { as: 'read' })).status).toBe(404)
  }
  for (const path of changes) {
    expect([path, (await api.call('POST', `/api/v1/sources/bank${path}`, { as: 'submit' })).status]).toEqual([
      path,
      403,
    ])
    const json = path === '/trust' ? { fingerprint: 'x' } : undefined
    expect([path, (await api.call('POST', `/api/v1/sources/other${path}`, { json })).status]).toEqual([path, 404])
  }
  expect((await api.call('GET', '/api/v1/sources/bank/browse', { as: 'read' })).status).toBe(403)
  for (const other of [v7(), 'nonsense', '%00'])
    expect((await api.call('GET', `/api/v1/sources/bank/files/${other}`)).status).toBeOneOf([400, 404])
})

test('a test and a look at a server that is not there name the layer that failed', async () => {
  await create({ host: '127.0.0.1', port: 1, protocol: 'ftp' })
  const tested = await api.call('POST', '/api/v1/sources/bank/test')
  expect(tested.json).toMatchObject({
    ok: false,
    listing: { looked: 0 },
    failure: { layer: 'connect', reason: 'refused' },
  })
  const browsed = await api.call('GET', '/api/v1/sources/bank/browse')
  expect([browsed.status, browsed.json.code]).toEqual([502, 'file-server'])
  expect(browsed.json.detail).toContain('(connect: refused)')
})

test('a paused source is not polled, and an alert is ended by the fingerprint that it names only', async () => {
  await create({ paused: true })
  expect((await api.call('POST', '/api/v1/sources/bank/poll')).status).toBe(409)
  expect((await api.call('POST', '/api/v1/sources/bank/resume')).json.status).toBe('active')
  expect((await api.call('POST', '/api/v1/sources/bank/poll')).status).toBe(202)
  const found = { hostKey: { algorithm: 'ssh-ed25519', fingerprint: 'SHA256:new' }, certificate: null, at: '' }
  await api.test.database.pool.query('update sources set alert = $1', [
    JSON.stringify({ kind: 'identity', message: 'another host key', found }),
  ])
  expect((await api.call('GET', '/api/v1/sources/bank')).json.status).toBe('alert')
  expect((await api.call('POST', '/api/v1/sources/bank/poll')).status).toBe(409)
  const trust = (fingerprint: string) => api.call('POST', '/api/v1/sources/bank/trust', { json: { fingerprint } })
  expect((await trust('SHA256:old')).status).toBe(409)
  expect((await trust('SHA256:new')).json).toMatchObject({ status: 'active', alert: null, pinned: found })
  await api.test.database.pool.query(`update sources set settings = settings || $1`, [{ hostKey: 'SHA256:stated' }])
  const stated = await trust('SHA256:new')
  expect([stated.status, stated.json.detail]).toEqual([409, expect.stringContaining('PATCH its "hostKey"')])
})

test('files are listed page by page, the newest first, and by their status', async () => {
  await create()
  for (const n of [1, 2, 3]) {
    await file({ path: `/outgoing/${n}.csv`, status: n === 2 ? 'failed' : 'done', seen_at: new Date(n * 1000) })
  }
  const first = await api.call('GET', '/api/v1/sources/bank/files?limit=2')
  const second = await api.call('GET', `/api/v1/sources/bank/files?limit=2&after=${first.json.next}`)
  const paths = [...first.json.items, ...second.json.items].map((item: { path: string }) => item.path)
  expect(paths).toEqual(['/outgoing/3.csv', '/outgoing/2.csv', '/outgoing/1.csv'])
  expect(second.json.next).toBeNull()
  const failed = await api.call('GET', '/api/v1/sources/bank/files?status=failed')
  expect(failed.json.items).toHaveLength(1)
  expect((await api.call('GET', '/api/v1/sources/bank/files?status=lost')).status).toBe(422)
  expect((await api.call('GET', '/api/v1/sources/bank/files?after=x')).status).toBe(422)
})

test('rejects come as JSON in pages and as one CSV file, quoted', async () => {
  await create()
  const id = await file({ status: 'done' })
  await api.test.database.pool.query(
    `insert into rejects (file, number, line, reason, raw)
     select $1, n, n + 1, 'not a "number"', 'a,' || n from generate_series(1, 2500) n`,
    [id],
  )
  const page = await api.call('GET', `/api/v1/sources/bank/files/${id}/rejects?limit=2`)
  expect(page.json.items.map((item: { number: number }) => item.number)).toEqual([1, 2])
  const next = await api.call('GET', `/api/v1/sources/bank/files/${id}/rejects?limit=2&after=${page.json.next}`)
  expect(next.json.items[0].number).toBe(3)
  for (const [query, headers] of [
    ['?format=csv', {}],
    ['', { accept: 'text/csv' }],
  ] as const) {
    const csv = await api.call('GET', `/api/v1/sources/bank/files/${id}/rejects${query}`, { headers })
    expect(csv.headers.get('content-type')).toStartWith('text/csv')
    const lines = csv.text.split('\r\n')
    expect(lines).toHaveLength(2_502)
    expect(lines.slice(0, 2)).toEqual(['number,line,reason,raw', '1,2,"not a ""number""","a,1"'])
  }
})

test('a file that is being imported is paused, goes on, and is cancelled with the tasks of its records', async () => {
  await create()
  const parent = await task({ queue: 'ftp.csv', children_total: 1 })
  const child = await task({ parent_id: parent })
  const id = await file({
    status: 'importing',
    task: parent,
    size: 600,
    bytes_read: 500,
    // It waited an hour for this attempt, which began at its 400th byte.
    fetched_at: new Date(Date.now() - 3_600_000),
    ...{ attempt_at: new Date(Date.now() - 10_000), attempt_bytes: 400, attempt_records: 0 },
  })
  const call = (action: string) => api.call('POST', `/api/v1/sources/bank/files/${id}/${action}`)
  const shown = (await api.call('GET', `/api/v1/sources/bank/files/${id}`)).json
  expect(shown.progress.bytesPerSecond).toBeWithin(5, 11)
  expect(shown.progress.remaining).toMatch(/^\d+(ms|s)$/)
  expect(shown.tasks).toEqual({ total: 1, succeeded: 0, dead: 0, live: 1 })
  expect((await call('pause')).json).toMatchObject({ paused: true, progress: { remaining: null } })
  expect((await call('resume')).json.paused).toBe(false)
  expect((await call('rerun')).status).toBe(409)
  expect((await call('cancel')).status).toBe(200)
  const { rows } = await api.test.database.pool.query('select status from tasks where id = any($1)', [[parent, child]])
  expect(rows).toEqual([{ status: 'cancelled' }, { status: 'cancelled' }])
})

test('a file that has ended is imported again as a new version, or only what failed of it', async () => {
  await create()
  const parent = await task({
    queue: 'ftp.csv',
    status: 'dead',
    sealed: true,
    children_total: 2,
    children_succeeded: 1,
    children_dead: 1,
  })
  const dead = await task({ parent_id: parent, status: 'dead' })
  await task({ parent_id: parent, status: 'succeeded' })
  const id = await file({ status: 'done', task: parent, location: '/outgoing/done/a.csv', finished_at: new Date() })
  const call = (json?: object) => api.call('POST', `/api/v1/sources/bank/files/${id}/rerun`, { json })
  const failed = await call({ only: 'failed' })
  expect([failed.status, failed.json.id, failed.json.finishedAt]).toEqual([202, id, null])
  const { rows } = await api.test.database.pool.query('select status from tasks where id = $1', [dead])
  expect(rows).toEqual([{ status: 'pending' }])
  expect((await call()).status).toBe(409)
  await api.test.database.pool.query('update files set finished_at = now()')
  const again = await call()
  expect(again.json).toMatchObject({ path: '/outgoing/a.csv', generation: 2, status: 'ready', taskId: null })
  expect((await call()).json).toMatchObject({ status: 409, detail: expect.stringContaining('later version') })
  expect((await call({ only: 'all' })).status).toBe(422)
})
