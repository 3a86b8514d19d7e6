import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { NodeState } from '../../src/task/ledger.ts'
import { longshore } from '../cli/cli.ts'
import { adminUrl, inDatabase } from '../support/database.ts'
import { denoCommand } from '../support/deno.ts'
import { freePort } from '../support/free-port.ts'
import type { NodeProcess } from '../support/node-process.ts'
import { HAS_RABBITMQ, type TestVhost, testVhost } from '../support/rabbitmq.ts'
import { type Sink, startSink } from '../support/sink.ts'
import { until } from '../support/until.ts'
import { spawnWorker, startWorkerProcess, workKey } from '../support/worker-process.ts'
import { type Installation, install, makeQueue, reached, read, submit, type Task } from './installation.ts'

// Most wait for beats, of which there is one in 5 s.
setDefaultTimeout(90_000)

/** A server that works on nothing itself. */
const SERVER = { LONGSHORE_ROLES: 'api,dispatcher,scheduler' }

describe.if(HAS_RABBITMQ)('a worker without a database', () => {
  let vhost: TestVhost
  let installation: Installation
  let server: NodeProcess
  let worker: NodeProcess
  let sink: Sink
  let key: string
  let port: number
  const place = () => ({ server: `http://127.0.0.1:${port}`, key, amqpUrl: vhost.amqpUrl })

  beforeAll(async () => {
    vhost = await testVhost()
    installation = await install('server')
    port = await freePort()
    server = await installation.start({ ...SERVER, AMQP_URL: vhost.amqpUrl, PORT: String(port) })
    key = await workKey(server)
    sink = await startSink()
    worker = await startWorkerProcess(installation, { ...place(), env: { PORT: '0' } })
  })
  afterAll(async () => {
    await worker.stop()
    await server.stop()
    await sink.close()
    await installation[Symbol.asyncDispose]()
    await vhost.remove()
  })

  const workersAlive = async () => {
    const { items } = await server.call<{ items: { roles: string[]; status: string; state: NodeState }[] }>(
      'GET',
      '/nodes',
    )
    return items.filter(({ roles, status }) => roles.join() === 'worker' && status === 'alive')
  }

  test('is shown among the nodes, with its broker and its consumers', async () => {
    await makeQueue(server, 'shown', { concurrency: 7 })
    const shown = async () =>
      (await workersAlive()).find(
        ({ state: { link, consumers } }) => link?.status === 'up' && consumers.some(({ queue }) => queue === 'shown'),
      )
    expect(
      await until(shown, { what: 'the consumer in the beat of a connected worker', timeoutMs: 30_000 }),
    ).toMatchObject({
      state: { broker: 'rabbitmq' },
    })
  })

  test('sends a payload to its target as it was submitted, signed with the secret of its consumer', async () => {
    await server.call('PUT', '/queues/signed', {})
    const target = { type: 'http', url: sink.url('/signed'), secret: 'a secret of sixteen' }
    await server.call('POST', '/consumers', { queue: 'signed', target })
    const payload = '{"n":12345678901234567890,"x":1.0,"s":"\u2603"}'
    const response = await fetch(`${await server.listening}/api/v1/tasks`, {
      method: 'POST',
      headers: server.headers(),
      body: `{"queue":"signed","payload":${payload}}`,
    })
    const { id } = (await response.json()) as Task
    expect(await reached(server, id)).toMatchObject({ status: 'succeeded', attempt: 1 })
    const request = sink.requests.find(({ path }) => path === '/signed')
    expect(request?.body).toBe(payload)
    expect(request?.headers['webhook-signature']).toStartWith('v1,')
  })

  test('runs handlers, and what they report is in the task while it runs', async () => {
    await writeFile(
      join(installation.path, 'handlers', 'steps.ts'),
      `export default async (payload, { log, progress, signal }) => {
        log('began with ' + payload.n)
        progress({ done: 1, total: 2 })
        const { promise, resolve } = Promise.withResolvers()
        const timer = setInterval(async () => {
          const answer = await fetch(payload.gate)
          if (answer.status === 200) { clearInterval(timer); resolve() }
        }, 50)
        await promise
        return { n: payload.n + 1 }
      }`,
    )
    let open = false
    sink.reply = ({ path }) => (path === '/gate' && !open ? { status: 425 } : {})
    await makeQueue(server, 'handled')
    const payload = { n: 41, gate: sink.url('/gate') }
    const id = await submit(server, { queue: 'handled', payload, target: { type: 'handler', name: 'steps' } })
    const reported = async () => {
      const task = await read(server, id)
      return task.logs.length > 0 && task.progress ? task : undefined
    }
    expect(await until(reported, { what: 'the report of a running task', timeoutMs: 30_000 })).toMatchObject({
      status: 'running',
      logs: ['began with 41'],
    })
    open = true
    expect(await reached(server, id)).toMatchObject({ status: 'succeeded', result: { n: 42 } })
  })

  test('has what fails tried again, and what fails for good kept', async () => {
    await makeQueue(server, 'failing')
    const [again, never] = [
      await submit(server, { queue: 'failing', payload: 1, target: { type: 'noop', failRate: 1 } }),
      await submit(server, { queue: 'failing', payload: 2, target: { type: 'noop', deadRate: 1 } }),
    ]
    expect(await reached(server, again)).toMatchObject({ status: 'dead', attempt: 3, failures: 3 })
    expect(await reached(server, never)).toMatchObject({ status: 'dead', attempt: 1 })
  })

  test('adopts what somebody else publishes, and keeps what it cannot read as a dead letter', async () => {
    await server.call('PUT', '/queues/adopted', {})
    await server.call('POST', '/consumers', { queue: 'adopted', target: { type: 'noop' } })
    await vhost.publish('adopted', '{"order":7}', { message_id: 'readable' })
    await vhost.publish('adopted', new Uint8Array([0xff]), { message_id: 'unreadable' })
    const tasks = async () => {
      const { items } = await server.call<{ items: (Task & { payload: unknown })[] }>('GET', '/tasks?queue=adopted')
      return items.length === 2 && items.every(({ status }) => ['succeeded', 'dead'].includes(status))
        ? items
        : undefined
    }
    const items = await until(tasks, { what: 'both messages to be tasks that ended', timeoutMs: 30_000 })
    expect(items.find(({ status }) => status === 'succeeded')).toMatchObject({ payload: { order: 7 } })
    expect(items.find(({ status }) => status === 'dead')).toMatchObject({ error: 'Its body is not UTF-8' })
  })

  test('hears of a pause and of a change with its next beat', async () => {
    await makeQueue(server, 'steered', { concurrency: 2 })
    const concurrency = async (wanted: number | undefined) => {
      const consumers = (await workersAlive()).flatMap(({ state }) => state.consumers)
      return consumers.find(({ queue }) => queue === 'steered')?.concurrency === wanted
    }
    await until(() => concurrency(2), { what: 'the worker to consume', timeoutMs: 30_000 })
    const { items } = await server.call<{ items: { id: string }[] }>('GET', '/consumers?queue=steered')
    await server.call('PATCH', `/consumers/${items[0]?.id}`, { concurrency: 3 })
    await until(() => concurrency(3), { what: 'the change to be heard', timeoutMs: 30_000 })
    await server.call('POST', '/queues/steered/pause')
    await until(() => concurrency(undefined), { what: 'the pause to be heard', timeoutMs: 30_000 })
    const id = await submit(server, { queue: 'steered', payload: 1, target: { type: 'noop' } })
    expect(await read(server, id)).toMatchObject({ status: 'pending', waitingFor: { cause: 'queue-paused' } })
    await server.call('POST', '/queues/steered/resume')
    expect(await reached(server, id)).toMatchObject({ status: 'succeeded' })
  })

  test('hears of a cancel with its next beat, and ends the target', async () => {
    await makeQueue(server, 'cancelled')
    sink.reply = ({ path }) => (path === '/hang' ? 'hang' : {})
    const target = { type: 'http', url: sink.url('/hang') }
    const id = await submit(server, { queue: 'cancelled', payload: 1, target })
    await until(() => sink.requests.some(({ path }) => path === '/hang'), {
      what: 'the target to be called',
      timeoutMs: 30_000,
    })
    await server.call('POST', `/tasks/${id}/cancel`)
    expect(await reached(server, id)).toMatchObject({ status: 'cancelled', attempt: 1 })
    const hanging = sink.requests.find(({ path }) => path === '/hang')
    await until(() => hanging?.endedAt, { what: 'the request to be ended', timeoutMs: 30_000 })
  })

  test('takes tasks of the queues that it is given, and of no others', async () => {
    await makeQueue(server, 'elsewhere')
    await makeQueue(server, 'chosen')
    const picky = await startWorkerProcess(installation, { ...place(), env: { WORKER_QUEUES: 'chosen, and-another' } })
    const queuesOf = async () => (await workersAlive()).map(({ state }) => state.consumers.map(({ queue }) => queue))
    await until(async () => (await queuesOf()).some((queues) => queues.join() === 'chosen'), {
      what: 'its beat',
      timeoutMs: 30_000,
    })
    await picky.stop()
  })

  test('leaves tables to a server that polls, and takes its share with a database for them', async () => {
    const { pool } = installation.database
    await pool.query('create schema if not exists data')
    await pool.query('create table data.landed (n int)')
    await server.call('PUT', '/queues/tables', {})
    await server.call('POST', '/consumers', { queue: 'tables', target: { type: 'table', table: 'data.landed' } })
    const id = await submit(server, { queue: 'tables', payload: { n: 7 } })
    expect(await reached(server, id)).toMatchObject({ status: 'succeeded', attempt: 1 })
    expect((await pool.query('select n from data.landed')).rows).toEqual([{ n: 7 }])
    const writes = async () =>
      (await workersAlive()).filter(({ state }) => state.consumers.some(({ queue }) => queue === 'tables')).length
    expect(await writes()).toBe(0)
    const { rows } = await pool.query<{ database: string }>('select current_database() as database')
    const TABLE_DATABASE_URL = inDatabase(await adminUrl('server'), rows[0]?.database ?? '')
    const writer = await startWorkerProcess(installation, { ...place(), env: { TABLE_DATABASE_URL } })
    await until(async () => (await writes()) === 1, { what: 'the worker to consume', timeoutMs: 30_000 })
    await writer.stop()
  })

  test('tells its health, on the port that it is given', async () => {
    const url = String(worker.logged('listening')[0]?.url)
    expect(await (await fetch(`${url}/health/live`)).json()).toEqual({ status: 'ok' })
    const ready = await fetch(`${url}/health/ready`)
    expect([ready.status, await ready.json()]).toMatchObject([
      200,
      { status: 'ready', checks: [{ name: 'server' }, { name: 'broker' }, { name: 'node' }] },
    ])
    expect((await fetch(`${url}/api/v1/tasks`)).status).toBe(404)
    const { hostname, port: at } = new URL(url)
    const asked = await longshore(['health'], { cwd: installation.path, env: { HOST: hostname, PORT: at } })
    expect([asked.code, asked.out.trim()]).toEqual([0, 'ready'])
  })

  test('ends the work in hand when it is told to stop, gives the rest back and leaves', async () => {
    await makeQueue(server, 'left', { concurrency: 1 })
    await server.call('POST', '/queues/left/pause')
    await worker.stop()
    const leaving = await startWorkerProcess(installation, { ...place(), env: { SHUTDOWN_TIMEOUT: '1s' } })
    await server.call('POST', '/queues/left/resume')
    sink.reply = ({ path }) => (path === '/long' ? 'hang' : { delayMs: 300 })
    const short = await submit(server, { queue: 'left', payload: 1, target: { type: 'http', url: sink.url('/short') } })
    await until(() => sink.requests.some(({ path }) => path === '/short'), {
      what: 'the short one to begin',
      timeoutMs: 30_000,
    })
    await reached(server, short)
    const long = await submit(server, { queue: 'left', payload: 1, target: { type: 'http', url: sink.url('/long') } })
    await until(() => sink.requests.some(({ path }) => path === '/long'), {
      what: 'the long one to begin',
      timeoutMs: 30_000,
    })
    await leaving.stop()
    expect(leaving.logged('stopped')).toHaveLength(1)
    expect(await workersAlive()).toEqual([])
    expect(await read(server, long)).toMatchObject({ attempt: 1, failures: 0 })
    sink.reply = () => ({})
    worker = await startWorkerProcess(installation, { ...place(), env: { PORT: '0' } })
    expect(await reached(server, long)).toMatchObject({ status: 'succeeded', failures: 0 })
  })
})

