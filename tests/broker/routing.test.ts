import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { AMQPClient } from '@cloudamqp/amqp-client'
import fc from 'fast-check'
import { route, routes } from '../../src/broker/routing.ts'
import { EXCHANGE_TYPES, type ExchangeType } from '../../src/task/topology/topology.ts'
import { HAS_RABBITMQ, type TestVhost, testVhost } from '../support/rabbitmq.ts'

type Route = { queue: string; routingKey: string }

/** The queues that a message gets to through an exchange with these bindings. */
const routed = (type: ExchangeType, key: string, bindings: readonly Route[]) =>
  route(
    { name: 'x', type },
    key,
    bindings.map((binding) => ({ exchange: 'x', ...binding })),
  )

test.each<[string, string, boolean]>([
  ['#', '', true],
  ['#', 'a.b.c', true],
  ['*', '', false],
  ['*', 'a', true],
  ['*', 'a.b', false],
  ['', '', true],
  ['', 'a', false],
  ['a.#', 'a', true],
  ['a.#', 'a.b.c', true],
  ['#.c', 'c', true],
  ['a.*.c', 'a..c', true],
  ['a.#.c', 'a.c', true],
  ['#.#', '', true],
  ['*.#', '', false],
  ['a*', 'ab', false],
  ['A', 'a', false],
])('the pattern "%s" and the key "%s": %p', (pattern, key, expected) => {
  expect(routes('topic', pattern, key)).toBe(expected)
})

test('a long pattern of many # is judged at once', () => {
  const pattern = Array.from({ length: 60 }, () => '#.a').join('.')
  const began = performance.now()
  expect(routes('topic', pattern, `${'a.'.repeat(100)}b`)).toBe(false)
  expect(performance.now() - began).toBeLessThan(1_000)
})

test('a queue with several bindings that match is named once', () => {
  const bindings = [
    { queue: 'one', routingKey: 'a.*' },
    { queue: 'two', routingKey: 'b' },
    { queue: 'one', routingKey: '#' },
  ]
  expect(routed('topic', 'a.b', bindings)).toEqual(['one'])
  expect(routed('fanout', 'a.b', bindings)).toEqual(['one', 'two'])
  expect(routed('direct', 'a.b', bindings)).toEqual([])
})

describe.if(HAS_RABBITMQ)('RabbitMQ routes as we say', () => {
  let vhost: TestVhost
  let client: AMQPClient
  beforeAll(async () => {
    vhost = await testVhost()
    client = new AMQPClient(vhost.amqpUrl)
    await client.connect()
  })
  afterAll(async () => {
    await client?.close()
    await vhost?.remove()
  })

  // Few letters, so that much matches; words may be empty.
  const key = (...words: string[]) =>
    fc.array(fc.constantFrom(...words), { maxLength: 5 }).map((chosen) => chosen.join('.'))
  const topologies = fc.record({
    bindings: fc.array(
      fc.record({ queue: fc.constantFrom('q0', 'q1', 'q2', 'q3'), routingKey: key('a', 'b', '', '*', '#', '#') }),
      { maxLength: 12 },
    ),
    keys: fc.array(key('a', 'b', '', '*', 'c'), { minLength: 1, maxLength: 40 }),
  })

  test.each([...EXCHANGE_TYPES])(
    '%s',
    async (type) => {
      let run = 0
      await fc.assert(
        fc.asyncProperty(topologies, async ({ bindings, keys }) => {
          const landed = await publishedThrough(client, type, bindings, keys, `${type}-${run++}`)
          keys.forEach((routingKey, index) => {
            expect({ routingKey, queues: landed[index] }).toEqual({
              routingKey,
              queues: routed(type, routingKey, bindings).sort(),
            })
          })
        }),
        { numRuns: 40 },
      )
    },
    60_000,
  )
})

/** Publishes every key once through a new exchange, and tells which queues each came out of. */
async function publishedThrough(
  client: AMQPClient,
  type: ExchangeType,
  bindings: Route[],
  keys: string[],
  name: string,
) {
  const channel = await client.channel()
  await channel.confirmSelect()
  const queues = [...new Set(bindings.map(({ queue }) => queue))]
  const queueOf = (queue: string) => `${name}.${queue}`
  await Promise.all([
    channel.exchangeDeclare(name, type, { durable: false }),
    ...queues.map((queue) => channel.queueDeclare(queueOf(queue), { durable: false })),
    ...bindings.map(({ queue, routingKey }) => channel.queueBind(queueOf(queue), name, routingKey)),
  ])
  await Promise.all(keys.map((key, index) => channel.basicPublish(name, key, String(index))))
  const landed: string[][] = keys.map(() => [])
  for (const queue of queues) {
    for (
      let message = await channel.basicGet(queueOf(queue));
      message;
      message = await channel.basicGet(queueOf(queue))
    ) {
      landed[Number(message.bodyToString())]?.push(queue)
    }
  }
  await Promise.all([...queues.map((queue) => channel.queueDelete(queueOf(queue))), channel.exchangeDelete(name)])
  await channel.close()
  return landed.map((found) => found.sort())
}
