import { afterAll, beforeAll, expect, test } from 'bun:test'
import { FormatRegistry, type TObject, type TSchema, Type } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import { v7 as uuidv7 } from 'uuid'
import { FireSchema, PreviewSchema, ScheduleSchema, SystemWorkSchema } from '../../src/api/routes/schedules/schema.ts'
import { scheduleRoutes } from '../../src/api/routes/schedules.ts'
import { checked } from '../../src/api/validation.ts'
import { ManualClock } from '../../src/runtime/clock.ts'
import { createPeriodic } from '../../src/runtime/periodic.ts'
import { createSchedules } from '../../src/schedule/schedules.ts'
import { storedTaskReader } from '../../src/schedule/stored-task.ts'
import type { Database } from '../../src/store/database/database.ts'
import { addressingFor } from '../../src/submit/addressing.ts'
import { until } from '../support/until.ts'
import { type ApiUnderTest, apiUnderTest } from './api-under-test.ts'

const node = uuidv7()
const clock = new ManualClock()
const woken: string[] = []
let changes = 0
let fails = false
const work = createPeriodic({
  name: 'retention',
  description: 'Deletes final tasks',
  everyMs: 60_000,
  clock,
  run: async () => {
    if (fails) throw new Error('no luck')
  },
  onError: () => undefined,
})

let api: ApiUnderTest
beforeAll(async () => {
  for (const format of ['date-time', 'uuid']) FormatRegistry.Set(format, () => true)
  // The routes need the pool of the database that is made with them.
  let pool: Database['pool'] | undefined
  const late = new Proxy({} as Database['pool'], {
    get(_, name) {
      const value = Reflect.get(pool as object, name)
      return typeof value === 'function' ? value.bind(pool) : value
    },
  })
  const schedules = createSchedules({
    pool: late,
    log: { fatal() {}, error() {}, warn() {}, info() {}, debug() {} },
    node: () => node,
    read: storedTaskReader(checked),
    addressing: addressingFor('in-process'),
    onFired: (queues) => woken.push(...queues.keys()),
    onChanged: () => {
      changes++
    },
  })
  api = await apiUnderTest('server', {
    routes: (access) => [
      scheduleRoutes(access, {
        pool: late,
        schedules,
        handlerNames: () => ['greet'],
        checkUrl: (url) => (url.includes('169.254.') ? 'link-local addresses are never allowed' : undefined),
        periodic: () => [work.state()],
        now: () => clock.now(),
        node: () => node,
      }) as never,
    ],
  })
  pool = api.test.database.pool
  await api.call('PUT', '/api/v1/queues/reports', { json: {} })
})
afterAll(async () => {
  await work.stop()
  await api.close()
})

/** What routes answer is checked against the very schemas that the document shows. */
const fits = (schema: TSchema, value: unknown) => expect([...Value.Errors(strict(schema), value)]).toEqual([])
const strict = (schema: TSchema): TSchema => Type.Composite([schema as TObject], { additionalProperties: false })

const TASK = { queue: 'reports', payload: { format: 'pdf' } }
const put = (name: string, json: unknown) => api.call('PUT', `/api/v1/schedules/${name}`, { as: 'operate', json })

test('PUT makes a schedule with defaults (201) and replaces it (200), and the schedulers are told', async () => {
  const before = changes
  const made = await put('nightly', { cron: '30 2 * * *', task: TASK })
  expect([made.status, made.headers.get('location')]).toEqual([201, '/api/v1/schedules/nightly'])
  expect(made.json).toMatchObject({
    ...{ name: 'nightly', cron: '30 2 * * *', timezone: 'UTC', task: TASK, overlap: 'allow', missed: 'last' },
    ...{ jitter: '0ms', paused: false, lastFire: null, error: null },
  })
  fits(ScheduleSchema, made.json)
  expect(made.json.nextFireAt).toMatch(/T02:30:00\.000Z$/)
  expect(made.json.nextDueAt).toBe(made.json.nextFireAt)
  const json = { cron: '@daily', timezone: 'Europe/Berlin', task: TASK, overlap: 'skip', missed: 'all', jitter: '1h' }
  const replaced = await put('nightly', json)
  expect([replaced.status, replaced.json]).toMatchObject([200, json])
  const read = await api.call('GET', '/api/v1/schedules/nightly', { as: 'read' })
  expect(read.json).toEqual(replaced.json)
  expect(changes).toBe(before + 2)
})

