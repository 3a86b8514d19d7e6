import { expect, test } from 'bun:test'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { testBroker } from '../support/brokers.ts'
import { ENGINES } from '../support/database.ts'
import type { NodeProcess } from '../support/node-process.ts'
import { BROKERS } from '../support/rabbitmq.ts'
import { startSink } from '../support/sink.ts'
import { until } from '../support/until.ts'
import { type Installation, install } from './installation.ts'
import { callOld, expectOld } from './old-client.ts'

interface Job {
  id: string
  type: string
  payload: unknown
  status: string
  retryCount: number
  createdAt: string
  updatedAt: string
  sinks: { db: string | null; csv: string | null }
}

const post = async (node: NodeProcess, json: { type: string; payload: unknown }): Promise<string> =>
  (await expectOld(node, 201, 'POST', '/api/jobs', { json })).id
const job = (node: NodeProcess, id: string): Promise<Job> => expectOld(node, 200, 'GET', `/api/jobs/${id}`)
const became = (node: NodeProcess, id: string, status: string, timeoutMs = 40_000): Promise<Job> =>
  until(
    async () => {
      const found = await job(node, id)
      return found.status === status ? found : undefined
    },
    { what: `job ${id} to become ${status}`, timeoutMs },
  )

/** The lines of the CSV sink. */
const csvOf = async (node: NodeProcess): Promise<string[]> =>
  (await readFile(join(node.dataDir, 'out/job_status.csv'), 'utf8')).split('\r\n')

/** What other services were told, oldest first. */
async function told({ database }: Installation): Promise<{ id: string; status: string }[]> {
  const { rows } = await database.pool.query<{ payload: string }>(
    `select payload from tasks where queue = 'notification_queue' order by created_at, id`,
  )
  return rows.map(({ payload }) => JSON.parse(payload))
}

