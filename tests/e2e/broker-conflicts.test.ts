import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import type { NodeProcess } from '../support/node-process.ts'
import { HAS_RABBITMQ, type TestVhost, testVhost } from '../support/rabbitmq.ts'
import { until } from '../support/until.ts'
import { type Installation, install, makeQueue, reached, read, submit } from './installation.ts'

setDefaultTimeout(90_000)

const NOOP = { type: 'noop' } as const

interface Shown {
  items: { id: string; queue: string; status: string }[]
}

describe.if(HAS_RABBITMQ)('what RabbitMQ has otherwise', () => {
  let vhost: TestVhost
  let installation: Installation
  let node: NodeProcess
  beforeAll(async () => {
    vhost = await testVhost()
    installation = await install('server')
    node = await installation.start({ AMQP_URL: vhost.amqpUrl })
  }, 90_000)
  afterAll(async () => {
    await node.stop()
    await installation[Symbol.asyncDispose]()
    await vhost.remove()
  }, 90_000)

  const isIn = (kind: 'queues' | 'exchanges', name: string, state: string) =>
    until(async () => (await node.call<{ state: string }>('GET', `/${kind}/${name}`)).state === state, {
      what: `${name} to be ${state}`,
      timeoutMs: 30_000,
    })
  const makeClassic = (name: string) => vhost.manage('PUT', `/queues/${vhost.name}/${name}`, { durable: true })
  const bind = (exchange: string, queue: string) =>
    node.call('PUT', `/exchanges/${exchange}/bindings`, { queue, routingKey: 'k' })
  const toExchange = (exchange: string) => submit(node, { exchange, routingKey: 'k', payload: 1, target: NOOP })

  test('a queue gets its child of a fan-out when its conflict is over, and the others get theirs at once', async () => {
    await makeClassic('bad')
    for (const queue of ['good', 'bad']) await makeQueue(node, queue)
    await node.call('PUT', '/exchanges/both', { type: 'direct' })
    for (const queue of ['good', 'bad']) await bind('both', queue)
    await isIn('queues', 'bad', 'conflict')
    const parent = await toExchange('both')
    const children = async () => (await node.call<Shown>('GET', `/tasks?parentId=${parent}`)).items
    const child = async (queue: string) => (await children()).find((one) => one.queue === queue)
    await until(async () => (await child('good'))?.status === 'succeeded', {
      what: 'the child of the good one',
      timeoutMs: 30_000,
    })
    const waiting = await until(
      async () => {
        const bad = await child('bad')
        return bad?.status === 'pending' ? bad : undefined
      },
      { what: 'the child of the bad one to wait', timeoutMs: 30_000 },
    )
    // Until its first beat nobody knows that the node runs the consumer.
    await until(async () => (await read(node, waiting.id)).waitingFor?.cause === 'broker-blocked', {
      what: 'the reason',
      timeoutMs: 30_000,
    })
    await node.call('PUT', '/queues/bad', { type: 'classic', deadLetter: false })
    expect(await reached(node, parent)).toMatchObject({ status: 'succeeded' })
  })

  test('what was lost with a queue that somebody made anew is sent again when the conflict is over', async () => {
    await node.call('PUT', '/queues/swapped', {})
    const ids = await Promise.all(Array.from({ length: 20 }, (_, n) => submit(node, { queue: 'swapped', payload: n })))
    for (const id of ids) await reached(node, id, ['queued'])
    await vhost.manage('DELETE', `/queues/${vhost.name}/swapped`)
    await makeClassic('swapped')
    // Any change has the topology looked at.
    await node.call('PUT', '/queues/another', {})
    await isIn('queues', 'swapped', 'conflict')
    await node.call('PUT', '/queues/swapped', { type: 'classic', deadLetter: false })
    await node.call('POST', '/consumers', { queue: 'swapped', target: NOOP })
    for (const id of ids) expect(await reached(node, id)).toMatchObject({ status: 'succeeded', attempt: 1 })
  })

  test('an exchange holds up what has to go through it, and not the other tasks of its queues', async () => {
    await vhost.manage('PUT', `/exchanges/${vhost.name}/wrong`, { type: 'fanout', durable: true })
    await makeQueue(node, 'fed')
    await node.call('PUT', '/exchanges/wrong', { type: 'direct' })
    await bind('wrong', 'fed')
    await isIn('exchanges', 'wrong', 'conflict')
    const held = await Promise.all(Array.from({ length: 50 }, () => toExchange('wrong')))
    const plain = await submit(node, { queue: 'fed', payload: 1, target: NOOP })
    expect(await reached(node, plain)).toMatchObject({ status: 'succeeded' })
    const why = async () => (await read(node, held[0] as string)).waitingFor
    const conflict = await until(async () => ((await why())?.cause === 'broker-blocked' ? why() : undefined), {
      what: 'the reason',
      timeoutMs: 30_000,
    })
    expect(conflict).toMatchObject({ detail: expect.stringContaining('exchange "wrong"') })
    await vhost.manage('DELETE', `/exchanges/${vhost.name}/wrong`)
    await node.call('PUT', '/queues/yet-another', {})
    for (const id of held) expect(await reached(node, id)).toMatchObject({ status: 'succeeded' })
  })
})
