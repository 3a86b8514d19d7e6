import type { ClaimedTask, QueuedTask } from '../task/task.ts'
import type { Delivery, HeaderValue, Message, MessageProperties } from './broker.ts'

/*
 * A task as a message. The body is the payload and nothing else, so that any client can consume a queue; ids are in
 * properties and headers.
 */

export const TASK_HEADER = 'x-longshore-task'
export const ATTEMPT_HEADER = 'x-longshore-attempt'
/** On the copies of a task that was published to an exchange: the parent; each queue's copy is a child of it. */
export const PARENT_HEADER = 'x-longshore-parent'

/** On a delivery whose headers could not be read, in place of them all. */
export const UNREADABLE_HEADER = 'x-longshore-unreadable'

export const APP_ID = 'longshore'

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

/** The message of a task that is claimed already, for a consumer in this very process. */
export function claimedMessage(task: ClaimedTask): Message {
  return { exchange: '', routingKey: task.queue, body: task.payload, properties: {}, task }
}

/** The message of a queued task, to its queue. */
export function taskMessage(task: QueuedTask): Message {
  return {
    exchange: '',
    routingKey: task.queue,
    body: task.payload,
    properties: propertiesOf(task, { [TASK_HEADER]: task.id, [ATTEMPT_HEADER]: task.attempt }),
  }
}

/** The message of a task that went to the one queue of its exchange, through that exchange. */
export function addressedMessage(task: QueuedTask & { exchange: string }): Message {
  return { ...taskMessage(task), exchange: task.exchange, routingKey: task.routingKey ?? '' }
}

/** The one message of a parent that is published to an exchange. */
export function fanOutMessage(parent: QueuedTask, exchange: string, routingKey: string): Message {
  return {
    exchange,
    routingKey,
    body: parent.payload,
    properties: propertiesOf(parent, { [PARENT_HEADER]: parent.id }),
  }
}

function propertiesOf(task: QueuedTask, headers: Record<string, string | number>): MessageProperties {
  return {
    messageId: task.id,
    ...(task.type !== null && { type: task.type }),
    contentType: 'application/json',
    priority: task.priority,
    timestamp: task.createdAt,
    appId: APP_ID,
    headers: {
      ...(task.headers ? (JSON.parse(task.headers) as Record<string, HeaderValue>) : {}),
      ...headers,
      ...(task.traceparent && { traceparent: task.traceparent }),
    },
  }
}

/** What the ledger can count to. */
const MAX_ATTEMPT = 2 ** 31 - 1

/** Whose message it is. */
export type MessageIdentity =
  | { kind: 'task'; id: string; attempt: number }
  | { kind: 'copy'; parentId: string }
  | { kind: 'foreign' }

/** Reads the headers; one that is not well-formed makes the message somebody else's. */
export function identityOf({ properties: { headers = {} } }: Pick<Delivery, 'properties'>): MessageIdentity {
  const { [TASK_HEADER]: id, [ATTEMPT_HEADER]: attempt, [PARENT_HEADER]: parentId } = headers
  if (
    typeof id === 'string' &&
    UUID.test(id) &&
    Number.isInteger(attempt) &&
    Number(attempt) > 0 &&
    Number(attempt) <= MAX_ATTEMPT
  )
    return { kind: 'task', id, attempt: Number(attempt) }
  if (typeof parentId === 'string' && UUID.test(parentId)) return { kind: 'copy', parentId }
  return { kind: 'foreign' }
}
