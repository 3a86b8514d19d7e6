import { expect, test } from 'bun:test'
import { testBroker } from '../support/brokers.ts'
import type { NodeProcess } from '../support/node-process.ts'
import { BROKERS } from '../support/rabbitmq.ts'
import { startSink } from '../support/sink.ts'
import { until } from '../support/until.ts'
import { consumersFollowed, type Installation, install, reached } from './installation.ts'
import { callOld, expectOld } from './old-client.ts'

const SECRET = 'pa$$ & "w0rd" / very+secret'

const LONGSHORE_ADMIN_KEY = 'a-key-that-all-nodes-know-0123'

const formOf = (body: string) => Object.fromEntries(new URLSearchParams(body))

for (const name of BROKERS) {
  const setUp = async (home: Installation, env: Record<string, string>) =>
    home.start({ SECRET_KEY: SECRET, LONGSHORE_ADMIN_KEY, ...env })
  const publish = async (node: NodeProcess, queueName: string, message: unknown): Promise<string> =>
    (await expectOld(node, 200, 'POST', '/messagePublish', { json: { queueName, message } })).taskId

  test(`${name}: queues are made once, told of, and deleted under guards; statuses are honest`, async () => {
    await using home = await install('embedded')
    await using broker = await testBroker(name)
    await using sink = await startSink()
    const node = await setUp(home, { ...broker.env, PROCESS_ORDER_URL: sink.url('/order') })

    const anonymous = await callOld(node, 'GET', '/getQueues', { key: null })
    expect([anonymous.status, anonymous.headers.get('www-authenticate')]).toEqual([401, 'Basic realm="longshore"'])
    expect((await callOld(node, 'GET', '/getQueues', { key: 'wrong' })).status).toBe(401)

    const json = { queueName: 'orders' }
    await expectOld(node, 404, 'POST', '/getQueueInfo', { json })
    const created = { message: 'Queue has been created successfully.' }
    expect(await expectOld(node, 201, 'POST', '/createQueue', { json })).toEqual(created)
    expect(await expectOld(node, 200, 'POST', '/createQueue', { json, type: 'text/plain' })).toEqual(created)
    expect(await expectOld(node, 200, 'POST', '/getQueueInfo', { json })).toEqual({
      queueName: 'orders',
      messages: 0,
      consumers: 0,
    })

    const waiting = await publish(node, 'orders', { clientId: 1, shipmentPackageId: 2 })
    // On its way it may be counted here and, a moment later, there.
    await reached(node, waiting, [name === 'rabbitmq' ? 'queued' : 'pending'])
    expect(await expectOld(node, 200, 'GET', '/getQueues')).toContainEqual({
      queueName: 'orders',
      messages: 1,
      consumers: 0,
    })
    for (const wrong of [
      {},
      { queueName: 'a b' },
      { queueName: 'amq.x' },
      { queueName: 'x', durable: true },
      [],
      'x',
      7,
    ])
      await expectOld(node, 400, 'POST', '/createQueue', { json: wrong })
    for (const body of ['', '{"queueName":', new Uint8Array([0x7b, 0xff, 0x7d])])
      await expectOld(node, 400, 'POST', '/createQueue', { body })
    await expectOld(node, 400, 'POST', '/messagePublish', { json })
    await expectOld(node, 413, 'POST', '/messagePublish', { json: { ...json, message: 'x'.repeat(1024 * 1024) } })
    await expectOld(node, 404, 'POST', '/messagePublish', { json: { queueName: 'none', message: 1 } })
    await expectOld(node, 404, 'POST', '/createConsumer', { json: { queueName: 'none' } })
    await expectOld(node, 404, 'GET', '/getConsumers/none')
    await expectOld(node, 404, 'POST', '/deleteQueue', { json: { queueName: 'none' } })
    await expectOld(node, 404, 'POST', '/deleteConsumer', { json: { consumerName: 'none' } })
    await expectOld(node, 409, 'POST', '/deleteQueue', { json: { queueName: 'default' } })
    expect((await callOld(node, 'DELETE', '/createQueue')).status).toBe(405)

    await expectOld(node, 409, 'POST', '/deleteQueue', { json: { ...json, ifEmpty: true } })
    expect((await reached(node, waiting, ['pending', 'queued'])).attempt).toBe(0)
    await expectOld(node, 200, 'POST', '/deleteQueue', { json: { ...json, ifUnused: true } })
    expect((await reached(node, waiting)).status).toBe('cancelled')
    await expectOld(node, 404, 'POST', '/messagePublish', { json: { ...json, message: 1 } })

    await expectOld(node, 201, 'POST', '/createQueue', { json })
    const { consumerName } = await expectOld(node, 201, 'POST', '/createConsumer', { json })
    await expectOld(node, 409, 'POST', '/deleteQueue', { json: { ...json, ifUnused: true } })
    await expectOld(node, 200, 'POST', '/deleteQueue', { json: { ...json, ifEmpty: true } })
    await expectOld(node, 404, 'POST', '/deleteConsumer', { json: { consumerName } })
    await until(() => node.logged('queue-deleted').length >= 2, { what: 'the log to tell of both deletions' })
    expect(node.logged('queue-deleted')).toMatchObject([
      { queue: 'orders', key: expect.any(String) },
      { queue: 'orders', key: expect.any(String) },
    ])
    expect((await node.call<{ unaccounted: number }>('GET', '/accounting')).unaccounted).toBe(0)
    await node.stop()
  }, 150_000)

  test(`${name}: a consumer sends orders as a form, tries again, keeps dead letters with their reasons, and tells no secret`, async () => {
    await using home = await install('embedded')
    await using broker = await testBroker(name)
    // A server that repeats what it got must not spread the secret.
    await using sink = await startSink({
      reply: ({ body, attempt }) => {
        if (body.includes('client_id=500') && attempt === 1) return { status: 503, body: `down: ${body}` }
        if (body.includes('client_id=400')) return { status: 400, body: `refused: ${JSON.stringify(formOf(body))}` }
        return { body }
      },
    })
    const env = { ...broker.env, PROCESS_ORDER_URL: sink.url('/order') }
    const node = await setUp(home, env)
    await expectOld(node, 201, 'POST', '/createQueue', { json: { queueName: 'orders' } })
    const made = await expectOld(node, 201, 'POST', '/createConsumer', { json: { queueName: 'orders' } })
    expect(made).toEqual({ message: 'Consumer has been created successfully.', consumerName: expect.any(String) })
    const { consumerName } = made

    const order = await publish(node, 'orders', { clientId: 7, shipmentPackageId: 'P-1/ä' })
    expect((await reached(node, order)).status).toBe('succeeded')
    expect(sink.requests.map(({ method, path, body }) => [method, path, formOf(body)])).toEqual([
      [
        'POST',
        '/order',
        { client_id: '7', shipment_package_id: 'P-1/ä', consumerId: consumerName, secret_key: SECRET },
      ],
    ])
    expect(sink.requests[0]?.headers['content-type']).toBe('application/x-www-form-urlencoded')

    const other = await publish(node, 'orders', { note: 'own fields', n: 12.5 })
    const retried = await publish(node, 'orders', { clientId: 500, shipmentPackageId: 1 })
    const refused = await publish(node, 'orders', { clientId: 400, shipmentPackageId: 1 })
    const half = await publish(node, 'orders', { clientId: 7 })
    const list = await publish(node, 'orders', [1, 2])
    expect((await reached(node, other)).status).toBe('succeeded')
    expect(sink.requests.map(({ body }) => formOf(body))).toContainEqual({
      note: 'own fields',
      n: '12.5',
      consumerId: consumerName,
      secret_key: SECRET,
    })
    expect(await reached(node, retried)).toMatchObject({ status: 'succeeded', failures: 1, attempt: 2 })
    expect(await reached(node, refused)).toMatchObject({ status: 'dead', attempt: 1 })
    expect((await reached(node, half)).error).toContain('lacks shipmentPackageId beside clientId')
    expect((await reached(node, list)).error).toContain('a JSON object')
    // Four tasks were sent, one of them twice, and each once an attempt.
    expect(sink.requests).toHaveLength(5)

    for (const [event, ids] of Object.entries({
      'queue-created': [],
      'consumer-created': [],
      'message-published': [order, other, retried, refused, half, list],
      'message-delivered': [order, other, retried],
      'message-failed': [retried, refused, half, list],
    })) {
      await until(() => node.logged(event).length >= ids.length, {
        what: `the log to tell of ${event}`,
        timeoutMs: 30_000,
      })
      expect(node.logged(event).map(({ queue }) => queue)).toContain('orders')
      for (const id of ids) expect(node.logged(event).map(({ task }) => task)).toContain(id)
    }
    expect(node.logged('message-delivered')[0]).toMatchObject({ consumer: consumerName, attempt: 1, queue: 'orders' })

    const [shown] = await expectOld(node, 200, 'GET', '/getConsumers/orders')
    expect(shown).toMatchObject({ consumerName, queueName: 'orders', target: { fields: { secret_key: '[secret]' } } })
    expect(await expectOld(node, 200, 'GET', '/getConsumers')).toContainEqual(shown)
    const connections = await expectOld(node, 200, 'GET', '/getConnections')
    for (const { connectionId } of connections) expect(connectionId).toBeString()
    if (name === 'in-process') expect(connections).toEqual([])
    const told = [
      ...(await Promise.all(
        [order, other, retried, refused, half, list].map((id) => node.call('GET', `/tasks/${id}`)),
      )),
      await node.call('GET', '/consumers'),
      await expectOld(node, 200, 'GET', '/getConsumers'),
      await expectOld(node, 200, 'GET', '/metrics'),
      node.log,
    ]
    const text = JSON.stringify(told)
    for (const spelling of ['very+secret', 'very%2Bsecret', 'pa$$', 'pa%24%24']) expect(text).not.toContain(spelling)
    await node.stop()
  }, 150_000)

  test(`${name}: deleting a consumer ends that one after its work in hand; the other goes on, over restarts, and follows the order API`, async () => {
    await using home = await install('embedded')
    await using broker = await testBroker(name)
    const held: (() => void)[] = []
    await using sink = await startSink({
      reply: ({ body }) =>
        body.includes('slow=') ? (response) => void held.push(() => response.end('done')) : { body: 'done' },
    })
    const env = { ...broker.env, PROCESS_ORDER_URL: sink.url('/order') }
    const first = await setUp(home, env)
    const json = { queueName: 'orders' }
    await expectOld(first, 201, 'POST', '/createQueue', { json })
    const one = (await expectOld(first, 201, 'POST', '/createConsumer', { json })).consumerName
    const slow = await publish(first, 'orders', { slow: 1 })
    await until(() => held.length === 1, { what: 'the order to be in hand', timeoutMs: 30_000 })
    const two = (await expectOld(first, 201, 'POST', '/createConsumer', { json })).consumerName
    expect(two).not.toBe(one)
    await expectOld(first, 200, 'POST', '/deleteConsumer', { json: { consumerName: one } })
    expect(
      (await expectOld(first, 200, 'GET', '/getConsumers/orders')).map((c: { consumerName: string }) => c.consumerName),
    ).toEqual([two])
    expect((await reached(first, slow, ['running'])).attempt).toBe(1)
    await consumersFollowed(first)
    // The other one takes what comes now.
    expect((await reached(first, await publish(first, 'orders', { n: 2 }))).status).toBe('succeeded')
    expect(formOf(sink.requests.at(-1)?.body ?? '').consumerId).toBe(two)
    held[0]?.()
    expect(await reached(first, slow)).toMatchObject({ status: 'succeeded', attempt: 1 })
    await first.stop()
    expect(first.logged('consumer-deleted')).toMatchObject([{ consumer: one }])

    const second = await setUp(home, { ...env, SECRET_KEY: 'another secret', PROCESS_ORDER_URL: sink.url('/moved') })
    expect((await reached(second, await publish(second, 'orders', { n: 3 }))).status).toBe('succeeded')
    expect(sink.requests.at(-1)?.path).toBe('/moved')
    expect(formOf(sink.requests.at(-1)?.body ?? '')).toEqual({ n: '3', consumerId: two, secret_key: 'another secret' })
    await second.kill()

    const third = await home.start({
      ...broker.env,
      LONGSHORE_ADMIN_KEY,
      EPINTOWER_API_PROCESS_ORDER: sink.url('/by-the-older-name'),
    })
    expect((await reached(third, await publish(third, 'orders', { n: 4 }), undefined, 60_000)).status).toBe('succeeded')
    expect(sink.requests.at(-1)?.path).toBe('/by-the-older-name')
    expect(formOf(sink.requests.at(-1)?.body ?? '')).toEqual({ n: '4', consumerId: two })
    await third.stop()
  }, 200_000)

  test(`${name}: without PROCESS_ORDER_URL no consumer is made, and COMPAT_ROUTES=off takes the routes away`, async () => {
    await using home = await install('embedded')
    await using broker = await testBroker(name)
    const first = await setUp(home, broker.env)
    await expectOld(first, 201, 'POST', '/createQueue', { json: { queueName: 'orders' } })
    await expectOld(first, 404, 'POST', '/createConsumer', { json: { queueName: 'none' } })
    const refused = await callOld(first, 'POST', '/createConsumer', { json: { queueName: 'orders' } })
    expect([refused.status, refused.body.detail]).toEqual([422, expect.stringContaining('PROCESS_ORDER_URL')])
    await first.stop()
    const second = await setUp(home, { ...broker.env, COMPAT_ROUTES: 'off' })
    for (const path of ['/getQueues', '/create-job/x', '/api/jobs', '/api/v1/get-task-data'])
      await expectOld(second, 404, 'GET', path)
    for (const path of ['/ftp/api/list/', '/ftp/api/get/7/', '/client/api/list/'])
      await expectOld(second, 404, 'GET', path)
    for (const path of ['/ftp/api/create/', '/client/api/create/'])
      await expectOld(second, 404, 'POST', path, { json: {} })
    await expectOld(second, 404, 'PUT', '/ftp/api/update/7/', { json: {} })
    await expectOld(second, 404, 'DELETE', '/ftp/api/delete/7/')
    await second.stop()
  }, 150_000)
}
