import http, { type ClientRequest, type IncomingMessage } from 'node:http'
import https from 'node:https'
import { bareHost, type Egress } from '../runtime/egress/egress.ts'
import { messageOf } from '../runtime/errors.ts'
import type { RunTarget, TargetContext } from '../task/attempt/attempt.ts'
import type { Execution } from '../task/executor.ts'
import type { Outcome } from '../task/outcome.ts'
import type { HttpTarget } from '../task/target/target.ts'
import { aborted, refused, transportFailure } from './http-failure.ts'
import { buildRequest } from './http-request.ts'
import { ExcerptReader, outcomeOf, shortUrl } from './http-response.ts'
import { redactor } from './redact.ts'

/** Below the 5 s after which many servers close idle connections: who closes first cannot be cut off by the other. */
const IDLE_SOCKET_MS = 4_000
/** A response's head may be this large, in bytes. */
const MAX_HEAD_BYTES = 64 * 1024
/** So much of a body is read to keep its connection usable; a longer one costs the connection. */
const MAX_BODY_BYTES = 1024 * 1024

/**
 * Delivers tasks to HTTP APIs: one request per attempt, never repeated within it, no redirect followed, no proxy variable
 * honoured (agents of our own have none; the global agent may). `egress` decides what may be reached.
 * node:http, not fetch, because fetch ignores `lookup`, and only `lookup` ties a connection to the addresses that were
 * checked. A kept-alive connection stays with the address it was opened to, and serves its own host name only.
 */
export function createHttpTarget({ egress }: { egress: Egress }): RunTarget {
  const pool = { keepAlive: true, timeout: IDLE_SOCKET_MS, scheduling: 'lifo' } as const
  const plain = new http.Agent(pool)
  // Explicit, so that NODE_TLS_REJECT_UNAUTHORIZED=0 cannot switch it off.
  const secure = new https.Agent({ ...pool, rejectUnauthorized: true })

  return async (execution, context) => {
    const { target } = execution
    if (target.type !== 'http') throw new TypeError(`The http target was given a target of type ${target.type}`)
    const url = URL.parse(target.url)
    const method = target.method ?? 'POST'
    if (!url) return refused(method, "the target's url is not a URL")
    const name = `${method} ${shortUrl(url)}`
    const reason = egress.checkUrl(url)
    if (reason !== undefined) return refused(name, reason)
    const built = buildRequest(execution, target, Date.now())
    if (!built.ok) return refused(name, built.reason)

    const host = bareHost(url)
    const isSecure = url.protocol === 'https:'
    const options: https.RequestOptions = {
      agent: isSecure ? secure : plain,
      host,
      path: url.pathname + url.search,
      method: built.value.method,
      headers: built.value.headers,
      lookup: egress.lookup,
      maxHeaderSize: MAX_HEAD_BYTES,
    }
    if (url.port) options.port = url.port
    // A certificate never names the root's dot.
    if (isSecure && host.endsWith('.')) options.servername = host.slice(0, -1)
    const open = () => (isSecure ? https : http).request(options)
    return exchange({ execution, target, context, url, name, open, body: built.value.body })
  }
}

interface Exchange {
  execution: Execution
  target: HttpTarget
  context: TargetContext
  url: URL
  /** Method and URL for messages. */
  name: string
  open: () => ClientRequest
  body: Buffer | undefined
}

/** Sends one request and reads its response; the first of response, error, abort and close decides, and nothing stays open. */
function exchange({ execution, target, context, url, name, open, body }: Exchange): Promise<Outcome> {
  const { signal } = context
  return new Promise((resolve) => {
    let request: ClientRequest | undefined
    let response: IncomingMessage | undefined
    let decided = false
    const excerpt = new ExcerptReader()
    const redact = redactor(target)
    const said = ({ headers }: IncomingMessage) => redact(excerpt.text(headers['content-encoding']))

    const decide = (outcome: Outcome, reusable = false) => {
      if (decided) return
      decided = true
      signal.removeEventListener('abort', onAbort)
      if (!reusable) request?.destroy()
      resolve(outcome)
    }
    const kept = () => response && { status: response.statusCode ?? 0, body: said(response) }
    const fail = (thrown: unknown) => decide(transportFailure(name, thrown, kept()))
    const onAbort = () => decide(aborted(name, signal.reason, execution.timeoutMs, kept()))
    const answer = (from: IncomingMessage, reusable: boolean) => {
      const { headers, statusCode: status = 0 } = from
      decide(
        outcomeOf(
          {
            request: name,
            url,
            status,
            location: headers.location,
            retryAfter: headers['retry-after'],
            date: headers.date,
            response: { status, body: said(from) },
          },
          target.success,
          Date.now(),
        ),
        reusable,
      )
    }

    if (signal.aborted) return onAbort()
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      request = open()
    } catch (thrown) {
      // node:http throws for what it will not send at all, such as a line break in a header.
      return decide(refused(name, messageOf(thrown)))
    }
    request.on('error', fail)
    // Without a listener a 101 would end the request without any event but `close`.
    request.on('upgrade', (from, socket) => {
      socket.destroy()
      answer(from, false)
    })
    request.on('close', () => {
      if (!response) fail(new Error('the connection closed'))
    })
    request.on('response', (from) => {
      response = from
      from.on('data', (chunk: Buffer) => {
        if (excerpt.add(chunk) > MAX_BODY_BYTES) answer(from, false)
      })
      from.on('end', () => answer(from, true))
      from.on('error', fail)
      from.on('close', () => fail(new Error('the connection closed')))
    })
    request.end(body)
  })
}
