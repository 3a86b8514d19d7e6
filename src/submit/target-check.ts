import { invalid, type Problem, type ProblemCode } from '../runtime/errors.ts'
import { isReservedHeader } from '../task/reserved-headers.ts'
import { signingKey } from '../task/signing-key.ts'
import type { ConsumerTarget, HttpTarget } from '../task/target.ts'

/** What is asked about a target beyond its shape. */
export interface TargetChecks {
  /** The names of the handlers that this node has. */
  handlerNames(): readonly string[]
  /** Why requests may not go to this URL; undefined when they may. */
  checkUrl(url: string): string | undefined
}

/** Throws a Problem, with the place in the body, for a target that could never be delivered to. */
export function checkTarget(target: ConsumerTarget, checks: TargetChecks): void {
  switch (target.type) {
    case 'handler': {
      const names = checks.handlerNames()
      if (names.includes(target.name)) return
      const known = names.length === 0 ? 'HANDLERS_DIR has none' : `known are: ${names.join(', ')}`
      throw refused('name', `names no handler: there is no "${target.name}"; ${known}`, 'unknown-handler')
    }
    case 'http':
      checkHttp(target, checks)
      return
    case 'noop':
    case 'task':
      return
    default:
      target satisfies never
  }
}

function checkHttp({ url, headers, format, fields, secret }: HttpTarget, { checkUrl }: TargetChecks): void {
  const reason = checkUrl(url)
  if (reason !== undefined) throw refused('url', `cannot be delivered to: ${reason}`, 'unknown-target')
  const reserved = Object.keys(headers ?? {}).find(isReservedHeader)
  if (reserved !== undefined) throw refused(`headers/${reserved}`, 'is set by Longshore; leave it out')
  if (fields && format !== 'form') throw refused('fields', 'only go with "format": "form"')
  if ([secret ?? []].flat().some((one) => !signingKey(one))) throw refused('secret', 'must be base64 after "whsec_"')
}

function refused(field: string, message: string, code?: ProblemCode): Problem {
  return invalid(`/target/${field}`, message, code)
}