test('the payload keeps its very text, and secrets are not shown', async () => {
  const body = `{"cron":"* * * * *","paused":true,"task":{"queue":"reports","payload":{"b":1.0,"a":12345678901234567890},
    "target":{"type":"http","url":"https://example.com/x","secret":"hush-hush-hush-hush-hush"}}}`
  const made = await api.call('PUT', '/api/v1/schedules/verbatim', {
    body,
    headers: { 'content-type': 'application/json' },
  })
  expect(made.status).toBe(201)
  for (const path of ['/api/v1/schedules/verbatim', '/api/v1/schedules?limit=500']) {
    const { text } = await api.call('GET', path)
    expect(text).toContain('"payload":{"b":1.0,"a":12345678901234567890}')
    expect(text).toContain('"secret":"[secret]"')
    expect(text).not.toContain('hush')
  }
})

test.each<[string, object, string, string]>([
  ['bad cron', { cron: '61 * * * *' }, '/cron', 'validation'],
  ['cron that never fires', { cron: '0 0 31 2 *' }, '/cron', 'validation'],
  ['a time as cron', { cron: '2030-01-01T00:00:00Z' }, '/cron', 'validation'],
  ['no cron', { cron: undefined }, '/cron', 'validation'],
  ['unknown zone', { timezone: 'Mars/Olympus' }, '/timezone', 'validation'],
  ['unknown overlap', { overlap: 'queue' }, '/overlap', 'validation'],
  ['unknown missed', { missed: 'some' }, '/missed', 'validation'],
  ['too much jitter', { jitter: '2d' }, '/jitter', 'validation'],
  ['no duration', { jitter: 'a bit' }, '/jitter', 'validation'],
  ['unknown field', { every: '5m' }, '/every', 'validation'],
  ['NUL in the cron', { cron: '* * * * *\0' }, '/cron', 'validation'],
  ['no task', { task: undefined }, '/task', 'validation'],
  ['a task that is none', { task: 'x' }, '/task', 'validation'],
  ['a task without payload', { task: { queue: 'reports' } }, '/task/payload', 'validation'],
  ['unknown field of the task', { task: { ...TASK, colour: 1 } }, '/task/colour', 'validation'],
  ['unknown queue', { task: { ...TASK, queue: 'none' } }, '/task/queue', 'unknown-queue'],
  ['no target on default', { task: { payload: 1 } }, '/task/target', 'unknown-target'],
  [
    'unknown handler',
    { task: { payload: 1, target: { type: 'handler', name: 'x' } } },
    '/task/target/name',
    'unknown-handler',
  ],
  [
    'forbidden address',
    { task: { payload: 1, target: { type: 'http', url: 'http://169.254.1.1' } } },
    '/task/target/url',
    'unknown-target',
  ],
  ['a due time', { task: { ...TASK, dueAt: '2030-01-01T00:00:00Z' } }, '/task/dueAt', 'validation'],
  ['an idempotency key', { task: { ...TASK, idempotencyKey: 'x' } }, '/task/idempotencyKey', 'validation'],
  ['a parent', { task: { ...TASK, parentId: node } }, '/task/parentId', 'validation'],
])('%s is refused with its place, and nothing is stored', async (_, change, path, code) => {
  const answer = await put('refused', { cron: '* * * * *', task: TASK, ...change })
  expect(answer.status).toBe(422)
  expect(answer.json.code).toBe(code)
  expect(answer.json.errors[0].path).toBe(path)
  expect((await api.call('GET', '/api/v1/schedules/refused')).status).toBe(404)
})

