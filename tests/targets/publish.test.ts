import { expect, test } from 'bun:test'
import { publishTarget } from '../../src/targets/publish.ts'
import type { Answers, Ask, Question } from '../../src/task/attempt/question.ts'
import type { PublishTarget } from '../../src/task/target/target.ts'
import { anExecution } from '../execution/executor.conformance.ts'
import { targetContext } from '../support/target-context.ts'

async function publish(target: Omit<PublishTarget, 'type'>, end: Answers['publish'] = 'confirmed') {
  const asked: Question[] = []
  const ask = (async (question: Question) => {
    asked.push(question)
    return end
  }) as Ask
  const execution = anExecution({
    payload: '{"amount": 10.10}',
    type: 'order',
    priority: 7,
    traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
    target: { type: 'publish', ...target },
  })
  return { execution, asked, outcome: await publishTarget(execution, targetContext({ ask })) }
}

test('the payload is sent as it came, under the id of its task', async () => {
  const { execution, asked, outcome } = await publish({
    exchange: 'orders',
    routingKey: 'order.new',
    headers: { a: 'b' },
  })
  expect(outcome).toEqual({ kind: 'succeeded' })
  expect(asked).toEqual([
    {
      kind: 'publish',
      exchange: 'orders',
      routingKey: 'order.new',
      body: '{"amount": 10.10}',
      properties: {
        messageId: execution.id,
        type: 'order',
        contentType: 'application/json',
        priority: 7,
        timestamp: execution.createdAt,
        headers: { a: 'b', traceparent: execution.traceparent as string },
      },
    },
  ])
})

test('a message that no queue took is dead, and says what to do', async () => {
  expect((await publish({ routingKey: 'mails' }, 'unroutable')).outcome).toEqual({
    kind: 'failed',
    retryable: false,
    error: 'There is no queue "mails": make it, then replay the task',
  })
  expect((await publish({ exchange: 'orders', routingKey: 'a.b' }, 'unroutable')).outcome).toEqual({
    kind: 'failed',
    retryable: false,
    error: 'No queue is bound to the exchange "orders" for the routing key "a.b": bind one, then replay the task',
  })
})

test('a message that the user of the broker may not publish is tried again, and says which permission is missing', async () => {
  expect((await publish({ exchange: 'orders', routingKey: 'a.b' }, 'refused')).outcome).toEqual({
    kind: 'failed',
    retryable: true,
    error: 'RabbitMQ does not let the user of AMQP_URL publish to the exchange "orders": give it "write" there',
  })
})

test('a message that may have arrived is sent again', async () => {
  expect((await publish({ routingKey: 'mails' }, 'unknown')).outcome).toMatchObject({ kind: 'failed', retryable: true })
})

test('a header that speaks for a task is not sent', async () => {
  const { asked, outcome } = await publish({ routingKey: 'mails', headers: { 'x-longshore-task': 'another' } })
  expect(outcome).toMatchObject({ kind: 'failed', retryable: false })
  expect(asked).toEqual([])
})
