import { expect, test } from 'bun:test'
import type { AMQPChannel } from '@cloudamqp/amqp-client'
import type { Asking } from '../../src/broker/rabbitmq/connection/short-lived-channel.ts'
import { remove } from '../../src/broker/rabbitmq/inspection.ts'

/** Counts of the queue, one after another, as RabbitMQ answers them; its dead-letter queue is empty. */
function rabbitMqThatCounts(counts: { messageCount: number; consumerCount: number }[]) {
  const deleted: string[] = []
  const channel = {
    queueDeclare: async (name: string) =>
      (name.endsWith('.dlq') ? undefined : counts.shift()) ?? { messageCount: 0, consumerCount: 0 },
    queueDelete: async (name: string) => void deleted.push(name),
  } as unknown as AMQPChannel
  const asking: Asking = { ask: async (request) => ({ answer: await request(channel) }) }
  return { asking, deleted }
}

const NOTHING = { messageCount: 0, consumerCount: 0 }

test.each([
  ['messages', { messageCount: 1, consumerCount: 0 }, 'not-empty'],
  ['consumers', { messageCount: 0, consumerCount: 1 }, 'in-use'],
] as const)('a queue of which RabbitMQ once says 0 for want of an answer keeps its %s', async (_, count, end) => {
  for (const counts of [
    [NOTHING, count],
    [count, NOTHING],
  ]) {
    const { asking, deleted } = rabbitMqThatCounts(counts)
    expect(await remove(asking, { kind: 'queue', name: 'work', ifEmpty: true, ifUnused: true })).toBe(end)
    expect(deleted).toEqual([])
  }
})

test('an empty and unused queue goes with its dead-letter queue', async () => {
  const { asking, deleted } = rabbitMqThatCounts([NOTHING, NOTHING])
  expect(await remove(asking, { kind: 'queue', name: 'work', ifEmpty: true, ifUnused: true })).toBe('removed')
  expect(deleted).toEqual(['work', 'work.dlq'])
})
