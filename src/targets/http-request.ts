import { createHmac } from 'node:crypto'
import { attemptContext, formatTraceparent } from '../runtime/telemetry/traceparent.ts'
import { VERSION } from '../runtime/version.ts'
import type { Execution } from '../task/executor.ts'
import { memberSpans } from '../task/json/text.ts'
import { isReservedHeader } from '../task/target/reserved-headers.ts'
import { signingKey } from '../task/target/signing-key.ts'
import type { HttpTarget } from '../task/target/target.ts'

/** A request as it goes out. */
export interface HttpRequest {
  method: string
  headers: Record<string, string>
  body: Buffer | undefined
}

type Built<T> = { ok: true; value: T } | { ok: false; reason: string }

/**
 * Makes the request of one attempt; the reason is a sentence that follows "was not sent: ".
 * `now` is the wall clock in milliseconds since 1970, as the receiver compares the timestamp with its own.
 */
export function buildRequest(execution: Execution, target: HttpTarget, now: number): Built<HttpRequest> {
  const method = target.method ?? 'POST'
  const headers: Record<string, string> = {
    accept: '*/*',
    // The first bytes of the answer are kept as text, so they should not be compressed.
    'accept-encoding': 'identity',
    'user-agent': `longshore/${VERSION}`,
    'idempotency-key': execution.id,
  }
  const traceparent = execution.traceparent ?? traceparentOf(execution.id)
  if (traceparent) headers.traceparent = traceparent

  let body: Buffer | undefined
  if (method !== 'GET') {
    const encoded = encodeBody(execution, target)
    if (!encoded.ok) return encoded
    headers['content-type'] = encoded.value.contentType
    body = Buffer.from(encoded.value.text)
  }
  for (const [name, value] of Object.entries(target.headers ?? {})) {
    if (isReservedHeader(name))
      return { ok: false, reason: `the header "${name}" is set by Longshore; take it out of the target` }
    headers[name.toLowerCase()] = value
  }
  if (body) headers['content-length'] = String(body.length)

  const timestamp = String(Math.floor(now / 1000))
  headers['webhook-id'] = execution.id
  headers['webhook-timestamp'] = timestamp
  headers['x-longshore-attempt'] = String(execution.attempt)
  if (target.secret !== undefined) {
    const signatures: string[] = []
    for (const secret of [target.secret].flat()) {
      const key = signingKey(secret)
      if (!key) return { ok: false, reason: 'the text after "whsec_" in the secret of the target is not base64' }
      signatures.push(sign(key, execution.id, timestamp, body))
    }
    headers['webhook-signature'] = signatures.join(' ')
  }
  return { ok: true, value: { method, headers, body } }
}

function encodeBody(execution: Execution, target: HttpTarget): Built<{ text: string; contentType: string }> {
  const { payload } = execution
  const format = target.format ?? 'json'
  switch (format) {
    case 'json':
      return { ok: true, value: { text: payload, contentType: 'application/json' } }
    case 'form': {
      const read = memberSpans(payload)
      if (!read) return { ok: false, reason: 'a form needs a payload that is a JSON object' }
      if (!read.ok) return { ok: false, reason: `a form cannot hold the payload: ${read.path} ${read.reason}` }
      const members = new Map([...read.members].map(([name, span]) => [name, payload.slice(...span)]))
      const lacking = target.together && lackOf(members, target.together, execution.origin)
      if (lacking !== undefined) return { ok: false, reason: lacking }
      const form = new URLSearchParams()
      const renamed = new Map(Object.entries(target.rename ?? {}))
      // Values keep the text they were submitted with, so large integers survive.
      for (const [name, json] of members) form.set(renamed.get(name) ?? name, formValue(json))
      // Last, because a payload must not replace what the target's owner fixed.
      for (const [name, value] of Object.entries(target.fields ?? {})) form.set(name, value)
      return { ok: true, value: { text: form.toString(), contentType: 'application/x-www-form-urlencoded' } }
    }
    default:
      return format satisfies never
  }
}

/** Why a payload that may not lack one of `together` cannot be sent; undefined when it can. */
function lackOf(members: ReadonlyMap<string, string>, together: readonly string[], origin: string): string | undefined {
  // A message that was no JSON comes as this one field.
  if (origin === 'message' && members.size === 1 && members.has('raw')) return 'the message is not a JSON object'
  if (members.size === 0) return 'the payload has no fields'
  if (!together.some((name) => members.has(name))) return undefined
  const present = together.filter((name) => (members.get(name) ?? 'null') !== 'null')
  if (present.length === together.length) return undefined
  const missing = together.filter((name) => !present.includes(name))
  const beside = present.length === 0 ? '' : ` beside ${present.join(', ')}`
  return `the payload lacks ${missing.join(', ')}${beside}`
}

/** Strings without their quotes, null as the empty text, everything else as its JSON text. */
function formValue(json: string): string {
  if (json === 'null') return ''
  return json.startsWith('"') ? (JSON.parse(json) as string) : json
}

function sign(key: Buffer, id: string, timestamp: string, body: Buffer | undefined): string {
  const hmac = createHmac('sha256', key).update(`${id}.${timestamp}.`)
  if (body) hmac.update(body)
  return `v1,${hmac.digest('base64')}`
}

function traceparentOf(id: string): string | undefined {
  const context = attemptContext(id, undefined)
  return context && formatTraceparent(context)
}
