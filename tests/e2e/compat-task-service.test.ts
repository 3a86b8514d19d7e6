import { expect, test } from 'bun:test'
import { testBroker } from '../support/brokers.ts'
import type { NodeProcess } from '../support/node-process.ts'
import { BROKERS } from '../support/rabbitmq.ts'
import { until } from '../support/until.ts'
import { consumersFollowed, install } from './installation.ts'
import { callOld, expectOld, type OldCall } from './old-client.ts'

interface Data {
  id: string
  text: string
  status: string
  dateCreate: string
  dateProcessing: string | null
}

const make = async (node: NodeProcess, text: string): Promise<string> =>
  (await expectOld(node, 201, 'POST', '/api/v1/create-task', { json: { text } })).id
const data = (node: NodeProcess, id: string): Promise<Data> =>
  expectOld(node, 200, 'GET', `/api/v1/get-task-data?taskId=${id}`)
const became = (node: NodeProcess, id: string, status: string) =>
  until(async () => (await data(node, id)).status === status, {
    what: `task ${id} to become ${status}`,
    timeoutMs: 60_000,
  })
const report = (node: NodeProcess, id: string, status: string, more: { attempt?: number } & OldCall = {}) => {
  const { attempt, ...options } = more
  const query = new URLSearchParams({ taskId: id, taskStatus: status, ...(attempt && { attempt: String(attempt) }) })
  return callOld(node, 'PUT', `/api/v1/update-task-status?${query}`, options)
}
const consumers = async (node: NodeProcess) =>
  (await node.call<{ items: { id: string; target: object }[] }>('GET', '/consumers?queue=ipr.task')).items

