import { formatDuration } from '../runtime/duration.ts'
import { EgressRefused } from '../runtime/egress/egress.ts'
import { messageOf } from '../runtime/errors.ts'
import type { Outcome, ResponseExcerpt } from '../task/outcome.ts'

/** An attempt that no other attempt would better: nothing was sent. */
export function refused(request: string, reason: string): Outcome {
  return { kind: 'failed', retryable: false, error: `${request} was not sent: ${reason}` }
}

/** An attempt that ended without a whole response. Only what the guard refuses is final; the rest may be mended on the way. */
export function transportFailure(request: string, thrown: unknown, response: ResponseExcerpt | undefined): Outcome {
  if (thrown instanceof EgressRefused) return refused(request, thrown.message)
  const { code, message } = describe(thrown)
  const error = `${request} failed: ${explain(code, message, response)}${code ? ` (${code})` : ''}`
  return { kind: 'failed', retryable: true, error, response }
}

/** An attempt that its signal ended: a time-out is a failure, anything else a cancellation. */
export function aborted(
  request: string,
  reason: unknown,
  timeoutMs: number,
  response: ResponseExcerpt | undefined,
): Outcome {
  if (!(reason instanceof Error) || reason.name !== 'TimeoutError') return { kind: 'cancelled' }
  const within = formatDuration(timeoutMs)
  const what = response
    ? `the response (status ${response.status}) did not end within ${within}`
    : `no response within ${within}`
  return { kind: 'failed', retryable: true, error: `${request} timed out: ${what}`, response }
}

function describe(thrown: unknown): { code: string | undefined; message: string } {
  // Several addresses were tried: the first one's failure stands for all, as the joint error has no message.
  const first = thrown instanceof AggregateError && thrown.message === '' ? thrown.errors[0] : thrown
  const code = first instanceof Error && 'code' in first ? first.code : undefined
  return { code: typeof code === 'string' ? code : undefined, message: messageOf(first) }
}

const CERTIFICATE =
  /^(CERT_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_(GET|VERIFY|DECODE|DECRYPT)|ERR_TLS_CERT|HOSTNAME_MISMATCH|INVALID_CA|INVALID_PURPOSE|PATH_LENGTH)/

function explain(code: string | undefined, message: string, response: ResponseExcerpt | undefined): string {
  switch (code) {
    case 'ENOTFOUND':
      return 'its host name has no address'
    case 'EAI_AGAIN':
    case 'ESERVFAIL':
    case 'ETIMEOUT':
      return 'its host name could not be looked up'
    case 'ECONNREFUSED':
      return 'the host refuses connections'
    case 'EHOSTUNREACH':
    case 'ENETUNREACH':
      return 'the host cannot be reached'
    case 'ETIMEDOUT':
      return 'the host did not answer the connection attempt'
    case 'ECONNRESET':
    case 'EPIPE':
      return response
        ? `the connection broke in the middle of the response (status ${response.status})`
        : 'the connection broke before the response'
    default:
      if (code && CERTIFICATE.test(code)) return `the certificate is not accepted: ${message}`
      if (code?.startsWith('HPE_')) return `the response is not valid HTTP: ${message}`
      if (code?.startsWith('ERR_SSL_') || code === 'EPROTO') return `no TLS connection could be made: ${message}`
      return message
  }
}