for (const name of ENGINES.includes('server') ? BROKERS : []) {
  test(`${name}: a job goes to a table and to a file, and its status says how far both are`, async () => {
    await using home = await install('server')
    await using broker = await testBroker(name)
    const node = await home.start(broker.env)
    const created = await callOld(node, 'POST', '/api/jobs', {
      body: '{"type":"report","payload":{"note":"a \\"b\\", c","n":1.50}}',
      type: 'text/plain',
    })
    expect([created.status, created.body]).toEqual([201, { id: expect.any(String), status: 'PENDING' }])
    const { id } = created.body
    expect(created.headers.get('location')).toBe(`/api/jobs/${id}`)
    const done = await became(node, id, 'COMPLETED')
    expect(done).toMatchObject({
      id,
      type: 'report',
      payload: { note: 'a "b", c', n: 1.5 },
      retryCount: 0,
      sinks: { db: 'COMPLETED', csv: 'COMPLETED' },
    })
    expect(done.updatedAt > done.createdAt).toBe(true)

    const { rows } = await home.database.pool.query('select id, type, payload from data.jobs_done')
    expect(rows).toEqual([{ id, type: 'report', payload: { note: 'a "b", c', n: 1.5 } }])
    expect(await csvOf(node)).toEqual([
      'id,type,payload',
      `${id},report,"{""note"":""a \\""b\\"", c"",""n"":1.50}"`,
      '',
    ])

    for (const [json, paths] of [
      [{}, ['/payload', '/type']],
      [{ type: '', payload: 1 }, ['/type']],
      [{ type: 7, payload: 1, more: 1 }, ['/more', '/type']],
      [[], ['']],
    ] as const) {
      const { errors } = await expectOld(node, 422, 'POST', '/api/jobs', { json })
      expect(errors.map(({ path }: { path: string }) => path).sort()).toEqual([...paths])
    }
    for (const body of ['{"type":', '', 'type=report', new Uint8Array([0x7b, 0xff, 0x7d])]) {
      const { errors } = await expectOld(node, 422, 'POST', '/api/jobs', { body })
      expect(errors).toEqual([{ path: '', message: expect.any(String) }])
    }
    for (const unknown of ['7', '019b7a3e-5c00-7000-8000-000000000001'])
      await expectOld(node, 404, 'GET', `/api/jobs/${unknown}`)
    expect((await callOld(node, 'GET', '/api/jobs', { key: null })).status).toBe(401)

    const others = [
      await post(node, { type: 'second', payload: null }),
      await post(node, { type: 'third', payload: [1] }),
    ]
    const first = await callOld(node, 'GET', '/api/jobs?limit=2')
    expect(first.body.map((one: Job) => one.id)).toEqual(others.toReversed())
    const next = first.headers.get('x-next')
    expect(first.headers.get('link')).toBe(`</api/jobs?limit=2&after=${next}>; rel="next"`)
    const second = await callOld(node, 'GET', `/api/jobs?limit=2&after=${next}`)
    expect([second.body, second.headers.get('link')]).toEqual([[await job(node, id)], null])
    await expectOld(node, 422, 'GET', '/api/jobs?limit=0')
    await expectOld(node, 422, 'GET', '/api/jobs?after=x')

    for (const other of others) await became(node, other, 'COMPLETED')
    // However often somebody asks, others are told once of each.
    for (let i = 0; i < 3; i++) await job(node, id)
    const all = [id, ...others].map((one) => ({ id: one, status: 'COMPLETED' }))
    expect((await told(home)).toSorted((a, b) => (a.id < b.id ? -1 : 1))).toEqual(all)
    const over = async () => {
      const { items } = await node.call<{ items: { status: string }[] }>('GET', '/tasks?queue=notification_queue')
      return items.length === 3 && items.every(({ status }) => status === 'succeeded')
    }
    await until(over, { what: 'the notifications to be taken', timeoutMs: 60_000 })
    expect((await node.call<{ unaccounted: number }>('GET', '/accounting')).unaccounted).toBe(0)
    await node.stop()
  }, 240_000)

  test(`${name}: a sink that fails is tried again on its own, fails the job at last, and can be replayed`, async () => {
    await using home = await install('server')
    await using broker = await testBroker(name)
    let broken = true
    await using sink = await startSink({ reply: () => ({ status: broken ? 503 : 200 }) })
    const node = await home.start(broker.env)
    // What is there already, is left as it is: here a sink of our own.
    await node.call('PUT', '/queues/job_csv_updates_queue', {
      retry: { maxAttempts: 2, backoff: { kind: 'fixed', base: '100ms' } },
    })
    await node.call('POST', '/consumers', {
      queue: 'job_csv_updates_queue',
      target: { type: 'http', url: sink.url('/csv') },
    })
    const id = await post(node, { type: 'unlucky', payload: { n: 1 } })
    const failed = await became(node, id, 'FAILED')
    expect(failed).toMatchObject({ retryCount: 2, sinks: { db: 'COMPLETED', csv: 'FAILED' } })
    expect(JSON.parse(sink.requests[0]?.body ?? '')).toEqual({ id, type: 'unlucky', payload: { n: 1 } })
    expect(await told(home)).toEqual([{ id, status: 'FAILED' }])

    broken = false
    await node.call('POST', `/tasks/${id}/replay`)
    expect(await became(node, id, 'COMPLETED')).toMatchObject({ sinks: { db: 'COMPLETED', csv: 'COMPLETED' } })
    expect(await told(home)).toEqual([
      { id, status: 'FAILED' },
      { id, status: 'COMPLETED' },
    ])
    expect((await home.database.pool.query('select from data.jobs_done')).rowCount).toBe(1)

    const consumers = await node.call<{ items: { target: { type: string } }[] }>(
      'GET',
      '/consumers?queue=job_csv_updates_queue',
    )
    expect(consumers.items.map(({ target }) => target.type)).toEqual(['http'])
    await node.stop()
  }, 240_000)

  test(`${name}: a node that is killed in the middle of jobs loses none, writes none twice, and tells of each once`, async () => {
    await using home = await install('server')
    await using broker = await testBroker(name)
    const first = await home.start(broker.env)
    const ids: string[] = []
    const callers = Array.from({ length: 10 }, async () => {
      for (let n = 0; n < 30; n++) ids.push(await post(first, { type: 'many', payload: { n } }))
    })
    // The kill may cut requests off: what was answered counts.
    const posted = Promise.allSettled(callers)
    await until(() => ids.length > 100, { what: 'a hundred jobs', timeoutMs: 60_000 })
    await first.kill()
    await posted
    const second = await home.start(broker.env)
    for (const id of ids) await became(second, id, 'COMPLETED', 120_000)
    const { rows: jobs } = await home.database.pool.query<{ id: string }>(
      `select id from tasks where queue = 'exchange/fanout_exchange'`,
    )
    // Those that were committed and whose answer the kill took, are done, too.
    const accepted = jobs.map((row) => row.id).sort()
    expect(ids.filter((id) => !accepted.includes(id))).toEqual([])
    for (const id of accepted) await became(second, id, 'COMPLETED', 120_000)
    const { rows } = await home.database.pool.query<{ id: string }>('select id from data.jobs_done')
    const inTable = rows.map((row) => row.id)
    const inFile = (await csvOf(second)).slice(1, -1).map((line) => line.slice(0, 36))
    expect(inTable.toSorted()).toEqual(accepted)
    expect(inFile.toSorted()).toEqual(accepted)
    expect((await told(home)).map(({ id }) => id).sort()).toEqual(accepted)
    expect((await second.call<{ unaccounted: number }>('GET', '/accounting')).unaccounted).toBe(0)
    await second.stop()
  }, 360_000)
}