for (const name of BROKERS) {
  test(`${name}: tasks are made, imitated by a consumer with shares, and read in the old words`, async () => {
    await using home = await install('embedded')
    await using broker = await testBroker(name)
    const node = await home.start(broker.env)
    const made = await expectOld(node, 201, 'POST', '/api/v1/create-task', { json: { text: 'Ünïcode ✓' } })
    expect(made).toEqual({ id: expect.any(String), status: 'NEW_TASK' })
    for (const json of [{}, { text: '' }, { text: ' \n\t' }, { text: 7 }, { text: null }, { text: 'x', id: 'y' }, []])
      await expectOld(node, 400, 'POST', '/api/v1/create-task', { json })
    expect(await data(node, made.id.toUpperCase())).toMatchObject({ id: made.id, text: 'Ünïcode ✓' })
    for (const query of ['', '?taskId=7', '?taskId=', `?taskId=${made.id}&x=1`, `?taskId=${made.id}&taskId=${made.id}`])
      await expectOld(node, 400, 'GET', `/api/v1/get-task-data${query}`)
    await expectOld(node, 404, 'GET', '/api/v1/get-task-data?taskId=019b7a3e-5c00-7000-8000-000000000001')

    const [consumer] = await consumers(node)
    expect(consumer?.target).toEqual({ type: 'noop', delay: { min: '1s', max: '8s' }, failRate: 0.2, deadRate: 0.1 })
    const shares = async (target: object) => {
      await node.call('PATCH', `/consumers/${consumer?.id}`, {
        target: { type: 'noop', delay: { min: '1ms', max: '9ms' }, ...target },
      })
      await consumersFollowed(node)
    }
    await shares({})
    const good = await make(node, 'good')
    await became(node, good, 'SUCCESS')
    const { dateCreate, dateProcessing } = await data(node, good)
    expect(Date.parse(dateProcessing ?? '')).toBeGreaterThanOrEqual(Date.parse(dateCreate))
    await shares({ deadRate: 1 })
    const bad = await make(node, 'bad')
    await became(node, bad, 'ERROR')
    await shares({ failRate: 1 })
    const unsteady = await make(node, 'unsteady')
    await became(node, unsteady, 'IN_PROGRESS')
    await shares({})
    await became(node, unsteady, 'SUCCESS')
    expect(await node.call('GET', `/tasks/${bad}`)).toMatchObject({
      queue: 'ipr.task',
      status: 'dead',
      origin: 'compat',
    })
    await node.stop()
  }, 180_000)

  test(`${name}: consumers of other makes report over REST, and an illegal change is a conflict`, async () => {
    await using home = await install('embedded')
    await using broker = await testBroker(name)
    const node = await home.start(broker.env)
    await make(node, 'makes the queue and its consumer')
    for (const { id } of await consumers(node)) await node.call('DELETE', `/consumers/${id}`)
    await consumersFollowed(node)
    const other = await node.call<{ key: string }>('POST', '/keys', { name: 'another consumer', scopes: ['work'] })

    const id = await make(node, 'for us')
    expect(['NEW_TASK', 'WAIT_WORK']).toContain((await data(node, id)).status)
    // Handing over is ours: a producer that says so is right, and changes nothing.
    expect((await report(node, id, 'WAIT_WORK')).status).toBe(200)
    expect(await report(node, id, 'IN_PROGRESS')).toMatchObject({ status: 200, body: { id, status: 'IN_PROGRESS' } })
    expect((await report(node, id, 'IN_PROGRESS')).status).toBe(200)
    expect((await report(node, id, 'SUCCESS', { key: other.key })).status).toBe(409)
    const json = { taskId: id, taskStatus: 'SUCCESS' }
    const done = await expectOld(node, 200, 'PUT', '/api/v1/update-task-status', { json, type: 'text/plain' })
    expect(done).toMatchObject({ id, text: 'for us', status: 'SUCCESS' })
    // Its answer may have been lost.
    expect((await report(node, id, 'SUCCESS')).status).toBe(200)
    for (const status of ['NEW_TASK', 'WAIT_WORK', 'IN_PROGRESS', 'ERROR'])
      expect([status, (await report(node, id, status)).status]).toEqual([status, 409])
    expect((await data(node, id)).status).toBe('SUCCESS')

    const failed = await make(node, 'fails')
    expect(await report(node, failed, 'ERROR', { key: other.key })).toMatchObject({
      status: 200,
      body: { status: 'ERROR' },
    })

    const again = await make(node, 'is requeued')
    await report(node, again, 'IN_PROGRESS')
    expect((await report(node, again, 'WAIT_WORK')).body.status).toBe('IN_PROGRESS')
    expect(await report(node, again, 'IN_PROGRESS')).toMatchObject({ status: 409, body: { code: 'conflict' } })
    expect((await report(node, again, 'IN_PROGRESS', { attempt: 2 })).status).toBe(200)
    expect((await report(node, again, 'SUCCESS')).status).toBe(409)
    expect((await report(node, again, 'SUCCESS', { attempt: 1 })).status).toBe(409)
    expect((await report(node, again, 'SUCCESS', { attempt: 2 })).body.status).toBe('SUCCESS')

    const back = await make(node, 'is given back')
    await report(node, back, 'IN_PROGRESS')
    expect(['NEW_TASK', 'WAIT_WORK']).toContain((await report(node, back, 'NEW_TASK')).body.status)

    const put = (path: string, options?: OldCall) => callOld(node, 'PUT', `/api/v1/update-task-status${path}`, options)
    expect((await report(node, id, 'DONE')).status).toBe(400)
    expect((await report(node, '7', 'SUCCESS')).status).toBe(400)
    expect((await report(node, '019b7a3e-5c00-7000-8000-000000000001', 'SUCCESS')).status).toBe(404)
    expect((await put('')).status).toBe(400)
    expect((await put(`?taskId=${id}`)).status).toBe(400)
    expect((await put(`?taskId=${id}`, { json: { taskStatus: 'SUCCESS' } })).status).toBe(200)
    expect((await put(`?taskId=${id}&taskStatus=SUCCESS`, { json: { taskStatus: 'ERROR' } })).status).toBe(400)
    expect((await put(`?taskId=${id}`, { body: '{' })).status).toBe(400)

    // A task of another queue is none of this service's.
    const foreign = await node.call<{ id: string }>('POST', '/tasks', {
      payload: 1,
      target: { type: 'noop' },
      delay: '1h',
    })
    await expectOld(node, 404, 'GET', `/api/v1/get-task-data?taskId=${foreign.id}`)
    expect((await report(node, foreign.id, 'SUCCESS')).status).toBe(404)
    expect((await node.call<{ unaccounted: number }>('GET', '/accounting')).unaccounted).toBe(0)
    await node.stop()
  }, 180_000)

  test(`${name}: with COMPAT_AUTH=none this machine needs no key, but no page under another name gets in`, async () => {
    await using home = await install('embedded')
    await using broker = await testBroker(name)
    const node = await home.start({ ...broker.env, COMPAT_AUTH: 'none' })
    const json = { text: 'x' }
    const { id } = await expectOld(node, 201, 'POST', '/api/v1/create-task', { json, key: null })
    await expectOld(node, 200, 'GET', `/api/v1/get-task-data?taskId=${id}`, { key: 'the old password' })
    const { port } = new URL(await node.listening)
    const rebound = await fetch(`http://127.0.0.1:${port}/api/v1/create-task`, {
      method: 'POST',
      headers: { host: `evil.example:${port}` },
      body: JSON.stringify(json),
    })
    expect(rebound.status).toBe(401)
    await expectOld(node, 401, 'GET', '/api/v1/tasks', { key: null })
    await expectOld(node, 401, 'GET', '/metrics', { key: null })
    const { key } = await node.call<{ key: string }>('POST', '/keys', { name: 'reader', scopes: ['read'] })
    await expectOld(node, 403, 'POST', '/api/v1/create-task', { json, key })
    await node.stop()

    const open = home.spawn({ ...broker.env, COMPAT_AUTH: 'none', HOST: '0.0.0.0' })
    expect(await open.exited).toBe(2)
  }, 180_000)
}
