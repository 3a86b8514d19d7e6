import type { ValueError } from '@sinclair/typebox/value'
import { ValidationError } from 'elysia'
import { BrokerUnavailable } from '../broker/broker.ts'
import { messageOf, Problem } from '../runtime/errors.ts'
import type { Logger } from '../runtime/log.ts'
import { databaseProblem } from '../store/database/database.ts'
import { fieldErrors } from './validation.ts'

/** Seconds after which a caller may ask again what could not be answered now. */
const RETRY_AFTER_S = 2

/** The problem as an RFC 9457 response. */
export function problemResponse(problem: Problem, headers: Record<string, string> = {}): Response {
  const body = {
    type: `urn:longshore:problem:${problem.code}`,
    title: problem.title,
    status: problem.status,
    detail: problem.detail,
    code: problem.code,
    ...(problem.errors.length > 0 && { errors: problem.errors }),
  }
  return new Response(JSON.stringify(body), {
    status: problem.status,
    headers: {
      'content-type': 'application/problem+json',
      'cache-control': 'no-store',
      ...(problem.code === 'unauthenticated' && { 'www-authenticate': 'Basic realm="longshore"' }),
      ...(problem.status === 503 && { 'retry-after': String(RETRY_AFTER_S) }),
      ...headers,
    },
  })
}

/** What was thrown while answering, as a problem: what we do not know is logged, and told as `internal` without a word of its own. */
export function problemOf(thrown: unknown, request: Request, log: Logger, peer?: string): Problem {
  if (thrown instanceof Problem) return thrown
  if (thrown instanceof ValidationError && thrown.type !== 'response') {
    const errors = fieldErrors(thrown.all as Iterable<ValueError>)
    return new Problem('validation', `The ${thrown.type} is not valid`, errors)
  }
  const problem =
    databaseProblem(thrown) ??
    brokerProblem(thrown) ??
    new Problem('internal', 'Something is wrong on our side; the log of the node says what')
  const level = problem.status === 503 ? 'warn' : 'error'
  log[level](
    {
      event: 'request-failed',
      method: request.method,
      path: new URL(request.url).pathname,
      peer,
      code: problem.code,
      ...(level === 'error' && thrown instanceof Error && { stack: thrown.stack }),
    },
    messageOf(thrown),
  )
  return problem
}

function brokerProblem(thrown: unknown): Problem | undefined {
  if (!(thrown instanceof BrokerUnavailable)) return undefined
  return new Problem('broker-unavailable', `The broker cannot do this now: ${thrown.message}`, [], { cause: thrown })
}
