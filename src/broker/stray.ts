import { v5 as uuidv5, v7 as uuidv7 } from 'uuid'
import { messageOf as textOf } from '../runtime/errors.ts'
import { checkJsonText } from '../task/json/text.ts'
import type { Stray, StrayMessage } from '../task/ledger.ts'
import { LIMITS, PRIORITIES, truncate } from '../task/limits.ts'
import type { Delivery, MessageProperties } from './broker.ts'

/** Of ids made from a queue and a message id (RFC 9562, version 5). */
const NAMESPACE = '8f8f3d2e-6f0b-4f7c-9b0e-2a6c1f0d5b7a'

/** A message that is somebody else's, as the task that it becomes; `reason`: why it cannot be worked on. */
export type ReadStray = Stray & { reason?: string }

/** Bytes that are kept of a message that is no payload. */
const BODY_KEPT = LIMITS.payloadBytes
/** JSON text of its headers and of its other properties, each. */
const TABLE_KEPT = 16 * 1024

const utf8 = new TextDecoder('utf-8', { fatal: true })

/**
 * Reads a message of a client that knows nothing of Longshore: its body is the payload if it parses as JSON, else
 * `{ "raw": "<text>" }`; what is not UTF-8, too large, or JSON that cannot be kept has a `reason`, and its bytes are kept. The
 * same message gives the same id while it has a message id (PROTOCOL 17). Never throws.
 */
export function readStray(delivery: Delivery): ReadStray {
  try {
    return read(delivery)
  } catch (error) {
    return bareStray(delivery, `It cannot be read: ${textOf(error)}`)
  }
}

function read(delivery: Delivery): ReadStray {
  const { queue, properties } = delivery
  const { payload, isText, reason } = payloadOf(delivery.body)
  const type = properties.type ?? null
  return {
    id: idOf(queue, properties.messageId),
    payload: payload ?? 'null',
    type: type === null || type === '' ? null : printable(type),
    priority: Math.min(PRIORITIES - 1, Math.max(0, Math.trunc(properties.priority ?? 0) || 0)),
    traceparent: traceparentOf(properties),
    message: {
      ...(payload === undefined && { unreadable: true as const }),
      ...messageOf(delivery, payload === undefined || isText),
    },
    ...(reason !== undefined && { reason }),
  }
}

/** One bad message must not hold up those that came with it: what it says of itself is left out, its bytes are kept. */
function bareStray({ body, exchange, routingKey }: Delivery, reason: string): ReadStray {
  return {
    id: uuidv7(),
    payload: 'null',
    type: null,
    priority: 0,
    traceparent: null,
    message: {
      unreadable: true,
      body: bytesKept(body),
      exchange: printable(exchange),
      routingKey: printable(routingKey),
      properties: {},
      headers: {},
    },
    reason,
  }
}

/** A message as a dead letter: its bytes are kept whatever they are. Never throws. */
export function readDeadStray(delivery: Delivery, id: string | undefined, reason: string): ReadStray {
  const stray = readStray(delivery)
  return {
    ...stray,
    ...(id !== undefined && { id }),
    reason,
    message: { ...stray.message, body: bytesKept(delivery.body) },
  }
}

function idOf(queue: string, messageId: string | undefined): string {
  return messageId ? uuidv5(`${queue}\0${messageId}`, NAMESPACE) : uuidv7()
}

function payloadOf(body: Delivery['body']): { payload?: string; isText?: boolean; reason?: string } {
  const size = typeof body === 'string' ? Buffer.byteLength(body) : body.length
  if (size > LIMITS.payloadBytes) {
    return { reason: `Its body has ${size} bytes: a payload may have ${LIMITS.payloadBytes}` }
  }
  let text: string
  try {
    text = typeof body === 'string' ? body : utf8.decode(body)
  } catch {
    return { reason: 'Its body is not UTF-8' }
  }
  const checked = checkJsonText(text)
  if (checked.ok) return { payload: text }
  if (checked.code === 'validation') {
    return { reason: `Its body is JSON that cannot be kept: ${checked.path || 'the whole'} ${checked.reason}` }
  }
  if (text.includes('\0')) return { reason: 'Its body holds NUL characters' }
  const payload = JSON.stringify({ raw: text })
  if (Buffer.byteLength(payload) <= LIMITS.payloadBytes) return { payload, isText: true }
  return { reason: `Its body has more than ${LIMITS.payloadBytes} bytes when it is written as JSON` }
}

function messageOf({ body, exchange, routingKey, properties }: Delivery, keepBody = false): StrayMessage {
  const { headers = {}, ...rest } = properties
  return {
    ...(keepBody && { body: bytesKept(body) }),
    exchange: printable(exchange),
    routingKey: printable(routingKey),
    properties: bounded(rest),
    headers: bounded(headers),
  }
}

function bytesKept(body: Delivery['body']): string {
  const bytes =
    typeof body === 'string' ? Buffer.from(body) : Buffer.from(body.buffer, body.byteOffset, body.byteLength)
  return bytes.subarray(0, BODY_KEPT).toString('base64')
}

/** What Postgres takes and a reader can bear. */
function bounded(table: Record<string, unknown>): Record<string, unknown> {
  const clean = cleaned(table) as Record<string, unknown>
  const text = JSON.stringify(clean)
  return text.length > TABLE_KEPT ? { cut: truncate(text, TABLE_KEPT) } : clean
}

/** A value as JSON text can hold it in Postgres. */
function cleaned(value: unknown, depth = 0): unknown {
  if (typeof value === 'bigint') return value.toString()
  if (typeof value === 'string') return cleanText(value)
  if (typeof value !== 'object' || value === null || value instanceof Date) return value
  if (depth === LIMITS.jsonDepth) return '[cut]'
  if (Array.isArray(value)) return value.map((one) => cleaned(one, depth + 1))
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [cleanText(name), cleaned(one, depth + 1)]))
}

function cleanText(text: string): string {
  return text.replaceAll('\0', '\uFFFD').toWellFormed()
}

function printable(text: string): string {
  return truncate(cleanText(text), LIMITS.typeLength)
}

function traceparentOf({ headers }: MessageProperties): string | null {
  const value = headers?.traceparent
  return typeof value === 'string' && /^[0-9a-f-]{55}$/.test(value) ? value : null
}
