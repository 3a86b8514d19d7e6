import { messageOf } from '../runtime/errors.ts'
import type { RunTarget } from '../task/attempt/attempt.ts'
import type { Answers } from '../task/attempt/question.ts'
import type { Execution } from '../task/executor.ts'
import { failed, type Outcome } from '../task/outcome.ts'
import { isOwnMessageHeader } from '../task/target/reserved-headers.ts'
import type { PublishTarget } from '../task/target/target.ts'

/**
 * Sends the payload as a message through the broker of the ledger's side. Its message id is the task's id: an attempt
 * whose confirm was lost sends it again, and consumers tell by the id that it is the same.
 */
export const publishTarget: RunTarget = async (execution, context) => {
  const { target } = execution
  if (target.type !== 'publish') throw new TypeError(`The publish target was given a target of type ${target.type}`)
  const own = Object.keys(target.headers ?? {}).find(isOwnMessageHeader)
  if (own !== undefined) return failed(`The header "${own}" is set by Longshore alone`, false)
  const exchange = target.exchange ?? ''
  try {
    const end = await context.ask({
      kind: 'publish',
      exchange,
      routingKey: target.routingKey,
      body: execution.payload,
      properties: propertiesOf(execution, target),
    })
    return outcomeOf(end, exchange, target.routingKey)
  } catch (error) {
    return failed(`Cannot publish: ${messageOf(error)}`, true)
  }
}

function propertiesOf({ id, type, priority, createdAt, traceparent }: Execution, { headers }: PublishTarget) {
  const allHeaders = { ...headers, ...(traceparent ? { traceparent } : {}) }
  return {
    messageId: id,
    ...(type !== null && { type }),
    contentType: 'application/json',
    priority,
    timestamp: createdAt,
    ...(Object.keys(allHeaders).length > 0 && { headers: allHeaders }),
  }
}

function outcomeOf(end: Answers['publish'], exchange: string, routingKey: string): Outcome {
  switch (end) {
    case 'confirmed':
      return { kind: 'succeeded' }
    case 'unroutable': {
      const why =
        exchange === ''
          ? `There is no queue "${routingKey}": make it, then replay the task`
          : `No queue is bound to the exchange "${exchange}" for the routing key "${routingKey}": bind one, then replay the task`
      return failed(why, false)
    }
    case 'refused': {
      const where = exchange === '' ? 'the default exchange (amq.default)' : `the exchange "${exchange}"`
      return failed(`RabbitMQ does not let the user of AMQP_URL publish to ${where}: give it "write" there`, true)
    }
    case 'unknown':
      return failed('The broker did not confirm the message: it may have it or not, and is sent it again', true)
    default:
      return end satisfies never
  }
}
