import { expect, test } from 'bun:test'
import { HAS_RABBITMQ, testVhost } from '../support/rabbitmq.ts'
import { until } from '../support/until.ts'
import { install, makeQueue, reached, read, submit } from './installation.ts'

test.if(HAS_RABBITMQ)(
  'a user of RabbitMQ who may not publish loses nothing: tasks say what is missing, and go on when it is given',
  async () => {
    await using vhost = await testVhost()
    const { amqpUrl, allow } = await vhost.writer('^(?!amq[.]default$|orders$).*')
    await using installation = await install('server')
    const node = await installation.start({ AMQP_URL: amqpUrl })
    await makeQueue(node, 'guarded')
    await makeQueue(node, 'mail')
    await node.call('PUT', '/exchanges/orders', { type: 'fanout' })
    for (const queue of ['guarded', 'mail'])
      await node.call('PUT', '/exchanges/orders/bindings', { queue, routingKey: '' })
    const noop = { payload: 1, target: { type: 'noop' } }

    const single = await submit(node, { queue: 'guarded', ...noop })
    const spread = await submit(node, { exchange: 'orders', routingKey: '', ...noop })
    const saysThat = async (id: string, missing: string) => {
      const { status, waitingFor } = await read(node, id)
      return status === 'pending' && waitingFor?.cause === 'broker-blocked' && waitingFor.detail.includes(missing)
    }
    for (const [id, missing] of [
      [single, '"write" on the default exchange'],
      [spread, '"write" on "orders"'],
    ] as const)
      await until(() => saysThat(id, missing), { what: `${id} to say what is missing`, timeoutMs: 30_000 })
    // It is nobody else's trouble: the broker has the queue as it should be.
    expect(await node.call('GET', '/queues/guarded')).toMatchObject({ state: 'ready', conflict: null })

    await allow('.*')
    for (const id of [single, spread])
      expect(await reached(node, id, undefined, 80_000)).toMatchObject({ status: 'succeeded' })
    expect(await read(node, single)).toMatchObject({ attempt: 1 })
    expect((await read(node, spread)).children).toMatchObject({ total: 2, succeeded: 2 })
    await node.stop()
  },
  240_000,
)

test.if(HAS_RABBITMQ)(
  'a node that may not publish holds back no other node, and nothing is taken back that RabbitMQ has',
  async () => {
    await using vhost = await testVhost()
    const { amqpUrl } = await vhost.writer('^(?!amq[.]default$).*')
    await using installation = await install('server')
    const key = { LONGSHORE_ADMIN_KEY: 'ls_permissions_admin_key_for_this_test' }
    const node = await installation.start({ ...key, AMQP_URL: vhost.amqpUrl })
    await makeQueue(node, 'busy')
    await node.call('PUT', '/queues/idle', {})
    const noop = { payload: 1, target: { type: 'noop' } }
    const kept = await submit(node, { queue: 'idle', ...noop })
    await reached(node, kept, ['queued'])
    const refused = await installation.start({ ...key, AMQP_URL: amqpUrl, LONGSHORE_ROLES: 'api,dispatcher' })
    const isTold = async () => {
      // Who accepts a task is the first to hand it on.
      const id = await submit(refused, { queue: 'busy', ...noop })
      await submit(refused, { queue: 'idle', ...noop })
      expect(await reached(node, id)).toMatchObject({ status: 'succeeded', attempt: 1 })
      return refused.logged('publish-refused').length > 0
    }
    await until(isTold, { what: 'the other node to be refused', timeoutMs: 120_000 })
    expect(await node.call('GET', '/queues/busy')).toMatchObject({ state: 'ready', conflict: null })
    const isOver = async () => {
      const { items } = await node.call<{ items: { state: { refused?: unknown } }[] }>('GET', '/nodes')
      return items.every(({ state }) => state.refused === undefined)
    }
    await until(isOver, { what: 'the refusal to be over', timeoutMs: 60_000 })
    await refused.stop()
    expect(await read(node, kept)).toMatchObject({ status: 'queued', attempt: 0 })
    await node.stop()
  },
  240_000,
)

test.if(HAS_RABBITMQ)(
  'a user of RabbitMQ who may write nothing is told what to give, and not to delete a queue',
  async () => {
    await using vhost = await testVhost()
    const { amqpUrl, allow } = await vhost.writer('^$')
    await using installation = await install('server')
    const node = await installation.start({ AMQP_URL: amqpUrl })
    await makeQueue(node, 'closed')
    const shown = () => node.call<{ state: string; conflict: string | null }>('GET', '/queues/closed')
    const isTold = async () => (await shown()).conflict ?? undefined
    const conflict = await until(isTold, { what: 'the queue to say why it stands still', timeoutMs: 30_000 })
    expect(conflict).toContain('Give that user all rights')
    expect(conflict).not.toContain('delete')
    const id = await submit(node, { queue: 'closed', payload: 1, target: { type: 'noop' } })
    await allow('.*')
    expect(await reached(node, id, undefined, 80_000)).toMatchObject({ status: 'succeeded', attempt: 1 })
    await node.stop()
  },
  240_000,
)
