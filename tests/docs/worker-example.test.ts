import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { type Installation, install, reached, read, submit, type Task } from '../e2e/installation.ts'
import { freePort } from '../support/free-port.ts'
import type { NodeProcess } from '../support/node-process.ts'
import { HAS_RABBITMQ, type TestVhost, testVhost } from '../support/rabbitmq.ts'
import { until } from '../support/until.ts'
import { workKey } from '../support/worker-process.ts'
import { ROOT } from './markdown.ts'

/** A Python that has pika, as Debian's does with the package python3-pika. */
const PYTHON = ['python3', '/usr/bin/python3'].find(
  (program) => spawnSync(program, ['-c', 'import pika'], { stdio: 'ignore' }).status === 0,
)
const EXAMPLE = join(ROOT, 'docs/examples/worker.py')
const ADMIN_KEY = 'ls_example_admin_key_for_this_test'

describe.if(HAS_RABBITMQ && PYTHON !== undefined)('docs/examples/worker.py, as it stands', () => {
  let vhost: TestVhost
  let installation: Installation
  let server: NodeProcess
  let python: ChildProcess
  let words = ''
  let key: string
  let port: number

  const startServer = () =>
    installation.start({
      AMQP_URL: vhost.amqpUrl,
      PORT: String(port),
      LONGSHORE_ADMIN_KEY: ADMIN_KEY,
      LONGSHORE_ROLES: 'api,dispatcher,scheduler',
    })
  const startPython = () => {
    const child = spawn(PYTHON ?? '', [EXAMPLE], {
      env: { LONGSHORE_URL: `http://127.0.0.1:${port}`, LONGSHORE_KEY: key, AMQP_URL: vhost.amqpUrl, QUEUE: 'snakes' },
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    child.stderr.on('data', (text) => {
      words += text
    })
    return child
  }
  const ended = (child: ChildProcess) => new Promise((resolve) => child.once('exit', (code) => resolve(code)))
  const pythonNodes = async () => {
    const { items } = await server.call<{ items: { name: string; status: string }[] }>('GET', '/nodes')
    return items.filter(({ name }) => name.startsWith('python:')).map(({ status }) => status)
  }

  beforeAll(async () => {
    vhost = await testVhost()
    installation = await install('server')
    port = await freePort()
    server = await startServer()
    key = await workKey(server)
    await server.call('PUT', '/queues/snakes', {
      retry: { maxAttempts: 2, backoff: { kind: 'fixed', base: '50ms' } },
    })
    const declared = () => vhost.manage('GET', `/queues/${vhost.name}/snakes`).catch(() => undefined)
    await until(declared, { what: 'the queue to be at the broker' })
    python = startPython()
    await until(async () => (await pythonNodes()).length === 1, { what: 'the worker to join' })
  })
  afterAll(async () => {
    python.kill('SIGKILL')
    await server.stop()
    await installation[Symbol.asyncDispose]()
    await vhost.remove()
  })

  test('runs tasks, with payloads and results that stay what they are', async () => {
    const response = await fetch(`${await server.listening}/api/v1/tasks`, {
      method: 'POST',
      headers: server.headers(),
      body: '{"queue":"snakes","payload":{"n":12345678901234567890,"s":"\u2603"}}',
    })
    const { id } = (await response.json()) as Task
    expect(await reached(server, id)).toMatchObject({ status: 'succeeded', attempt: 1 })
    const text = await (
      await fetch(`${await server.listening}/api/v1/tasks/${id}`, { headers: server.headers() })
    ).text()
    expect(text).toContain('"result":{"seen": {"n": 12345678901234567890, "s": "\\u2603"}}')
  })

  test('makes a dead letter of what is not its own', async () => {
    await vhost.publish('snakes', '{"from":"elsewhere"}')
    const dead = async () => {
      const { items } = await server.call<{ items: Task[] }>('GET', '/tasks?queue=snakes&status=dead')
      return items[0]
    }
    expect(await until(dead, { what: 'the dead letter' })).toMatchObject({ error: 'A consumer rejected it' })
  })

  test('keeps its work while the server is away, and tells it afterwards', async () => {
    await server.kill()
    server = await startServer()
    const ids = []
    for (let n = 0; n < 20; n++) ids.push(await submit(server, { queue: 'snakes', payload: n }))
    for (const id of ids) expect(await reached(server, id)).toMatchObject({ status: 'succeeded', attempt: 1 })
    expect(await pythonNodes()).toEqual(['alive'])
  })

  test('leaves when it is told to', async () => {
    python.kill('SIGTERM')
    expect([await ended(python), words]).toEqual([0, ''])
    expect(await pythonNodes()).toEqual(['left'])
  })

  test('that is killed with a task in hand loses nothing: the next one has it', async () => {
    python = startPython()
    await until(async () => (await pythonNodes()).includes('alive'), { what: 'the worker to join' })
    const ids = []
    for (let n = 0; n < 50; n++) ids.push(await submit(server, { queue: 'snakes', payload: n }))
    python.kill('SIGKILL')
    await ended(python)
    python = startPython()
    for (const id of ids) expect(await reached(server, id, ['succeeded'], 60_000)).toMatchObject({ failures: 0 })
    const attempts = (await Promise.all(ids.map((id) => read(server, id)))).flatMap((task) => task.attempts)
    expect(attempts.filter(({ outcome }) => outcome === 'succeeded')).toHaveLength(ids.length)
  }, 180_000)
})