/** Why it did not start: its log may be read after its end. */
const lastWords = async (worker: NodeProcess) =>
  (await until(() => worker.logged('start-failed')[0], { what: 'the reason in its log' })).msg

describe.if(HAS_RABBITMQ)('the start of a worker', () => {
  let vhost: TestVhost
  let installation: Installation
  beforeAll(async () => {
    vhost = await testVhost()
    installation = await install('server')
  })
  afterAll(async () => {
    await installation[Symbol.asyncDispose]()
    await vhost.remove()
  })

  test('names everything that it is not told, and exits 2', async () => {
    const ran = await longshore(['worker'], { cwd: installation.path })
    expect(ran.code).toBe(2)
    expect(ran.err).toContain('LONGSHORE_URL')
    expect(ran.err).toContain('LONGSHORE_KEY')
    expect(ran.err).toContain('AMQP_URL')
  })

  test('waits for a server that is not there yet, and gives up in order when it is told to', async () => {
    const port = await freePort()
    const early = spawnWorker(installation, {
      server: `http://127.0.0.1:${port}`,
      key: 'ls_a_b',
      amqpUrl: vhost.amqpUrl,
    })
    await until(() => early.logged('ledger-away').length > 0, {
      what: 'the worker to say that it waits',
      timeoutMs: 30_000,
    })
    early.signal('SIGTERM')
    expect(await early.exited).toBe(0)
  })

  test('works in any order of server and worker, and a wrong key is told until it is right', async () => {
    const port = await freePort()
    const place = { server: `http://127.0.0.1:${port}`, amqpUrl: vhost.amqpUrl }
    const early = spawnWorker(installation, { ...place, key: 'ls_0000000000000000_wrong' })
    const server = await installation.start({ ...SERVER, AMQP_URL: vhost.amqpUrl, PORT: String(port) })
    await until(() => early.logged('ledger-denied').length > 0, {
      what: 'the worker to say that its key is refused',
      timeoutMs: 30_000,
    })
    expect(JSON.stringify(early.log)).not.toContain('0000_wrong')
    const readOnly = await server.call<{ key: string }>('POST', '/keys', { name: 'reader', scopes: ['admin'] })
    const powerless = spawnWorker(installation, { ...place, key: readOnly.key })
    await until(() => powerless.logged('ledger-denied').some(({ error }) => String(error).includes('"work"')), {
      what: 'the worker to say which scope it needs',
      timeoutMs: 40_000,
    })
    for (const one of [early, powerless]) one.signal('SIGTERM')
    expect(await Promise.all([early.exited, powerless.exited])).toEqual([0, 0])
    const worker = await startWorkerProcess(installation, { ...place, key: await workKey(server) })
    await makeQueue(server, 'begun')
    const id = await submit(server, { queue: 'begun', payload: 1, target: { type: 'noop' } })
    expect(await reached(server, id)).toMatchObject({ status: 'succeeded' })
    // It ends in order without its server, too, and says that it could not say goodbye.
    await server.stop()
    await worker.stop()
    expect(worker.logged('leave-failed')).toHaveLength(1)
  })

  test('on Deno it does the same', async () => {
    const server = await installation.start({ ...SERVER, AMQP_URL: vhost.amqpUrl })
    const place = { server: await server.listening, amqpUrl: vhost.amqpUrl, key: await workKey(server) }
    const worker = spawnWorker(installation, place, denoCommand())
    await worker.listening
    await makeQueue(server, 'elsewhere')
    const id = await submit(server, { queue: 'elsewhere', payload: 1, target: { type: 'noop', failRate: 0 } })
    expect(await reached(server, id)).toMatchObject({ status: 'succeeded', attempt: 1 })
    await worker.stop()
    await server.stop()
  })

  test('with another broker than the server’s it says so and exits 1', async () => {
    const server = await installation.start({ ...SERVER, AMQP_URL: vhost.amqpUrl })
    const elsewhere = await testVhost()
    const key = await workKey(server)
    const lost = spawnWorker(installation, { server: await server.listening, key, amqpUrl: elsewhere.amqpUrl })
    expect(await lost.exited).toBe(1)
    expect(await lastWords(lost)).toContain(`rabbitmq:${vhost.name}`)
    await server.stop()
    await elsewhere.remove()
  })

  test('a worker of a server without RabbitMQ exits 1', async () => {
    await using alone = await install('server')
    const server = await alone.start(SERVER)
    const key = await workKey(server)
    const lost = spawnWorker(alone, { server: await server.listening, key, amqpUrl: vhost.amqpUrl })
    expect(await lost.exited).toBe(1)
    expect(await lastWords(lost)).toContain('in-process')
    await server.stop()
  })
})