test('odd names are refused; an unknown one is 404 everywhere; a lower scope may not change', async () => {
  for (const name of ['a b', 'a%2Fb', 'ä', 'x'.repeat(129)]) {
    expect([name, (await put(name, { cron: '* * * * *', task: TASK })).status]).toEqual([name, 422])
  }
  for (const [method, path] of [
    ...[
      ['GET', ''],
      ['DELETE', ''],
      ['GET', '/preview'],
      ['GET', '/fires'],
    ],
    ...[
      ['POST', '/run'],
      ['POST', '/pause'],
      ['POST', '/resume'],
    ],
  ] as [string, string][]) {
    const answer = await api.call(method, `/api/v1/schedules/none${path}`)
    expect([method, path, answer.status]).toEqual([method, path, 404])
  }
  const low = await api.call('PUT', '/api/v1/schedules/low', { as: 'submit', json: { cron: '* * * * *', task: TASK } })
  expect(low.status).toBe(403)
  const malformed = await api.call('PUT', '/api/v1/schedules/low', {
    body: '{"cron":',
    headers: { 'content-type': 'application/json' },
  })
  expect([malformed.status, malformed.json.code]).toEqual([400, 'malformed-json'])
})

test('pause, resume and PUT say what now holds', async () => {
  await put('breaks', { cron: '0 * * * *', task: TASK })
  const paused = await api.call('POST', '/api/v1/schedules/breaks/pause', { as: 'operate' })
  expect(paused.json).toMatchObject({ paused: true, nextFireAt: null, nextDueAt: null })
  expect((await put('breaks', { cron: '1 * * * *', task: TASK })).json.paused).toBe(true)
  const resumed = await api.call('POST', '/api/v1/schedules/breaks/resume')
  expect([resumed.json.paused, resumed.json.nextFireAt]).toEqual([false, expect.stringMatching(/:01:00\.000Z$/)])
  expect((await put('breaks', { cron: '1 * * * *', task: TASK, paused: true })).json.paused).toBe(true)
})

test('run makes a task now and the history tells it, page by page', async () => {
  await put('manual', { cron: '0 0 1 1 *', task: TASK, paused: true })
  const ids: string[] = []
  for (let i = 0; i < 3; i++) {
    const ran = await api.call('POST', '/api/v1/schedules/manual/run', { as: 'operate' })
    expect([ran.status, ran.headers.get('location')]).toEqual([201, `/api/v1/tasks/${ran.json.taskId}`])
    expect(ran.json).toMatchObject({ outcome: 'submitted', manual: true, detail: null })
    ids.unshift(ran.json.taskId)
  }
  expect(woken).toEqual(['reports', 'reports', 'reports'])
  const first = await api.call('GET', '/api/v1/schedules/manual/fires?limit=2', { as: 'read' })
  const rest = await api.call('GET', `/api/v1/schedules/manual/fires?limit=2&after=${first.json.next}`)
  const told = [...first.json.items, ...rest.json.items]
  expect([told.map((fire: { taskId: string }) => fire.taskId), rest.json.next]).toEqual([ids, null])
  const shown = await api.call('GET', '/api/v1/schedules/manual')
  expect(shown.json.lastFire).toEqual(told[0])
  fits(ScheduleSchema, shown.json)
  fits(FireSchema, told[0])
  const { rows } = await api.test.database.pool.query(`select origin, queue from tasks where id = $1`, [ids[0]])
  expect(rows).toEqual([{ origin: 'schedule', queue: 'reports' }])
})

test('preview goes over both changes of the clocks, in the zone of the schedule and in another', async () => {
  await put('local', { cron: '30 2 * * *', timezone: 'Europe/Berlin', task: TASK })
  const preview = async (query: string) => {
    const answer = await api.call('GET', `/api/v1/schedules/local/preview?${query}`, { as: 'read' })
    expect(answer.status).toBe(200)
    return answer.json.items.map((item: { local: string }) => item.local)
  }
  expect(await preview('from=2026-03-28T00:00:00Z&count=3')).toEqual([
    '2026-03-28T02:30:00+01:00',
    '2026-03-29T03:00:00+02:00',
    '2026-03-30T02:30:00+02:00',
  ])
  expect(await preview('from=2026-10-24T12:00:00Z&count=2')).toEqual([
    '2026-10-25T02:30:00+02:00',
    '2026-10-26T02:30:00+01:00',
  ])
  expect(await preview('from=2026-11-01T04:45:00Z&count=4&cron=*/30+*+*+*+*&timezone=America/New_York')).toEqual([
    '2026-11-01T01:00:00-04:00',
    '2026-11-01T01:30:00-04:00',
    '2026-11-01T01:00:00-05:00',
    '2026-11-01T01:30:00-05:00',
  ])
  expect(await preview('')).toHaveLength(10)
})

