import type { AMQPMessage, AMQPProperties, Field } from '@cloudamqp/amqp-client'
import { LIMITS, truncate } from '../../task/limits.ts'
import type { Delivery, HeaderValue, Message, MessageProperties } from '../broker.ts'
import { UNREADABLE_HEADER } from '../wire-form.ts'
import type { OutgoingMessage } from './frames.ts'

/** What AMQP gives a short string. */
const SHORT_STRING_BYTES = 255
const PERSISTENT = 2

/** The message as RabbitMQ takes it, kept on disk where its queue is durable. */
export function outgoing({ exchange, routingKey, body, properties }: Message): OutgoingMessage {
  const { timestamp, type, ...others } = properties
  const sent: AMQPProperties = { ...(others as AMQPProperties), deliveryMode: PERSISTENT }
  // A type has up to 128 characters of any width; the ledger has it in full.
  if (type !== undefined) sent.type = truncate(type, SHORT_STRING_BYTES)
  if (timestamp !== undefined) sent.timestamp = new Date(timestamp)
  return { exchange, routingKey, body: typeof body === 'string' ? Buffer.from(body) : body, properties: sent }
}

/** The delivery of a message as it came; its headers are copied out of the client's buffers, so call it at once. */
export function incoming(queue: string, message: AMQPMessage): Delivery {
  const { exchange, routingKey, redelivered } = message
  return {
    queue,
    exchange,
    routingKey,
    redelivered,
    body: message.body ?? new Uint8Array(),
    properties: incomingProperties(message.properties),
  }
}

function incomingProperties(came: AMQPProperties): MessageProperties {
  const { timestamp, headers, deliveryMode: _, userId: __, ...others } = came
  const properties: MessageProperties = others
  if (timestamp !== undefined) properties.timestamp = instantOf(timestamp) ?? undefined
  if (headers !== undefined) properties.headers = readableHeaders(headers)
  return properties
}

function readableHeaders(headers: object): Record<string, HeaderValue> {
  try {
    return tableOf(headers, 0)
  } catch {
    return { [UNREADABLE_HEADER]: true }
  }
}

/** RFC 3339; null when the number of seconds is none that a date can have. */
function instantOf(date: Date): string | null {
  return Number.isNaN(date.getTime()) ? null : date.toISOString()
}

function tableOf(table: object, depth: number): Record<string, HeaderValue> {
  return Object.fromEntries(Object.entries(table).map(([name, value]) => [name, headerValue(value, depth + 1)]))
}

/** Bytes become base64 and times RFC 3339; what lies deeper than JSON may is not read. */
function headerValue(value: Field, depth: number): HeaderValue {
  if (depth > LIMITS.jsonDepth) throw new RangeError(`tables lie more than ${LIMITS.jsonDepth} deep`)
  if (value === undefined || value === null) return null
  if (typeof value === 'bigint') return value.toString()
  if (typeof value !== 'object') return value
  if (value instanceof Date) return instantOf(value)
  if (value instanceof Uint8Array) return Buffer.from(value).toString('base64')
  if (Array.isArray(value)) return value.map((each) => headerValue(each, depth + 1))
  return tableOf(value, depth + 1)
}
