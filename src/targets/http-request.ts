import { createHmac } from 'node:crypto'
import { attemptContext, formatTraceparent } from '../runtime/traceparent.ts'
import { VERSION } from '../runtime/version.ts'
import type { Execution } from '../task/executor.ts'
import { memberSpans } from '../task/json-text.ts'
import { isReservedHeader } from '../task/reserved-headers.ts'
import { signingKey } from '../task/signing-key.ts'
import type { HttpTarget } from '../task/target.ts'

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
    const encoded = encodeBody(execution.payload, target)
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

function encodeBody(payload: string, target: HttpTarget): Built<{ text: string; contentType: string }> {
  const format = target.format ?? 'json'
  switch (format) {
    case 'json':
      return { ok: true, value: { text: payload, contentType: 'application/json' } }
    case 'form': {
      const read = memberSpans(payload)
      if (!read) return { ok: false, reason: 'a form needs a payload that is a JSON object' }
      if (!read.ok) return { ok: false, reason: `a form cannot hold the payload: ${read.path} ${read.reason}` }
      const form = new URLSearchParams()
      // Values keep the text they were submitted with, so large integers survive.
      for (const [name, [start, end]] of read.members) form.set(name, formValue(payload.slice(start, end)))
      // Last, because a payload must not replace what the target's owner fixed.
      for (const [name, value] of Object.entries(target.fields ?? {})) form.set(name, value)
      return { ok: true, value: { text: form.toString(), contentType: 'application/x-www-form-urlencoded' } }
    }
    default:
      return format satisfies never
  }
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