test('preview tries out a rule without a schedule, and tells its jitter', async () => {
  const tried = await api.call('GET', '/api/v1/schedules/new/preview?cron=@hourly&jitter=10m&count=100')
  expect(tried.json.items).toHaveLength(100)
  fits(PreviewSchema, tried.json)
  for (const { fireAt, dueAt } of tried.json.items) {
    expect(Date.parse(dueAt) - Date.parse(fireAt)).toBeWithin(0, 600_000)
  }
  for (const [query, path] of [
    ['cron=nope', '/cron'],
    ['cron=@daily&timezone=Nope', '/timezone'],
    ['cron=@daily&from=yesterday', '/from'],
    ['cron=@daily&count=101', '/count'],
  ]) {
    const refused = await api.call('GET', `/api/v1/schedules/new/preview?${query}`)
    expect([refused.status, refused.json.errors[0].path]).toEqual([422, path])
  }
})

test('a deleted schedule is gone, and its tasks stay', async () => {
  await put('old', { cron: '0 0 1 1 *', task: TASK })
  const { json } = await api.call('POST', '/api/v1/schedules/old/run')
  expect((await api.call('DELETE', '/api/v1/schedules/old', { as: 'operate' })).status).toBe(204)
  expect((await api.call('DELETE', '/api/v1/schedules/old')).status).toBe(404)
  const { rowCount } = await api.test.database.pool.query('select from tasks where id = $1', [json.taskId])
  expect(rowCount).toBe(1)
})

test('a page of schedules ends where the next begins', async () => {
  for (const name of ['p-1', 'p-2', 'P-3']) await put(name, { cron: '@daily', task: TASK })
  const names: string[] = []
  let after: string | null = null
  do {
    const query: string = after ? `&after=${after}` : ''
    const page = await api.call('GET', `/api/v1/schedules?limit=2${query}`, { as: 'read' })
    expect(page.json.items.length).toBeLessThanOrEqual(2)
    names.push(...page.json.items.map(({ name }: { name: string }) => name))
    after = page.json.next
  } while (after)
  expect(names).toEqual([...new Set(names)])
  expect(names).toEqual(expect.arrayContaining(['p-1', 'p-2', 'P-3']))
})

test("system=true tells Longshore's own periodic work, its times by Postgres's clock", async () => {
  const list = async () => (await api.call('GET', '/api/v1/schedules?system=true', { as: 'read' })).json
  expect(await list()).toEqual({
    items: [
      {
        ...{ name: 'retention', description: 'Deletes final tasks', every: '1m', node, running: false, runs: 0 },
        ...{ lastRunAt: null, nextRunAt: null, lastError: null },
      },
    ],
    next: null,
  })
  work.start()
  await until(() => work.state().nextAt !== undefined, { what: 'the first run' })
  clock.advance(30_000)
  const databaseNow = async () =>
    Date.parse((await api.test.database.pool.query<{ now: string }>('select now()')).rows[0]?.now as string)
  const before = await databaseNow()
  const [told] = (await list()).items
  const after = await databaseNow()
  expect(told).toMatchObject({ runs: 1, lastError: null })
  fits(SystemWorkSchema, told)
  expect(Date.parse(told.lastRunAt)).toBeWithin(before - 31_000, after - 29_000)
  expect(Date.parse(told.nextRunAt)).toBeWithin(before + 29_000, after + 31_000)
  fails = true
  clock.advance(30_000)
  await until(() => work.state().runs === 2, { what: 'the second run' })
  expect((await list()).items[0].lastError).toBe('no luck')
})
